"""The rankings of one way of searching, and their files in TREC's format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from st_connectors.evaluation.judged import Judged

__all__ = ["Run", "check_run_ids", "read_run", "write_run"]

Ranking = Sequence[tuple[str, float]]
"""The documents of a query with their scores, best first."""


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """The ranking of each query, and how many seconds its search took, as far as that was measured.

    ``collection`` is the name of the collection that was searched, "" if it is unknown.
    """

    name: str
    rankings: Mapping[str, Ranking]
    seconds: Mapping[str, float] = field(default_factory=dict)
    collection: str = ""


def write_run(run: Run, path: str | PathLike[str]) -> None:
    """Write a run: lines of query, Q0, document, rank, score and name.

    White space in the name becomes ``_``. Raises ValueError for an id with white space, which the format cannot have.
    """
    tag = "_".join(run.name.split()) or "run"
    lines = [
        " ".join((_column(query), "Q0", _column(document), str(rank), repr(float(score)), tag))
        for query, ranking in run.rankings.items()
        for rank, (document, score) in enumerate(ranking, 1)
    ]
    Path(path).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def check_run_ids(judged: Judged) -> None:
    """Raise ValueError for ids of judged queries or documents that :func:`write_run` could not write."""
    for query, grades in judged.grades.items():
        for identifier in (query, *grades):
            _column(identifier)


def read_run(path: str | PathLike[str]) -> Run:
    """Return the run of a file, with documents by rank; raise ValueError for a line of another form."""
    path = Path(path)
    found: dict[str, list[tuple[int, str, float]]] = {}
    name = path.stem
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            query, _, document, rank, score, name = line.split()
            found.setdefault(query, []).append((int(rank), document, float(score)))
        except ValueError as error:
            raise ValueError(
                f"{path} line {number}: expected query, Q0, document, rank, score and name, got {line[:60]!r}"
            ) from error
    return Run(
        name, {query: [(document, score) for _, document, score in sorted(rows)] for query, rows in found.items()}
    )


def _column(identifier: str) -> str:
    if identifier.split() != [identifier]:
        raise ValueError(f"the id {identifier!r} contains white space, which a TREC run cannot; save JSON instead")
    return identifier
