"""``st-connectors export``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from st_connectors.cli.options import AsJson
from st_connectors.cli.output import print_json, print_line, status_line
from st_core.home import expand_home

__all__ = ["export"]


class Kind(StrEnum):
    """Kinds of models."""

    DENSE = "dense"
    SPARSE = "sparse"
    RERANKER = "reranker"


MODEL_CLASSES = {Kind.DENSE: "SentenceTransformer", Kind.SPARSE: "SparseEncoder", Kind.RERANKER: "CrossEncoder"}


def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Model to export: a folder or a Hub name.")],
    *,
    backend: Annotated[
        str,
        typer.Option(help="Backend that will run it: openvino, onnx, or auto (both; loading chooses the faster one)."),
    ] = "openvino",
    dtype: Annotated[
        str,
        typer.Option(help="Type of the weights: float32, int8 (fastest and smallest), float16 or bfloat16."),
    ] = "float32",
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="A new folder, or the model's own (default: ./NAME-BACKEND-DTYPE)."),
    ] = None,
    kind: Annotated[Kind | None, typer.Option(help="Kind of model, if its files do not say.")] = None,
    calibrate: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Calibrate the int8 ranges on the texts of this file, one per line (pairs: separated by a tab).",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Export a model as a graph that runs without torch.

    Writes a copy of the model's folder with the graph in it. Loading it needs the backend and dtype of the export.

    Example: st-connectors export sentence-transformers/all-MiniLM-L6-v2 --backend openvino --dtype int8
    """
    from st_core import export_model

    target = out or Path(f"{Path(model).name or 'model'}-{backend}-{dtype}")
    with status_line(f"exporting {model} for {backend} in {dtype}") as show_step:
        exported = export_model(
            model,
            target,
            backend=backend,
            dtype=dtype,
            family=None if kind is None else MODEL_CLASSES[kind],
            calibration=[] if calibrate is None else _read_calibration(calibrate),
            told=show_step,
        )
    if as_json:
        print_json(
            {
                "folder": str(exported.folder),
                "class": exported.family,
                "backend": backend,
                "dtype": dtype,
                "graphs": [str(path) for path in exported.graphs],
                "bytes": exported.size,
            }
        )
        return
    count = len(exported.graphs)
    graphs = f"{count} graph{'s' * (count != 1)}, {exported.size / 1e6:.1f} MB"
    print_line(f"{exported.folder}: {graphs}; load it with")
    print_line(f'{exported.family}("{exported.folder}", backend="{backend}", dtype="{dtype}")')


def _read_calibration(path: Path) -> list[str | tuple[str, ...]]:
    """Return the texts of a file, or pairs for lines with a tab; raise ValueError if it has none or cannot be read."""
    try:
        lines = [line for line in Path(expand_home(path)).read_text("utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot read the calibration texts: {error}") from error
    if not lines:
        raise ValueError(f"{path} contains no calibration text")
    return [tuple(line.split("\t", 1)) if "\t" in line else line for line in lines]
