"""The card of a trained model: its base, data, losses, arguments, and results that were measured.

The text of the base model's card is not repeated, because its results are not those of the trained model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["described_training", "trained_card"]

METADATA = ("language", "license", "license_name", "license_link", "tags")
"""What stays true of a model that is trained further, of the metadata at the top of a card."""


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


def trained_card(family: str, base: str | None, own: Path, section: str) -> str:
    """Return the card of a trained model: the metadata of the base model's card ``own``, its name, and a section.

    ``base`` is None for a model that was not loaded. Of a path only the last part is named.
    """
    is_path = base is not None and Path(base).exists()
    metadata = {name: value for name, value in _metadata(own).items() if name in METADATA and value}
    head = {
        "library_name": "sentence-transformers",
        **({} if is_path or not base else {"base_model": base}),
        **metadata,
    }
    shown = base and (Path(base).name if is_path else base)
    title = f"# {family} trained from {shown}" if shown else f"# Trained {family}"
    lines = "".join(f"{name}: {json.dumps(value, ensure_ascii=False)}\n" for name, value in head.items())
    loading = f"Load its folder with `{family}` of `st_core` or of `sentence_transformers`."
    return f"---\n{lines}---\n\n{title}\n\n{loading}\n\n{section}"


def _metadata(card: Path) -> dict[str, Any]:
    """Return the metadata at the top of a card, none if it is missing or cannot be read."""
    from huggingface_hub import metadata_load

    try:
        return metadata_load(card) or {}
    except Exception:  # noqa: BLE001 - anyone may have written it
        return {}
