"""Resolve names of checkpoints to folders, and read and check their files; only pickled weights need torch."""
