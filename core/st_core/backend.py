"""The import path of functions of sentence-transformers that write graphs; each name says what takes its place."""

from __future__ import annotations

from typing import NoReturn

from st_core.absent import import_error

__all__: list[str] = []


def __getattr__(name: str) -> NoReturn:
    raise import_error(__name__, name)
