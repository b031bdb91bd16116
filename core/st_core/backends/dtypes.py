"""The types that models are computed in, or their weights kept in, by the names that callers give."""

from __future__ import annotations

__all__ = ["FLOATS", "GRAPHS", "STATIC"]

FLOATS = ("float32", "float16", "bfloat16", "float64")
"""What torch computes in, by the only names that all backends know."""

GRAPHS = ("float32", "int8", "float16", "bfloat16")
"""What graphs are kept in, on either runtime."""

STATIC = "-static"
"""Stands behind the type in the precision of a graph whose int8 ranges are fixed: other numbers, from a graph that is asked for by the type alone."""
