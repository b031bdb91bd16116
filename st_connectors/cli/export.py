"""``st-connectors export``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from st_connectors.cli.options import AsJson
from st_connectors.cli.output import print_json, say, steps_of

__all__ = ["export"]


class Kind(StrEnum):
    """What the model gives."""

    DENSE = "dense"
    SPARSE = "sparse"
    RERANKER = "reranker"


FAMILIES = {Kind.DENSE: "SentenceTransformer", Kind.SPARSE: "SparseEncoder", Kind.RERANKER: "CrossEncoder"}


def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A folder or a Hub name.")],
    *,
    backend: Annotated[
        str,
        typer.Option(
            help="What will run it: openvino, onnx, or auto (either, whichever is faster where it is loaded)."
        ),
    ] = "openvino",
    dtype: Annotated[
        str,
        typer.Option(help="What its weights are kept in: float32, int8 (fastest and smallest), float16 or bfloat16."),
    ] = "float32",
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="A new folder, or the model's own; by default ./NAME-BACKEND-DTYPE."),
    ] = None,
    kind: Annotated[Kind | None, typer.Option(help="What the model gives, where its files leave that open.")] = None,
    calibrate: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Fix the ranges of int8 on these texts, one a line (pairs: two, with a tab)."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a model's folder with a graph in it that runs without torch.

    Example: st-connectors export sentence-transformers/all-MiniLM-L6-v2 --backend openvino --dtype int8
    """
    from st_core import export_model

    name = Path(model).name or "model"
    target = out or Path(f"{name}-{backend}-{dtype}")
    with steps_of(f"exporting {model} for {backend} in {dtype}") as told:
        done = export_model(
            model,
            target,
            backend=backend,
            dtype=dtype,
            family=None if kind is None else FAMILIES[kind],
            calibration=[] if calibrate is None else _lines(calibrate),
            told=told,
        )
    if as_json:
        print_json(
            {
                "folder": str(done.folder),
                "class": done.family,
                "backend": backend,
                "dtype": dtype,
                "graphs": [str(place) for place in done.graphs],
                "bytes": done.size,
            }
        )
        return
    say(
        f"{done.folder}: {len(done.graphs)} graph{'s' * (len(done.graphs) != 1)}, {done.size / 1e6:.1f} MB; load it with"
    )
    say(f'{done.family}("{done.folder}", backend="{backend}", dtype="{dtype}")')


def _lines(path: Path) -> list[str | tuple[str, ...]]:
    """Texts, or pairs where a line has a tab; raises ValueError for a file that holds none or cannot be read."""
    try:
        lines = [line for line in path.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: the texts to calibrate on cannot be read: {error}") from error
    if not lines:
        raise ValueError(f"{path} holds no text to calibrate on")
    return [tuple(line.split("\t", 1)) if "\t" in line else line for line in lines]
