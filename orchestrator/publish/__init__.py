"""What the tracker is told, and telling it."""
