"""Mine hard negatives through a collection: its own search finds the candidates, and memory holds one batch of them."""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from st_connectors.chunks import parent_of
from st_core.mining import FORMATS, Candidates, Mined, Query, Selection, queries_of, rows_of, select

if TYPE_CHECKING:
    from st_connectors.evaluation import Judged
    from st_connectors.index import Index
    from st_core.protocols import Reranker

__all__ = ["MinedFile", "Mining", "StoreQuery", "judged_queries", "mine", "mine_to_file", "pair_queries"]

QUERY, POSITIVE = "query", "positive"
"""The columns of queries and positives."""


@dataclass(frozen=True, slots=True)
class StoreQuery:
    """A query with its positives, and the ids of the documents that are relevant for it, whose texts may differ."""

    query: Query
    relevant: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Mining:
    """How negatives are mined.

    ``mode`` and ``where`` are those of the search. ``form`` is one of ``st_core.mining.FORMATS``. Random negatives are
    drawn by ``seed``. ``batch`` queries are searched for together.
    """

    selection: Selection = field(default_factory=Selection)
    mode: str | None = None
    where: str | None = None
    form: str = "triplet"
    has_scores: bool = False
    seed: int = 42
    batch: int = 64

    def __post_init__(self) -> None:
        if self.form not in FORMATS:
            raise ValueError(f"the form must be one of {', '.join(FORMATS)}, got {self.form!r}")


@dataclass(frozen=True, slots=True)
class MinedFile:
    """The numbers of rows, queries and negatives of a file, and of queries with fewer negatives than wanted."""

    rows: int = 0
    queries: int = 0
    negatives: int = 0
    short: int = 0

    def plus(self, mined: Mined, rows: int, wanted: int) -> MinedFile:
        """Return the numbers with those of a further query."""
        found = len(mined.negatives)
        return MinedFile(self.rows + rows, self.queries + 1, self.negatives + found, self.short + (found < wanted))


def judged_queries(judged: Judged, index: Index, batch: int = 256) -> list[StoreQuery]:
    """Return judged queries with the texts of their relevant documents, which are read from the collection.

    Queries of whose relevant documents the collection has none are left out.
    """
    wanted = {
        query: [document for document, grade in grades.items() if grade > 0] for query, grades in judged.grades.items()
    }
    texts: dict[str, str] = {}
    ids = iter(dict.fromkeys(document for documents in wanted.values() for document in documents))
    while part := list(islice(ids, batch)):
        for record in index.get(part):
            texts[parent_of(record.id, record.payload)] = str(record.payload.get(index.text_key, ""))
    return [
        StoreQuery(Query(judged.queries[query], found), frozenset(documents))
        for query, documents in wanted.items()
        if (found := tuple(dict.fromkeys(texts[document] for document in documents if document in texts)))
    ]


def pair_queries(rows: Sequence[Mapping[str, Any]], anchor: str, positive: str) -> list[StoreQuery]:
    """Return the queries of pairs of texts; see :func:`st_core.mining.queries_of`."""
    return [StoreQuery(query) for query in queries_of(rows, anchor, positive)]


def mine(
    index: Index, queries: Sequence[StoreQuery], mining: Mining = Mining(), *, reranker: Reranker | None = None
) -> Iterator[Mined]:
    """Yield the negatives of each query among the results of the collection's search.

    Relevant documents, their windows and their near-duplicates are no negatives. With a ``reranker`` its scores decide,
    and margins and bounds are in its units. Raises ValueError for a margin without a reranker, because a search has no
    score for a positive that it does not find, and the errors of ``Index.search``.
    """
    if mining.selection.has_margin and reranker is None:
        raise ValueError("a margin needs the scores of positives: pass a reranker, which scores them")
    rest = iter(queries)
    while part := list(islice(rest, mining.batch)):
        yield from _mined(index, part, mining, reranker)


def _mined(index: Index, queries: Sequence[StoreQuery], mining: Mining, reranker: Reranker | None) -> Iterator[Mined]:
    most = max(len(each.query.positives) for each in queries)
    last = mining.selection.last_rank(most, has_reranker=reranker is not None)
    limit = last + most
    results = index.search_many(
        [each.query.text for each in queries],
        limit=limit,
        depth=max(limit, 100),
        mode=mining.mode,
        where=mining.where,
        fold=True,
    )
    found = [_candidates(index, query, result) for query, result in zip(queries, results, strict=True)]
    own: list[tuple[float, ...]] = [tuple(float("nan") for _ in each.query.positives) for each in queries]
    if reranker is not None:
        found, own = _rescored(queries, found, reranker)
    for query, candidates, scores in zip(queries, found, own, strict=True):
        chosen = select(
            candidates,
            query.query.positives,
            mining.selection,
            last_rank=last,
            lowest_positive=None if reranker is None else min(scores),
            generator=random.Random(f"{mining.seed}:{query.query.text}"),  # noqa: S311 - a sample, no secret
        )
        yield Mined(
            query.query,
            scores,
            tuple(candidates.texts[place] for place in chosen),
            tuple(candidates.scores[place] for place in chosen),
        )


