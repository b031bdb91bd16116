"""Run a model in several processes."""
