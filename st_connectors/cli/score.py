"""``st-connectors score``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from st_connectors.cli.options import AsJson, Backend, Dtype
from st_connectors.cli.output import print_json, print_line

__all__ = ["columns_of", "score", "teacher_of"]


class Kind(StrEnum):
    """Kinds of teachers."""

    RERANKER = "reranker"
    DENSE = "dense"
    SPARSE = "sparse"


class Alignment(StrEnum):
    """How the scores of teachers are brought to one scale."""

    NONE = "none"
    AFFINE = "affine"
    MIN_MAX = "min-max"


def score(
    data: Annotated[
        list[str], typer.Argument(metavar="DATA...", help="Files of rows: JSON Lines, CSV, TSV or Parquet.")
    ],
    *,
    model: Annotated[
        list[str],
        typer.Option(
            "--model", metavar="[KIND=]MODEL", help="A teacher: reranker=, dense= or sparse=. Repeat for several."
        ),
    ],
    out: Annotated[str, typer.Option("--out", metavar="FILE", help="JSON Lines file to write.")],
    columns: Annotated[
        str | None,
        typer.Option(metavar="QUERY,DOCUMENT,...", help="The columns (default: all texts, the query first)."),
    ] = None,
    align: Annotated[
        Alignment | None,
        typer.Option(help="Scale of several teachers: none, affine (of the first one) or min-max (of each row)."),
    ] = None,
    backend: Backend = "torch",
    dtype: Dtype = None,
    as_json: AsJson = False,
) -> None:
    """Score the documents of rows with one or more teachers.

    Each row is written with score, or with scores if it has several documents, in place of labels: st-connectors train
    then trains with them. Scores of a reranker are logits, those of dense and sparse models similarities.

    Example: st-connectors score negatives.jsonl --model reranker=my-reranker --out scored.jsonl

    Example: st-connectors score negatives.jsonl --model dense=builtin:dense --model sparse=builtin:sparse --align
    min-max --out scored.jsonl
    """
    from st_core.mining.scoring import scored_rows
    from st_core.rows import rows_of_files

    path = Path(out)
    if path.exists():
        raise ValueError(f"{path} exists; delete it, or write to another file")
    rows = rows_of_files(data)
    query, documents = columns_of(columns, rows[0])
    teachers = [teacher_of(name, backend, dtype) for name in model]
    alignment = align or (Alignment.AFFINE if len(teachers) > 1 else Alignment.NONE)
    count = 0
    temporary = path.with_name(f"{path.name}.new")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            for row in scored_rows(rows, teachers, query, documents, alignment.value):
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                count += 1
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    if as_json:
        print_json({"rows": count, "file": out, "query": query, "documents": documents, "align": alignment.value})
    else:
        print_line(f"{count} rows with the scores of {', '.join(documents)} in {out}")


def columns_of(text: str | None, row: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Return the columns of the query and of the documents: those that were chosen, or all with texts."""
    from st_core.rows import LABELS

    names = [name for name in row if name not in LABELS] if text is None else [part.strip() for part in text.split(",")]
    unknown = [name for name in names if name not in row]
    if unknown:
        raise ValueError(f"the data has no column {unknown[0]!r}; its columns are {', '.join(row)}")
    if len(names) < 2:
        raise ValueError(f"expected the column of the query and one or more of documents, got {', '.join(names)}")
    return names[0], names[1:]


def teacher_of(text: str, backend: str, dtype: str | None) -> Any:
    """Return the model of ``KIND=MODEL``, by default a reranker."""
    import st_core

    kind, sign, name = text.partition("=")
    if not sign:
        kind, name = Kind.RERANKER, text
    if kind not in set(Kind) or not name:
        raise ValueError(f"--model {text!r}: expected MODEL, or KIND=MODEL with KIND one of {', '.join(Kind)}")
    classes: dict[str, Any] = {
        Kind.RERANKER: st_core.CrossEncoder,
        Kind.DENSE: st_core.SentenceTransformer,
        Kind.SPARSE: st_core.SparseEncoder,
    }
    return classes[kind](name, backend=backend, dtype=dtype)
