"""Read the fields of a JSON object; a value of another type is a fault that names the field.

``null`` counts as a missing field everywhere, and unknown fields are ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, overload

from st_connectors.server.calls import Text
from st_connectors.server.faults import Fault, FaultKind

__all__ = ["Fields", "malformed"]

LARGEST = 2**31 - 1
"""The largest whole number that a field may have."""

T = TypeVar("T")


def malformed(field: str, expected: str, value: object) -> Fault:
    """Return the fault for a field of the wrong type."""
    came = _JSON_NAMES.get(type(value), "null")
    if came == "a list" and came in expected:
        came = "a list of other values"
    if came == "a number" and "whole number" in expected:
        came = "a fraction"
    return Fault(FaultKind.MALFORMED, f"{field}: expected {expected}, got {came}", field=field)


_JSON_NAMES: Mapping[type, str] = {
    dict: "an object",
    list: "a list",
    str: "a text",
    bool: "a boolean",
    int: "a number",
    float: "a number",
}


class Fields:
    """The fields of a JSON object."""

    def __init__(self, values: object, *, place: str = "") -> None:
        """Raise Fault for a value that is not an object; ``place`` is the path of the object in the body."""
        if not isinstance(values, Mapping):
            raise malformed(place or "the body", "an object", values)
        self._values: Mapping[str, Any] = values
        self._place = f"{place}." if place else ""

    def __contains__(self, name: str) -> bool:
        return self._values.get(name) is not None

    def raw(self, name: str) -> Any:
        """Return a value as it came; None if it is missing."""
        return self._values.get(name)

    def name(self, name: str) -> str:
        """Return the path of a field in the body."""
        return f"{self._place}{name}"

    def _typed(self, name: str, kind: type | tuple[type, ...], expected: str) -> Any:
        value = self._values.get(name)
        if value is None:
            return None
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise malformed(self.name(name), expected, value)
        return value

    def _required(self, name: str, value: T | None, expected: str) -> T:
        if value is None:
            raise Fault(
                FaultKind.MALFORMED, f"{self.name(name)} is missing; expected {expected}", field=self.name(name)
            )
        return value

    def text(self, name: str) -> str | None:
        """Return a text."""
        value: str | None = self._typed(name, str, "a text")
        return value

    def required_text(self, name: str) -> str:
        """Return a text; a missing one is a fault."""
        return self._required(name, self.text(name), "a text")

    @overload
    def flag(self, name: str) -> bool | None: ...
    @overload
    def flag(self, name: str, default: bool) -> bool: ...
    def flag(self, name: str, default: bool | None = None) -> bool | None:
        """Return a boolean."""
        value: bool | None = self._typed(name, bool, "true or false")
        return default if value is None else value

    def whole(self, name: str, *, least: int = 1) -> int | None:
        """Return a whole number from ``least`` on."""
        value = self._typed(name, (int, float), "a whole number")
        if value is None:
            return None
        if value != value or value in (float("inf"), float("-inf")) or value != int(value):  # noqa: PLR0124 - NaN
            raise malformed(self.name(name), "a whole number", value)
        if not least <= value <= LARGEST:
            raise Fault(
                FaultKind.INVALID,
                f"{self.name(name)}: expected a number from {least} to {LARGEST}",
                field=self.name(name),
            )
        return int(value)

    def choice(self, name: str, choices: Sequence[str]) -> str | None:
        """Return one of a few texts, in the spelling of ``choices``; upper and lower case are equal."""
        value = self.text(name)
        if value is None:
            return None
        for each in choices:
            if each.lower() == value.lower():
                return each
        raise Fault(
            FaultKind.INVALID,
            f"{self.name(name)}: unknown value; expected one of {', '.join(choices)}",
            field=self.name(name),
        )

    def items(self, name: str) -> list[Any]:
        """Return a list; a missing one is a fault."""
        return self._required(name, self._typed(name, list, "a list"), "a list")

    def optional_items(self, name: str) -> list[Any]:
        """Return a list; empty if it is missing."""
        return self._typed(name, list, "a list") or []

    def fields(self, name: str) -> Fields | None:
        """Return the fields of an object in this object."""
        value = self._typed(name, Mapping, "an object")
        return None if value is None else Fields(value, place=self.name(name))

    def texts(self, name: str) -> tuple[str, ...]:
        """Return the texts of a field that is a text or a list of texts; a missing one is a fault."""
        value = self._required(name, self._values.get(name), "a text or a list of texts")
        if isinstance(value, str):
            return (value,)
        if not isinstance(value, list):
            raise malformed(self.name(name), "a text or a list of texts", value)
        return tuple(self._each(name, value, _as_text, "a text"))

    def texts_or_ids(self, name: str) -> tuple[Text, ...]:
        """Return the inputs of a field that is a text, a list of ids, or a list of both; a missing one is a fault."""
        value = self._required(name, self._values.get(name), "a text or a list of texts")
        if isinstance(value, str):
            return (value,)
        if not isinstance(value, list):
            raise malformed(self.name(name), "a text or a list of texts", value)
        if value and all(_is_id(each) for each in value):
            return (tuple(value),)
        return tuple(self._each(name, value, _as_input, "a text or a list of token ids"))

    def id_rows(self, name: str) -> tuple[tuple[int, ...], ...]:
        """Return the token ids of a field that is a list of ids, or a list of such lists; a missing one is a fault."""
        value = self.items(name)
        if value and all(_is_id(each) for each in value):
            return (tuple(value),)
        return tuple(self._each(name, value, _as_ids, "a list of token ids"))

    def _each(self, name: str, values: list[Any], convert: Callable[[Any], T | None], expected: str) -> list[T]:
        converted = []
        for position, value in enumerate(values):
            item = convert(value)
            if item is None:
                raise malformed(f"{self.name(name)}[{position}]", expected, value)
            converted.append(item)
        return converted


def _as_text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST


def _as_ids(value: object) -> tuple[int, ...] | None:
    return tuple(value) if isinstance(value, list) and all(_is_id(each) for each in value) else None


def _as_input(value: object) -> Text | None:
    return value if isinstance(value, str) else _as_ids(value)
