"""Old names of arguments that sentence-transformers still accepts: renamed, or left out, with a DeprecationWarning."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from types import FrameType
from typing import Any, ParamSpec, TypeVar

__all__ = ["accepts_old_names", "warn_of_old_name"]

P = ParamSpec("P")
R = TypeVar("R")

_NOTHING: Mapping[str, str] = {}


def warn_of_old_name(message: str) -> None:
    """Issue a DeprecationWarning that names the line outside this package from which the call came."""
    level, frame = 1, sys._getframe()  # noqa: SLF001 - Python 3.11 has no skip_file_prefixes
    while frame.f_back is not None and _module(frame).partition(".")[0] in ("st_core", "importlib"):
        level += _module(frame) != "importlib._bootstrap"  # warnings does not count its frames either
        frame = frame.f_back
    warnings.warn(message, DeprecationWarning, stacklevel=level)


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def accepts_old_names(
    renamed: Mapping[str, str] = _NOTHING,
    *,
    without_effect: Mapping[str, str] = _NOTHING,
    positional: Sequence[str] = (),
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator that makes a method accept the names that its arguments had earlier.

    ``renamed`` contains the current name for each old name; a dot in it, as in ``config_kwargs.classifier_dropout``,
    names a key of a mapping. Arguments in ``without_effect`` are left out, with the reason in the warning.
    ``positional`` are the names of keyword arguments that were positional after the first argument. Calls raise
    ValueError where an old and a current name are both set.
    """

    def decorate(method: Callable[P, R]) -> Callable[P, R]:
        @wraps(method)
        def call(*arguments: Any, **named: Any) -> R:
            if positional and len(arguments) > 2:
                named = _by_name(method.__qualname__, arguments[2:], positional) | named
                arguments = arguments[:2]
            if not named.keys().isdisjoint(renamed) or not named.keys().isdisjoint(without_effect):
                named = _without(_renamed(named, renamed, method.__qualname__), without_effect, method.__qualname__)
            return method(*arguments, **named)

        return call

    return decorate


def _by_name(method: str, values: Sequence[object], names: Sequence[str]) -> dict[str, object]:
    """Return positional arguments by name; raise TypeError for more arguments than names."""
    if len(values) > len(names):
        raise TypeError(f"{method} got {len(values)} arguments after the first; expected keyword arguments")
    found = dict(zip(names, values, strict=False))
    warn_of_old_name(f"{method}: pass {', '.join(found)} as keyword arguments")
    return found


def _renamed(named: Mapping[str, Any], renamed: Mapping[str, str], method: str) -> dict[str, object]:
    """Return keyword arguments with old names replaced by current ones."""
    result = {name: value for name, value in named.items() if name not in renamed}
    for old in named.keys() & renamed.keys():
        new, _, key = renamed[old].partition(".")
        if result.get(new) is not None and not key:
            raise ValueError(f"{method}: {new} and its old name {old} are both set; pass one")
        shown = f"{new}={{{key!r}: …}}" if key else new
        warn_of_old_name(f"{method}: the argument {old} is now named {shown}")
        result[new] = {**(result.get(new) or {}), key: named[old]} if key else named[old]
    return result


def _without(named: Mapping[str, object], without_effect: Mapping[str, str], method: str) -> dict[str, object]:
    """Return keyword arguments without those that have no effect."""
    for name in named.keys() & without_effect.keys():
        warn_of_old_name(f"{method}: the argument {name} has no effect: {without_effect[name]}")
    return {name: value for name, value in named.items() if name not in without_effect}
