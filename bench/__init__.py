"""Benchmarks: every figure in the documentation, a ratio or a time measured side by side in one run."""
