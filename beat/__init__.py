"""What the clock sets off."""
