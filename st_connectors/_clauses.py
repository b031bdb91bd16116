"""Flatten nested filters, merge equalities of one field, and count what remains."""

from __future__ import annotations

from st_connectors.filters import And, Eq, Filter, FilterValue, In, Not, Or

__all__ = ["count_comparisons", "count_values", "flatten", "merge_values"]


def flatten(parts: tuple[Filter, ...], kind: type[And | Or]) -> list[Filter]:
    """Return parts in which nested filters of the same kind are replaced by their parts."""
    flat: list[Filter] = []
    rest = [*reversed(parts)]
    while rest:
        part = rest.pop()
        if isinstance(part, And | Or) and isinstance(part, kind):
            rest += reversed(part.parts)
        else:
            flat.append(part)
    return flat


def merge_values(parts: list[Filter]) -> list[Filter]:
    """Return alternatives in which all equalities of a field are merged into one ``In``, first of all."""
    values: dict[str, list[FilterValue]] = {}
    others: list[Filter] = []
    for part in parts:
        match part:
            case Eq(field, value):
                values.setdefault(field, []).append(value)
            case In(field, several):
                values.setdefault(field, []).extend(several)
            case _:
                others.append(part)
    return [*(In(field, tuple(merged)) for field, merged in values.items()), *others]


def count_comparisons(where: Filter) -> int:
    """Return the number of comparisons in a filter; all equalities of a field in one ``Or`` count as one."""
    count, rest = 0, [where]
    while rest:
        match rest.pop():
            case And(parts):
                rest += parts
            case Or(parts):
                rest += merge_values(flatten(parts, Or))
            case Not(part):
                rest.append(part)
            case _:
                count += 1
    return count


def count_values(where: Filter) -> int:
    """Return the number of values with which a filter compares fields for equality."""
    count, rest = 0, [where]
    while rest:
        match rest.pop():
            case And(parts) | Or(parts):
                rest += parts
            case Not(part):
                rest.append(part)
            case In(_, values):
                count += len(values)
            case Eq():
                count += 1
            case _:
                pass
    return count
