"""Filters as frozen values, and their meaning.

Filters have the same meaning in every store. A list matches if any of its elements matches. A comparison with a missing
field, null or an empty list is false. ``Not`` is the complement. 1 equals 1.0, but never True. Strings are compared by
code points and case-sensitively. Dates are compared as instants, in UTC if they have no time zone. ``In`` without
values and an empty ``Or`` match nothing; an empty ``And`` matches everything.

A field is a key of the payload, which may contain dots. In a payload without this key, a field with dots is a path:
``Eq("a.b", 1)`` tests the key "a.b" if there is one, else the key "b" inside the object "a". A path through a list of
objects has the values of all of them.
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
    """The field has this value, or a list that contains it."""

    field: str
    value: FilterValue


@dataclass(frozen=True, slots=True)
class In:
    """The field has one of these values, or a list that contains one of them."""

    field: str
    values: tuple[FilterValue, ...]


@dataclass(frozen=True, slots=True)
class Range:
    """The field, or one element of its list, lies within all bounds; for numbers and dates only."""

    field: str
    gt: float | str | None = None
    gte: float | str | None = None
    lt: float | str | None = None
    lte: float | str | None = None


@dataclass(frozen=True, slots=True)
class Exists:
    """The field is present, and neither null nor an empty list."""

    field: str


@dataclass(frozen=True, slots=True)
class And:
    """Every part matches."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """At least one part matches."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The part does not match."""

    part: Filter


Filter: TypeAlias = Eq | In | Range | Exists | And | Or | Not

_DATE = re.compile(r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,6})?(?:Z|[+-]\d\d:\d\d)?)?)?", re.ASCII)


def parse_date(text: str) -> datetime:
    """Return the instant, in UTC, of a date or time in one of the ISO 8601 forms that every store interprets equally.

    These forms are ``2020-01-31``, ``2020-01-31T08:00``, ``2020-01-31 08:00:00.5`` and ``2020-01-31T08:00:00+01:00``
    (or ``Z``); without a time zone the time is UTC. Raises ValueError for any other text.
    """
    try:
        moment = datetime.fromisoformat(text if _DATE.fullmatch(text) else "")
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError(
            f"{text!r} is not a date: write 2020-01-31, 2020-01-31T08:00:00 or 2020-01-31T08:00:00+01:00"
        ) from error
