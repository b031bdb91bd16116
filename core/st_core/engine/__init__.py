"""Decide which backend runs a model, and run texts through the model's stacks."""
