"""Encode in several processes."""
