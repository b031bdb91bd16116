"""Decide what runs where, and run texts through a model's stacks."""
