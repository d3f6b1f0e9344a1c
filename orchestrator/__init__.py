"""An orchestrator for coding agents: ready issues in, verified branches out."""
