"""What the commands that train share: checkpoints, the log, and the end by Ctrl-C."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from st_connectors.cli.output import INTERRUPTED, print_error, print_line

__all__ = ["check_checkpoints", "show_curves", "show_log", "stopped_after", "store_options"]

OPTIONS_FILE = "options.json"


def check_checkpoints(folder: Path, options: Mapping[str, Any], *, resume: bool) -> None:
    """Raise ValueError for checkpoints that cannot be resumed with these options, or that would be overwritten."""
    has_checkpoints = any(folder.glob("checkpoint-*"))
    if not resume:
        if has_checkpoints:
            raise ValueError(f"{folder} has checkpoints; pass --resume, delete them, or choose another --out")
        return
    if not has_checkpoints:
        raise ValueError(f"{folder}: no complete checkpoint to resume from; train anew")
    path = folder / OPTIONS_FILE
    stored = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    for name, value in stored.items():
        if options.get(name) != value:
            raise ValueError(
                f"the checkpoints in {folder} are of a training with {name} {value}, now {options.get(name)}; resume "
                "it with the same options"
            )


def store_options(folder: Path, options: Mapping[str, Any]) -> None:
    """Write the options of a training beside its checkpoints."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / OPTIONS_FILE).write_text(json.dumps(options, indent=2) + "\n", encoding="utf-8")


def show_log(step: int, steps: int, logs: Mapping[str, Any]) -> None:
    """Print the values of a line of the log to standard error."""
    skipped = ("epoch", "grad_norm", "learning_rate", "total_flos")
    values = {
        name: value
        for name, value in logs.items()
        if isinstance(value, (int, float)) and name not in skipped and not name.endswith(("runtime", "per_second"))
    }
    if values:
        print_error(f"step {step} of {steps}: " + ", ".join(f"{name} {value:.4g}" for name, value in values.items()))


def show_curves(history: Sequence[Mapping[str, Any]]) -> None:
    """Print the curves of a log as lines of blocks."""
    from st_core.training.curves import curves_of, sparkline

    curves = curves_of(history)
    width = max(map(len, curves), default=0)
    for name, curve in curves.items():
        print_line(f"{name.ljust(width)}  {sparkline(curve)}  {curve[-1][1]:.4g}")


def stopped_after(step: int) -> typer.Exit:
    """Print the command line that continues a training after a step, and return the exit of the command."""
    arguments = sys.argv[1:]
    if "--resume" not in arguments:
        arguments.insert(arguments.index("--") if "--" in arguments else len(arguments), "--resume")
    print_error(f"stopped after step {step}; continue with: {shlex.join(['st-connectors', *arguments])}")
    return typer.Exit(INTERRUPTED)
