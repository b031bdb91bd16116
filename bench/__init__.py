"""Benchmarks: every figure the project states, each a ratio or a time measured side by side in one run."""
