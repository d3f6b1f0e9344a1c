"""Agent transports: how a role is asked, and how its answer comes back."""
