"""The card of a trained model: its base, data, losses, arguments, and results that were measured.

The text of the base model's card is not repeated, because its results are not those of the trained model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from st_core.model_card import Origin

__all__ = ["described_training", "trained_card"]


def described_training(identity: Mapping[str, Any], metrics: Mapping[str, float]) -> str:
    """Return the section of a card about a training.

    ``identity`` is that of the trainer, ``metrics`` are those of the last evaluation and may be empty.
    """
    lines = ["## Training", "", "Trained with `st_core`."]
    for name, (rows, digest) in identity["data"].items():
        columns = ", ".join(f"`{column}`" for column in identity["columns"][name])
        title = f" `{name}`" if name else ""
        lines += ["", f"- Data{title}: {rows} rows of {columns} (xxh3 {digest})"]
    for name, (loss, config) in identity["losses"].items():
        title = f" of `{name}`" if name else ""
        lines += ["", f"- Loss{title}: `{loss}` with `{json.dumps(config)}`"]
    skipped = ("data", "columns", "losses")
    values = {name: value for name, value in identity.items() if name not in skipped and value not in (None, {}, "")}
    lines += ["", "- Arguments: " + ", ".join(f"`{name}={value}`" for name, value in values.items())]
    if metrics:
        lines += ["", "| metric | value |", "|---|---|"]
        lines += [f"| {name} | {value:.4f} |" for name, value in metrics.items()]
    return "\n".join(lines) + "\n"


def trained_card(family: str, base: Origin | None, data: object, section: str) -> str:
    """Return the card of a trained model: metadata, what it was trained from, and a section about the training.

    ``base`` is None for a model that was not loaded. Values of ``data``, which callers set, are used before those of
    the base model.
    """
    chosen = {name: getattr(data, name, None) for name in ("base_model", "language", "license", "tags")}
    on_hub = {"base_model": base.name} if base is not None and "/" in base.name else {}
    inherited = {} if base is None else base.metadata
    metadata = {**on_hub, **inherited, **{name: value for name, value in chosen.items() if value}}
    head = {"library_name": "sentence-transformers"} | metadata
    lines = "".join(f"{key}: {json.dumps(value, ensure_ascii=False, default=str)}\n" for key, value in head.items())
    default = f"{family} trained from {base.name}" if base is not None else f"Trained {family}"
    title = getattr(data, "model_name", None) or default
    loading = f"Load its folder with `{family}` of `st_core` or of `sentence_transformers`."
    return f"---\n{lines}---\n\n# {title}\n\n{loading}\n\n{section}"
