"""Turn texts into tokens."""
