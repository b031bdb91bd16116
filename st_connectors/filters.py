"""Filters: a closed family of frozen values, and what they mean.

The same truth table holds in every store: a list value matches if any of its elements does; a missing field, null or an
empty list makes a leaf false; ``Not`` is the complement; 1 equals 1.0 and never True; strings compare by code points, case and all;
dates compare as instants, one without a zone being UTC. ``In`` with no values and ``Or`` of nothing match nothing, ``And`` of
nothing matches everything.

A field is a key of the payload itself, dots and all: ``Eq("a.b", 1)`` asks for the key "a.b", never for "b" inside "a".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeAlias

__all__ = ["And", "Eq", "Exists", "Filter", "FilterValue", "In", "Not", "Or", "Range", "parse_date"]

FilterValue: TypeAlias = str | int | float | bool
"""Dates are ISO 8601 strings."""


@dataclass(frozen=True, slots=True)
class Eq:
    """The field has this value, or a list that holds it."""

    field: str
    value: FilterValue


@dataclass(frozen=True, slots=True)
class In:
    """The field has one of these values, or a list that holds one of them."""

    field: str
    values: tuple[FilterValue, ...]


@dataclass(frozen=True, slots=True)
class Range:
    """The field, or one element of its list, lies within all the bounds given; numbers and dates only."""

    field: str
    gt: float | str | None = None
    gte: float | str | None = None
    lt: float | str | None = None
    lte: float | str | None = None


@dataclass(frozen=True, slots=True)
class Exists:
    """The field is there, and is neither null nor an empty list."""

    field: str


@dataclass(frozen=True, slots=True)
class And:
    """All parts hold."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """At least one part holds."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The part does not hold."""

    part: Filter


Filter: TypeAlias = Eq | In | Range | Exists | And | Or | Not

_DATE = re.compile(r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,6})?(?:Z|[+-]\d\d:\d\d)?)?)?", re.ASCII)


def parse_date(text: str) -> datetime:
    """The instant, in UTC, of ``2020-01-31``, ``2020-01-31T08:00``, ``2020-01-31 08:00:00.5`` or ``2020-01-31T08:00:00+01:00`` (or ``Z``).

    The forms of ISO 8601 that every store reads the same way; without a zone it is UTC. Raises ValueError for anything else.
    """
    try:
        moment = datetime.fromisoformat(text if _DATE.fullmatch(text) else "")
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError(
            f"{text!r} is no date: write 2020-01-31, 2020-01-31T08:00:00 or 2020-01-31T08:00:00+01:00"
        ) from error
