"""Normal approximations of posteriors, weighed against the joint density."""