def _candidates(index: Index, query: StoreQuery, result: Any) -> Candidates:
    """Return the hits of a query that are not relevant documents and have a text."""
    hits = [
        (text, hit.score)
        for hit in result
        if hit.id not in query.relevant and isinstance(text := hit.payload.get(index.text_key), str) and text.strip()
    ]
    return Candidates(tuple(text for text, _ in hits), tuple(score for _, score in hits))


def _rescored(
    queries: Sequence[StoreQuery], found: Sequence[Candidates], reranker: Reranker
) -> tuple[list[Candidates], list[tuple[float, ...]]]:
    """Return candidates and the scores of positives by a reranker, from one call."""
    listed = [(*each.texts, *query.query.positives) for query, each in zip(queries, found, strict=True)]
    pairs = [(query.query.text, text) for query, texts in zip(queries, listed, strict=True) for text in texts]
    scores = iter(np.asarray(reranker.predict(pairs), np.float64).tolist())
    parts = [list(islice(scores, len(texts))) for texts in listed]
    rescored = [Candidates(each.texts, tuple(part[: len(each.texts)])) for each, part in zip(found, parts, strict=True)]
    return rescored, [tuple(part[len(each.texts) :]) for each, part in zip(found, parts, strict=True)]


Progress = Callable[[int, int], None]
"""Receives how many of how many queries have been searched for."""


def mine_to_file(
    index: Index,
    queries: Sequence[StoreQuery],
    path: Path,
    mining: Mining = Mining(),
    *,
    reranker: Reranker | None = None,
    progress: Progress | None = None,
) -> MinedFile:
    """Write the rows of :func:`mine` as JSON Lines; an interrupted mining continues when it is called again.

    The state is in a file beside ``path`` until the mining has ended. Raises ValueError for the state of another
    mining.
    """
    state_path = path.with_name(f"{path.name}.state")
    identity = _identity(index, queries, mining, reranker)
    done, numbers = _resumed(path, state_path, identity)
    with path.open("r+b" if done else "wb") as file:
        file.seek(0, os.SEEK_END)
        for start in range(done, len(queries), mining.batch):
            part = queries[start : start + mining.batch]
            for mined in mine(index, part, mining, reranker=reranker):
                rows = _rows(mined, mining)
                file.writelines(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)
                numbers = numbers.plus(mined, len(rows), mining.selection.num_negatives)
            file.flush()
            os.fsync(file.fileno())
            _save_state(state_path, identity, file.tell(), numbers)
            if progress is not None:
                progress(numbers.queries, len(queries))
    state_path.unlink(missing_ok=True)
    return numbers


def _rows(mined: Mined, mining: Mining) -> list[dict[str, Any]]:
    count = mining.selection.num_negatives
    rows = rows_of(mined, mining.form, count, QUERY, POSITIVE, has_scores=mining.has_scores)
    return list(rows)


def _identity(index: Index, queries: Sequence[StoreQuery], mining: Mining, reranker: Reranker | None) -> str:
    """Return a hash of all that decides the rows."""
    from st_core import describe

    models = {name: dict(model.ref().fingerprint) for name, model in index.models.items()}
    own = None if reranker is None else dict(describe(reranker).fingerprint)
    texts = [(each.query.text, each.query.positives, sorted(each.relevant)) for each in queries]
    value = repr((index.address, index.collection, models, own, asdict(mining), texts))
    return hashlib.sha256(value.encode()).hexdigest()


def _resumed(path: Path, state_path: Path, identity: str) -> tuple[int, MinedFile]:
    """Return how many queries are done, and their numbers, after cutting off what was written after the state."""
    if not state_path.is_file():
        if path.exists():
            raise ValueError(f"{path} exists; delete it, or write to another file")
        return 0, MinedFile()
    try:
        state = json.loads(state_path.read_text(encoding="utf-8"))
        numbers, end = MinedFile(**state["numbers"]), int(state["bytes"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{state_path}: not the state of a mining; delete it and {path}") from error
    if state["identity"] != identity:
        raise ValueError(
            f"{state_path} is the state of a mining with other queries, models or options; pass the same ones, or "
            f"delete it and {path}"
        )
    os.truncate(path, end)
    return numbers.queries, numbers


def _save_state(path: Path, identity: str, end: int, numbers: MinedFile) -> None:
    temporary = path.with_name(f"{path.name}.new")
    temporary.write_text(json.dumps({"identity": identity, "bytes": end, "numbers": asdict(numbers)}), encoding="utf-8")
    temporary.replace(path)
