"""What is sent when, and to which queue."""
