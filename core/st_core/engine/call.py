"""The options of one call, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Call", "read_processing"]


@dataclass(frozen=True, slots=True)
class Call:
    """What one call asks for: nothing of it is kept."""

    task: str | None = None
    prompt: str | None = None
    batch_size: int | None = None
    progress: bool | None = None
    max_length: int | None = None
    truncation: bool = True
    keep: int | None = None
    template: Mapping[str, Any] = field(default_factory=dict)


def read_processing(value: Mapping[str, Any] | None) -> dict[str, Any]:
    """What ``processing_kwargs`` ask for; raises ValueError for what is not known.

    ``max_length`` and ``truncation`` stand flat or under "text" or "common", the arguments of the chat template under "chat_template".
    """
    if not value:
        return {}
    template = dict(value.get("chat_template") or {})
    cut = {key: template.pop(key) for key in ("max_length", "truncation", "padding") if key in template}
    flat: dict[str, Any] = {}
    for key, item in [*value.items(), *cut.items()]:
        if key == "chat_template":
            continue
        if key in ("text", "common") and isinstance(item, Mapping):
            flat.update(item)
        else:
            flat[key] = item
    unknown = set(flat) - {"max_length", "truncation", "padding"}
    if unknown:
        raise ValueError(f"processing_kwargs has unknown keys {sorted(unknown)}; there are max_length and truncation")
    asked: dict[str, Any] = {}
    if flat.get("max_length") is not None:
        asked["max_length"] = int(flat["max_length"])
    if "truncation" in flat:
        asked["truncation"] = flat["truncation"] not in (False, None, "do_not_truncate")
    return asked | ({"template": template} if template else {})
