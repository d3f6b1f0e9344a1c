"""The stack on this machine: its processes, its units, its demonstration."""
