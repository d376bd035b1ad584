"""What is not seen in an SCM: integrated out, or proposed by the guide."""
