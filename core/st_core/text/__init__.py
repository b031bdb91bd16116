"""Tokenize texts, apply chat templates and split long texts."""
