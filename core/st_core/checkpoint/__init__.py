"""Find, read and check checkpoints; no torch, except for pickled weights."""
