"""Logging is that of Python: a name of sentence-transformers' module is refused with what to use."""

from __future__ import annotations

from st_core.util._absent import refusals

__getattr__ = refusals(__name__)
