"""Tokenizers, chat templates and the splitting of long texts."""
