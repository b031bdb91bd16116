"""Parameters of tests that run the same rule over many models."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def sweep(values: Iterable[Any], short: Collection[Any]) -> list[Any]:
    """Return the values as parameters, of which all but the short ones are marked ``long``."""
    values = list(values)
    unknown = [value for value in short if value not in values]
    assert not unknown, f"{unknown} are not among the values"
    return [value if value in short else _long(value) for value in values]


def _long(value: Any) -> Any:
    return pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=pytest.mark.long)
