"""Hard negatives are mined with sentence-transformers: a name of its module is refused with what to use."""

from __future__ import annotations

from st_core.util._absent import refusals

__getattr__ = refusals(__name__)
