"""``st-connectors encode``."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from st_connectors.cli.options import DEFAULT_DENSE, Backend, Dtype
from st_connectors.cli.output import print_error, print_json
from st_core import builtin
from st_core.home import expand_home

if TYPE_CHECKING:
    from st_core.vectors import SparseMatrix

__all__ = ["encode"]


class Kind(StrEnum):
    """Kinds of vectors."""

    DENSE = "dense"
    SPARSE = "sparse"


def encode(
    texts: Annotated[
        list[str] | None,
        typer.Argument(metavar="TEXT...", help="Texts to encode (default: the lines of standard input)."),
    ] = None,
    *,
    model: Annotated[
        str, typer.Option(metavar="MODEL", help="Model to load: builtin:dense, builtin:sparse, a folder or a Hub name.")
    ] = DEFAULT_DENSE,
    kind: Annotated[
        Kind | None,
        typer.Option(help="Kind of vectors the model computes (default: dense, or sparse for builtin:sparse)."),
    ] = None,
    backend: Backend = "torch",
    dtype: Dtype = None,
    query: Annotated[bool, typer.Option("--query", help="Encode the texts as queries instead of documents.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the vectors to a file: .npy (dense) or .npz (sparse, as CSR)."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one vector per line (the default).")] = False,  # noqa: ARG001  (every command accepts it)
) -> None:
    """Encode texts into vectors; print or save them.

    Example: st-connectors encode "copy a directory" --model builtin:sparse

    Example: st-connectors encode "copy a directory" --model ./all-MiniLM-L6-v2-openvino-int8 --backend openvino
    --dtype int8
    """
    lines = texts or [line.rstrip("\n") for line in sys.stdin]
    if not lines:
        raise ValueError("no text to encode: pass texts as arguments, or lines on standard input")
    file = None if out is None else Path(expand_home(out))
    vector_kind = kind or (Kind.SPARSE if model == builtin.SPARSE else Kind.DENSE)
    suffix = ".npz" if vector_kind is Kind.SPARSE else ".npy"
    if file is not None and file.suffix != suffix:
        raise ValueError(f"expected a {suffix} file for {vector_kind} vectors, got {file.name!r}")
    vectors = _encode(lines, model, vector_kind, backend, dtype, query=query)
    if file is not None:
        _save(vectors, file)
        print_error(f"wrote {len(vectors)} vectors to {file}")
        return
    for row in vectors:
        if vector_kind is Kind.SPARSE:
            print_json({"indices": row.indices.tolist(), "values": row.values.tolist()})
        else:
            print_json(row.tolist())


def _encode(texts: list[str], model: str, kind: Kind, backend: str, dtype: str | None, *, query: bool) -> Any:
    import st_core
    from st_connectors.vectorise import dense_rows, sparse_rows

    model_class = st_core.SparseEncoder if kind is Kind.SPARSE else st_core.SentenceTransformer
    encoder: Any = model_class(model, backend=backend, dtype=dtype)
    vectors = encoder.encode_query(texts) if query else encoder.encode_document(texts)
    return sparse_rows(vectors) if kind is Kind.SPARSE else dense_rows(vectors)


def _save(vectors: Any, out: Path) -> None:
    import numpy as np

    if out.suffix == ".npy":
        np.save(out, vectors)
        return
    matrix: SparseMatrix = vectors
    np.savez(out, indptr=matrix.indptr, indices=matrix.indices, data=matrix.values, shape=np.asarray(matrix.shape))
