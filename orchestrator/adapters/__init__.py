"""The edges: one module for each outside thing."""
