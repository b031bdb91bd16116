"""``st-connectors encode``."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from st_connectors.cli.options import DEFAULT_DENSE, Backend, Dtype
from st_connectors.cli.output import complain, print_json
from st_core import builtin

if TYPE_CHECKING:
    from st_core.vectors import SparseMatrix

__all__ = ["encode"]


class Kind(StrEnum):
    """What the model gives."""

    DENSE = "dense"
    SPARSE = "sparse"


def encode(
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="TEXT...", help="Texts; without any, the lines of standard input.")
    ] = None,
    *,
    model: Annotated[
        str, typer.Option(metavar="MODEL", help="builtin:dense, builtin:sparse, a folder or a Hub name.")
    ] = DEFAULT_DENSE,
    kind: Annotated[
        Kind | None, typer.Option(help="What the model gives; known for the built-in ones, else dense.")
    ] = None,
    backend: Backend = "torch",
    dtype: Dtype = None,
    query: Annotated[bool, typer.Option("--query", help="Encode as queries, not as documents.")] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write .npy (dense) or .npz (sparse, as CSR) instead of JSON.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one vector a line; the default.")] = False,  # noqa: ARG001  (every command takes it)
) -> None:
    """Encode texts to vectors, printed as JSON lines or written to a file.

    Example: st-connectors encode "copy a directory" --model builtin:sparse

    Example: st-connectors encode "copy a directory" --model ./all-MiniLM-L6-v2-openvino-int8 --backend openvino --dtype int8
    """
    lines = texts or [line.rstrip("\n") for line in sys.stdin]
    if not lines:
        raise ValueError("no text to encode: give texts, or lines on standard input")
    chosen = kind or (Kind.SPARSE if model == builtin.SPARSE else Kind.DENSE)
    suffix = ".npz" if chosen is Kind.SPARSE else ".npy"
    if out is not None and out.suffix != suffix:
        raise ValueError(f"{chosen} vectors go to a {suffix} file, not {out.name!r}")
    vectors = _encode(lines, model, chosen, backend, dtype, query=query)
    if out is not None:
        _save(vectors, out)
        complain(f"wrote {len(vectors)} vectors to {out}")
        return
    for row in vectors:
        if chosen is Kind.SPARSE:
            print_json({"indices": row.indices.tolist(), "values": row.values.tolist()})
        else:
            print_json(row.tolist())


def _encode(texts: list[str], model: str, kind: Kind, backend: str, dtype: str | None, *, query: bool) -> Any:
    import st_core
    from st_connectors.vectorise import dense_rows, sparse_rows

    family = st_core.SparseEncoder if kind is Kind.SPARSE else st_core.SentenceTransformer
    loaded: Any = family(model, backend=backend, dtype=dtype)
    encoded = loaded.encode_query(texts) if query else loaded.encode_document(texts)
    return sparse_rows(encoded) if kind is Kind.SPARSE else dense_rows(encoded)


def _save(vectors: Any, out: Path) -> None:
    import numpy as np

    if out.suffix == ".npy":
        np.save(out, vectors)
        return
    matrix: SparseMatrix = vectors
    np.savez(out, indptr=matrix.indptr, indices=matrix.indices, data=matrix.values, shape=np.asarray(matrix.shape))
