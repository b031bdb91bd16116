"""Evaluators over the small collections of NanoBEIR, or of a folder in the same layout."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any, ClassVar

import numpy as np

from st_core.evaluation.datasets import names_in, read_dataset, read_rankings, split_name
from st_core.evaluation.encoding import active_terms, as_limit
from st_core.evaluation.evaluator import Evaluator
from st_core.evaluation.reranking import CrossEncoderRerankingEvaluator
from st_core.evaluation.retrieval import (
    InformationRetrievalEvaluator,
    Score,
    SparseInformationRetrievalEvaluator,
    mean_flops,
    retrieval_columns,
)

__all__ = ["CrossEncoderNanoBEIREvaluator", "NanoBEIREvaluator", "SparseNanoBEIREvaluator"]

NANO_BEIR = "sentence-transformers/NanoBEIR-en"
"""The data set of sentence-transformers on the Hub."""

_ARGUMENTS = ("arguana", "touche2020")
"""Collections of arguments, which sentence-transformers leaves out for cross-encoders: their task is another one."""

Aggregate = Callable[[list[float]], Any]
Prompts = str | Mapping[str, str] | None


class _AggregatingEvaluator(Evaluator):
    """Runs an evaluator for each collection, and aggregates their metrics."""

    def __init__(self, name: str, *, write_csv: bool, evaluators: Sequence[Evaluator], aggregate: Aggregate) -> None:
        """Store the evaluators."""
        super().__init__(name, write_csv=write_csv)
        self.evaluators = list(evaluators)
        self.aggregate_fn = aggregate
        self._each: list[dict[str, float]] = []

    def __call__(
        self, model: Any, output_path: str | PathLike[str] | None = None, epoch: float = -1, steps: int = -1
    ) -> dict[str, float]:
        """Return the metrics of each collection and their aggregates."""
        self._each = [evaluator(model, output_path, epoch, steps) for evaluator in self.evaluators]
        aggregates = super().__call__(model, output_path, epoch, steps)
        return {name: value for each in self._each for name, value in each.items()} | aggregates

    def compute(self, model: Any) -> dict[str, float]:  # noqa: ARG002 - the collections are measured
        """Return the aggregates of the metrics of the collections."""
        plain = [
            {name.removeprefix(f"{evaluator.name}_"): value for name, value in each.items()}
            for evaluator, each in zip(self.evaluators, self._each, strict=True)
        ]
        return {name: float(self.aggregate_fn([each[name] for each in plain])) for name in plain[0]}

    def record(self, model: Any, metrics: Mapping[str, float], epoch: float, steps: int) -> None:
        """Record the aggregates with the model, except those of one collection, which are its metrics."""
        if len(self.evaluators) > 1:
            super().record(model, metrics, epoch, steps)

    def primary_of(self, metrics: Mapping[str, float], model: Any) -> str:
        """Return the primary metric of the collections."""
        first = self.evaluators[0]
        return first.primary_of(metrics, model)

    def expected_primary(self, model: Any) -> str | None:
        """Return the name of the primary metric before a run, None if a run decides it."""
        first = self.evaluators[0]
        expected = first.expected_primary(model)
        return None if expected is None else self._named(expected.removeprefix(f"{first.name}_"))


class NanoBEIREvaluator(_AggregatingEvaluator):
    """:class:`InformationRetrievalEvaluator` for each collection of NanoBEIR, and the means of their metrics.

    ``dataset_id`` is a folder, or the name of a data set on the Hub, which needs the package ``datasets``. A folder has
    ``corpus``, ``queries`` and ``qrels`` with a file for each collection, as NanoBEIR has them, or a folder for each
    collection with ``corpus.jsonl``, ``queries.jsonl`` and ``qrels``, as BEIR has them. ``dataset_names`` are by
    default all collections of a folder, and the 13 of NanoBEIR on the Hub. Scores of judgements are grades.
    """

    retrieval: ClassVar[type[InformationRetrievalEvaluator]] = InformationRetrievalEvaluator
    """The evaluator of a collection."""

    def __init__(  # noqa: PLR0917 - the order of sentence-transformers
        self,
        dataset_names: Sequence[str] | None = None,
        dataset_id: str | PathLike[str] = NANO_BEIR,
        mrr_at_k: Sequence[int] = (10,),
        ndcg_at_k: Sequence[int] = (10,),
        accuracy_at_k: Sequence[int] = (1, 3, 5, 10),
        precision_recall_at_k: Sequence[int] = (1, 3, 5, 10),
        map_at_k: Sequence[int] = (100,),
        show_progress_bar: bool = False,
        batch_size: int = 32,
        write_csv: bool = True,
        truncate_dim: int | None = None,
        score_functions: Mapping[str, Score] | None = None,
        main_score_function: str | None = None,
        aggregate_fn: Aggregate = np.mean,
        aggregate_key: str = "mean",
        query_prompts: Prompts = None,
        corpus_prompts: Prompts = None,
        write_predictions: bool = False,
    ) -> None:
        """Read the collections; raise ValueError for one that is not there, and for missing prompts."""
        self.dataset_names = _names(dataset_names, names_in(dataset_id))
        self.dataset_id = dataset_id
        options: dict[str, Any] = {
            "mrr_at_k": mrr_at_k,
            "ndcg_at_k": ndcg_at_k,
            "accuracy_at_k": accuracy_at_k,
            "precision_recall_at_k": precision_recall_at_k,
            "map_at_k": map_at_k,
            "show_progress_bar": show_progress_bar,
            "batch_size": batch_size,
            "write_csv": write_csv,
            "score_functions": score_functions,
            "main_score_function": main_score_function,
            "write_predictions": write_predictions,
        }
        prompts = {
            "query_prompt": _prompts("query", query_prompts, self.dataset_names),
            "corpus_prompt": _prompts("corpus", corpus_prompts, self.dataset_names),
        }
        options[self.retrieval.limit_name] = truncate_dim
        ending = f"_{truncate_dim}" if truncate_dim is not None else ""
        evaluators = []
        for name in self.dataset_names:
            dataset = read_dataset(dataset_id, name)
            own: dict[str, Any] = {side: each[name] for side, each in prompts.items() if each is not None}
            evaluators.append(
                self.retrieval(
                    dataset.queries,
                    dataset.corpus,
                    dataset.judged,
                    name=f"{split_name(name)}{ending}",
                    **options,
                    **own,
                )
            )
        super().__init__(
            f"NanoBEIR_{aggregate_key}{ending}", write_csv=write_csv, evaluators=evaluators, aggregate=aggregate_fn
        )
        self.csv_file = f"NanoBEIR_evaluation_{aggregate_key}_results.csv"

    def columns(self, metrics: Mapping[str, float]) -> Mapping[str, float]:
        """Return the columns of the table, those of sentence-transformers."""
        return retrieval_columns(metrics)


class SparseNanoBEIREvaluator(NanoBEIREvaluator):
    """:class:`NanoBEIREvaluator` of sparse vectors, with their numbers of active terms over all collections.

    ``max_active_dims`` limits the terms of a vector; it has the place of ``truncate_dim``.
    """

    retrieval = SparseInformationRetrievalEvaluator

    def __init__(self, *args: Any, max_active_dims: int | None = None, **kwargs: Any) -> None:
        """Read the collections; raise TypeError for ``truncate_dim``, which sparse vectors do not have."""
        super().__init__(*args, **as_limit(type(self).__name__, max_active_dims, kwargs))

    def compute(self, model: Any) -> dict[str, float]:
        """Return the aggregates, and the numbers of active terms of all queries and documents."""
        parts = [each for each in self.evaluators if isinstance(each, SparseInformationRetrievalEvaluator)]
        counts = {side: np.sum([each.counts[side] for each in parts], axis=0) for side in parts[0].counts}
        rows = {side: sum(each.rows[side] for each in parts) for side in parts[0].rows}
        return super().compute(model) | active_terms(counts, rows) | {"avg_flops": mean_flops(parts)}


class CrossEncoderNanoBEIREvaluator(_AggregatingEvaluator):
    """:class:`CrossEncoderRerankingEvaluator` for each collection of NanoBEIR, and the means of their metrics.

    The first ``rerank_k`` documents of the ranking ``bm25`` of a collection are ordered again, a file with the columns
    ``query-id`` and ``corpus-ids``. The other arguments are those of :class:`NanoBEIREvaluator`. ``dataset_names`` are
    by default all collections except ``arguana`` and ``touche2020``. Queries without relevant documents are left out.
    """

    def __init__(  # noqa: PLR0917 - the order of sentence-transformers
        self,
        dataset_names: Sequence[str] | None = None,
        dataset_id: str | PathLike[str] = NANO_BEIR,
        rerank_k: int = 100,
        at_k: int = 10,
        always_rerank_positives: bool = True,
        prompt_name: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool = False,
        write_csv: bool = True,
        aggregate_fn: Aggregate = np.mean,
        aggregate_key: str = "mean",
    ) -> None:
        """Read the collections; raise ValueError for one that is not there or without a ranking."""
        available = names_in(dataset_id)
        names = [name for name in available if name not in _ARGUMENTS] if dataset_names is None else dataset_names
        self.dataset_names = _names(names, available)
        self.dataset_id = dataset_id
        options: dict[str, Any] = {
            "at_k": at_k,
            "always_rerank_positives": always_rerank_positives,
            "prompt_name": prompt_name,
            "batch_size": batch_size,
            "show_progress_bar": show_progress_bar,
            "write_csv": write_csv,
        }
        evaluators = [
            CrossEncoderRerankingEvaluator(
                _samples(dataset_id, name, rerank_k), name=f"{split_name(name)}_R{rerank_k}", **options
            )
            for name in self.dataset_names
        ]
        super().__init__(
            f"NanoBEIR_R{rerank_k}_{aggregate_key}",
            write_csv=write_csv,
            evaluators=evaluators,
            aggregate=aggregate_fn,
        )
        self.csv_file = f"NanoBEIR_evaluation_{aggregate_key}_results.csv"

    def columns(self, metrics: Mapping[str, float]) -> Mapping[str, float]:
        """Return the columns of the table, those of sentence-transformers."""
        return self.evaluators[0].columns(metrics)


def _names(wanted: Sequence[str] | None, available: Sequence[str]) -> list[str]:
    """Return the names of collections; raise ValueError for one that is not available, and for none."""
    names = list(available if wanted is None else wanted)
    if not names:
        raise ValueError("dataset_names is empty; pass at least one name, or None for all collections")
    known = {split_name(each) for each in available}
    unknown = [name for name in names if split_name(name) not in known]
    if unknown:
        raise ValueError(f"no collection {', '.join(map(repr, unknown))}; expected some of {', '.join(available)}")
    return names


def _prompts(side: str, prompts: Prompts, names: Sequence[str]) -> Mapping[str, str] | None:
    """Return a prompt for each collection, None without prompts; raise ValueError for a collection without one."""
    if prompts is None:
        return None
    each = dict.fromkeys(names, prompts) if isinstance(prompts, str) else prompts
    missing = [name for name in names if name not in each]
    if missing:
        raise ValueError(f"no {side} prompt for {', '.join(missing)}; pass one for each of {', '.join(names)}")
    return each


def _samples(dataset_id: str | PathLike[str], name: str, rerank_k: int) -> list[dict[str, Any]]:
    """Return the queries of a collection with their relevant documents, and their first documents of its ranking."""
    dataset = read_dataset(dataset_id, name)
    samples = []
    for query, ranking in read_rankings(dataset_id, name).items():
        grades = {document: grade for document, grade in dataset.judged.get(query, {}).items() if grade > 0}
        documents = ranking[:rerank_k]
        lost = [document for document in (*grades, *documents) if document not in dataset.corpus]
        if lost or query not in dataset.queries:
            raise ValueError(f"{dataset_id}: {name!r} has no {f'document {lost[0]!r}' if lost else f'query {query!r}'}")
        if grades:
            positive = {dataset.corpus[document]: grade for document, grade in grades.items()}
            texts = [dataset.corpus[document] for document in documents]
            samples.append({"query": dataset.queries[query], "positive": positive, "documents": texts})
    return samples
