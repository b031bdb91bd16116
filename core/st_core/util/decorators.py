"""Decorators of sentence-transformers' own classes: each name is refused with what to use."""

from __future__ import annotations

from st_core.util._absent import refusals

__getattr__ = refusals(__name__)
