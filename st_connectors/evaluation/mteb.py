"""A collection of any store as MTEB's SearchProtocol, so that MTEB, with BEIR and NanoBEIR in it, measures its search.

Written for MTEB 2.26, which is imported only for the metadata of a model. ``make test-mteb`` runs it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from st_core.errors import missing_packages

if TYPE_CHECKING:
    from st_connectors.index import Index
    from st_connectors.search import SearchResult

__all__ = ["IndexSearch"]

BATCH = 64
"""The number of queries that are searched for together."""


class IndexSearch:
    """Lets MTEB measure the search of a store: ``mteb.evaluate(IndexSearch(name, create), tasks)``.

    For each corpus, ``create`` receives the name of a collection and returns its open index, such as
    ``lambda collection: Index.create(URL, collection=collection, dense=MODEL)``. The documents are synchronized with
    the collection, so that a repeated run encodes only what has changed. ``options`` are arguments of ``Index.search``.
    ``name`` names the results; MTEB caches results by it.
    """

    def __init__(self, name: str, create: Callable[[str], Index], *, options: Mapping[str, Any] | None = None) -> None:
        """Store the arguments; raise ValueError for an option that MTEB sets."""
        self._name = name
        self._create = create
        self._options = dict(options or {})
        own = sorted(self._options.keys() & {"limit", "offset", "fold"})
        if own:
            raise ValueError(f"{', '.join(own)} cannot be an option; MTEB sets the number of documents")
        self._index: Index | None = None

    @property
    def mteb_model_meta(self) -> Any:
        """The metadata of the results, a ``mteb.ModelMeta``; raises ImportError if MTEB is not installed."""
        try:
            from mteb.models import ModelMeta
        except ImportError as error:
            raise missing_packages(["mteb"], "an evaluation by MTEB") from error
        return ModelMeta.create_empty(overwrites={"name": f"st-connectors/{self._name}"})

    def index(
        self,
        corpus: Iterable[Mapping[str, Any]],
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        encode_kwargs: Mapping[str, Any] | None = None,  # noqa: ARG002 - the models of the index have their options
        num_proc: int | None = None,  # noqa: ARG002
        **kwargs: Any,  # noqa: ARG002 - arguments of later versions
    ) -> None:
        """Store the documents of a corpus in a collection of its own; a title stands before its text.

        Raises ValueError if a document was refused, and if the collection has documents of another corpus.
        """
        self.close()
        self._index = self._create(collection_name(task_metadata.name, hf_subset, hf_split))
        report = self._index.sync(_document(row) for row in corpus)
        if report.refused:
            first = report.refused[0]
            raise ValueError(f"{report.refused_total} documents were refused, the first, {first.id!r}: {first.reason}")
        stored, expected = self._index.count(), report.confirmed - report.replaced + report.unchanged
        if stored != expected:
            raise ValueError(
                f"collection {self._index.collection!r} has {stored} records, and the corpus {expected} documents; "
                "create an empty collection for it"
            )

    def search(
        self,
        queries: Iterable[Mapping[str, Any]],
        *,
        top_k: int,
        top_ranked: Mapping[str, Sequence[str]] | None = None,
        task_metadata: Any = None,  # noqa: ARG002 - the corpus is that of ``index``
        hf_split: str = "",  # noqa: ARG002
        hf_subset: str = "",  # noqa: ARG002
        encode_kwargs: Mapping[str, Any] | None = None,  # noqa: ARG002
        num_proc: int | None = None,  # noqa: ARG002
        **kwargs: Any,  # noqa: ARG002
    ) -> dict[str, dict[str, float]]:
        """Return the scores of documents by query and document.

        A query whose own id is among the first ``top_k`` has one document more, because MTEB leaves out that id for
        tasks which say so. Equal scores are lowered by the least amount, so that the order stays that of the store,
        where MTEB orders them by descending id. Raises ValueError for a task that orders documents which it selects,
        and before ``index``.
        """
        if self._index is None:
            raise ValueError("search needs a collection; call index first")
        if top_ranked is not None:
            raise ValueError("a store cannot order selected documents; evaluate the reranker of this task in MTEB")
        options = {"depth": max(top_k + 1, 100)} | self._options | {"limit": top_k + 1}
        found: dict[str, dict[str, float]] = {}
        for batch in _batches(queries):
            results = self._index.search_many([_text(row) for row in batch], **options)
            for row, result in zip(batch, results, strict=True):
                found[str(row["id"])] = _scores(result, str(row["id"]), top_k)
        return found

    def close(self) -> None:
        """Close the collection; a second call does nothing."""
        if self._index is not None:
            self._index.close()
            self._index = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def collection_name(task: str, subset: str, split: str) -> str:
    """Return the name of the collection for a corpus: small letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", f"{task}-{subset}-{split}".lower()).strip("-")


def _document(row: Mapping[str, Any]) -> dict[str, str]:
    title, text = row.get("title") or "", row["text"]
    return {"id": str(row["id"]), "text": f"{title} {text}".strip()}


def _text(row: Mapping[str, Any]) -> str:
    """Return the text of a query with its instruction; raise ValueError for a conversation."""
    if not isinstance(row["text"], str):
        raise ValueError(f"query {row['id']!r} is a conversation; expected a text")  # noqa: TRY004 - a fault of the task
    return " ".join(part for part in (row["text"], row.get("instruction")) if part)


def _scores(result: SearchResult, query: str, top_k: int) -> dict[str, float]:
    """Return the score of each document, each lower than the one before it as a float32, in which MTEB compares."""
    hits = list(result)
    count = top_k + any(hit.id == query for hit in hits[:top_k])
    scores: dict[str, float] = {}
    last = np.float32(np.inf)
    for hit in hits[:count]:
        last = min(np.float32(hit.score), np.nextafter(last, np.float32(-np.inf)))
        scores[hit.id] = float(last)
    return scores


def _batches(rows: Iterable[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    rest = iter(rows)
    while batch := list(islice(rest, BATCH)):
        yield batch
