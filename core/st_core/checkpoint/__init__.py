"""Checkpoints on disk: resolve names to folders, read and check files; torch only for pickled weights."""
