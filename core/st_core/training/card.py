"""What a model card says about a training: data, losses, arguments, and results that were measured."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["described_training", "write_section"]

HEADING = "## Training"
_SECTION = re.compile(rf"\n*{HEADING}\n.*?(?=\n## |\Z)", re.DOTALL)


def described_training(identity: Mapping[str, Any], metrics: Mapping[str, float]) -> str:
    """Return the section of a card about a training.

    ``identity`` is that of the trainer, ``metrics`` are those of the last evaluation and may be empty.
    """
    lines = [HEADING, "", "Trained with `st_core`."]
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


def write_section(folder: Path, section: str) -> None:
    """Write the section about the training to the card in a folder, in place of an earlier one."""
    path = folder / "README.md"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    path.write_text(f"{_SECTION.sub('', text).rstrip()}\n\n{section}", encoding="utf-8")
