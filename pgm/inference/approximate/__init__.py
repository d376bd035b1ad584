"""Normal approximations."""
