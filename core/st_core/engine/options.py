"""The validated options of one call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import SupportsInt

__all__ = ["CallOptions", "with_processing"]


@dataclass(frozen=True, slots=True)
class CallOptions:
    """The options of one call of ``encode``, ``predict`` or ``prepare``.

    ``progress`` None shows a progress bar for many inputs in a terminal. ``max_length`` None means the maximum length
    of the model. ``keep`` is the number of largest weights that are kept in each sparse vector, None for all.
    ``template`` contains the arguments of a chat template.
    """

    task: str | None = None
    prompt: str | None = None
    batch_size: int | None = None
    progress: bool | None = None
    max_length: int | None = None
    truncation: bool = True
    keep: int | None = None
    template: Mapping[str, object] = field(default_factory=dict)


def with_processing(options: CallOptions, value: Mapping[str, object] | None) -> CallOptions:
    """Return the options updated with the argument ``processing_kwargs`` of a call.

    ``max_length`` and ``truncation`` may be top-level keys, or keys of the mappings "text" and "common". The mapping
    "chat_template" contains the arguments of the chat template. Raises ValueError for unknown keys.
    """
    if not value:
        return options
    template = _mapping(value.get("chat_template"))
    flat: dict[str, object] = {}
    for key, item in value.items():
        if key in ("text", "common") and isinstance(item, Mapping):
            flat |= item
        elif key != "chat_template":
            flat[key] = item
    flat |= {key: template.pop(key) for key in ("max_length", "truncation", "padding") if key in template}
    unknown = set(flat) - {"max_length", "truncation", "padding"}
    if unknown:
        raise ValueError(f"unknown keys in processing_kwargs: {sorted(unknown)}; expected max_length or truncation")
    length = flat.get("max_length")
    if length is not None:
        options = replace(options, max_length=_whole(length))
    if "truncation" in flat:
        options = replace(options, truncation=flat["truncation"] not in (False, None, "do_not_truncate"))
    return replace(options, template=template) if template else options


def _mapping(value: object) -> dict[str, object]:
    if not value:
        return {}
    if not isinstance(value, Mapping):
        raise ValueError(f"chat_template in processing_kwargs must be a mapping, got {value!r}")  # noqa: TRY004
    return dict(value)


def _whole(value: object) -> int:
    if not isinstance(value, (str, SupportsInt)):
        raise ValueError(f"max_length must be a whole number, got {value!r}")  # noqa: TRY004
    return int(value)
