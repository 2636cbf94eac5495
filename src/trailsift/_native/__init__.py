"""The optional C modules."""
