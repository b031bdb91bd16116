"""How well queries find their documents in a corpus."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from st_core.evaluation.encoding import CountsTerms, VectorEvaluator
from st_core.evaluation.ranking import (
    Judgements,
    average_precision,
    discounted_gain,
    grades_of,
    ideal_grades,
    reciprocal_rank,
)

__all__ = [
    "InformationRetrievalEvaluator",
    "Score",
    "SparseInformationRetrievalEvaluator",
    "mean_flops",
    "retrieval_columns",
]

Score: TypeAlias = Callable[[Any, Any], Any]

UNKNOWN_SHARE = 0.05
"""The share of judgements for unknown documents or queries above which an evaluation is refused."""


class InformationRetrievalEvaluator(VectorEvaluator):
    """Ranks a corpus for each query, by descending score and ascending id, and compares with judgements.

    ``relevant_docs`` has the ids of the relevant documents of each query, or their grades by id; nDCG uses grades as
    gains, the other measures count documents of a positive grade. Queries without relevant documents are left out.
    Raises ValueError where more than a twentieth of the judgements are for unknown documents or queries, and where no
    query is left.
    """

    def __init__(  # noqa: PLR0917 - the order of sentence-transformers
        self,
        queries: Mapping[str, str],
        corpus: Mapping[str, str],
        relevant_docs: Mapping[str, Judgements],
        corpus_chunk_size: int = 50_000,
        mrr_at_k: Sequence[int] = (10,),
        ndcg_at_k: Sequence[int] = (10,),
        accuracy_at_k: Sequence[int] = (1, 3, 5, 10),
        precision_recall_at_k: Sequence[int] = (1, 3, 5, 10),
        map_at_k: Sequence[int] = (100,),
        show_progress_bar: bool = False,
        batch_size: int = 32,
        name: str = "",
        write_csv: bool = True,
        truncate_dim: int | None = None,
        score_functions: Mapping[str, Score] | None = None,
        main_score_function: str | None = None,
        query_prompt: str | None = None,
        query_prompt_name: str | None = None,
        corpus_prompt: str | None = None,
        corpus_prompt_name: str | None = None,
        write_predictions: bool = False,
    ) -> None:
        """Store the arguments after comparing judgements with queries and documents."""
        super().__init__(
            name,
            write_csv=write_csv,
            batch_size=batch_size,
            show_progress_bar=show_progress_bar,
            limit=truncate_dim,
        )
        _check_judgements(queries, corpus, relevant_docs)
        self.queries = {
            key: text for key, text in queries.items() if ideal_grades(relevant_docs.get(key, frozenset())).size
        }
        if not self.queries:
            raise ValueError("no query has a relevant document; pass judgements with the ids of these queries")
        self.corpus, self.relevant_docs = dict(corpus), relevant_docs
        self.corpus_chunk_size = corpus_chunk_size
        self.mrr_at_k, self.ndcg_at_k, self.map_at_k = mrr_at_k, ndcg_at_k, map_at_k
        self.accuracy_at_k, self.precision_recall_at_k = accuracy_at_k, precision_recall_at_k
        self.score_functions, self.main_score_function = score_functions, main_score_function
        self.write_predictions = write_predictions
        self._query_prompt = {"prompt": query_prompt, "prompt_name": query_prompt_name}
        self._corpus_prompt = {"prompt": corpus_prompt, "prompt_name": corpus_prompt_name}
        self.csv_file = f"Information-Retrieval_evaluation{f'_{name}' if name else ''}_results.csv"
        self.rankings: dict[str, dict[str, list[tuple[str, float]]]] = {}

    @property
    def depth(self) -> int:
        """The number of documents that are ranked."""
        cuts = (self.mrr_at_k, self.ndcg_at_k, self.map_at_k, self.accuracy_at_k, self.precision_recall_at_k)
        return max(cut for each in cuts for cut in each)

    def __call__(
        self, model: Any, output_path: str | PathLike[str] | None = None, epoch: float = -1, steps: int = -1
    ) -> dict[str, float]:
        """Return the metrics of a model; with ``write_predictions`` also write the rankings."""
        metrics = super().__call__(model, output_path, epoch, steps)
        if self.write_predictions and output_path is not None:
            for function in self.rankings:
                self._write_rankings(Path(output_path), function)
        return metrics

    def compute(self, model: Any) -> dict[str, float]:
        """Return the metrics of a model for each score function."""
        functions = self.score_functions or {model.similarity_fn_name: model.similarity}
        self.rankings = self._ranked(model, functions)
        return {
            f"{function}_{name}": value
            for function in functions
            for name, value in self._metrics(self.rankings[function]).items()
        }

    def columns(self, metrics: Mapping[str, float]) -> Mapping[str, float]:
        """Return the columns of the table, those of sentence-transformers."""
        return retrieval_columns(metrics)

    def primary_of(self, metrics: Mapping[str, float], model: Any) -> str:
        """Return the name of nDCG at the largest depth, of the best score function unless one was chosen."""
        ending = f"_ndcg@{max(self.ndcg_at_k)}"
        names = list(self.score_functions or [model.similarity_fn_name])
        chosen = self.main_score_function or max(names, key=lambda each: metrics[f"{each}{ending}"])
        return f"{chosen}{ending}"

    def expected_primary(self, model: Any) -> str | None:
        """Return the name of the primary metric before a run, None if a run decides it."""
        names = list(self.score_functions or [model.similarity_fn_name])
        if self.main_score_function is None and len(names) > 1:
            return None
        return self._named(f"{self.main_score_function or names[0]}_ndcg@{max(self.ndcg_at_k)}")

    def _ranked(self, model: Any, functions: Mapping[str, Score]) -> dict[str, dict[str, list[tuple[str, float]]]]:
        """Return the documents of each query with their scores, by score function."""
        ids, texts = list(self.corpus), list(self.corpus.values())
        places = np.empty(len(ids), np.int64)
        places[sorted(range(len(ids)), key=ids.__getitem__)] = np.arange(len(ids))
        queries = self.encode(model, list(self.queries.values()), "query", **self._query_prompt)
        best = {name: _Best(len(self.queries), self.depth) for name in functions}
        for start in range(0, len(ids), self.corpus_chunk_size):
            part = slice(start, start + self.corpus_chunk_size)
            vectors = self.encode(model, texts[part], "corpus", **self._corpus_prompt)
            for name, function in functions.items():
                best[name].add(_array(function(queries, vectors)), places[part])
        by_place = sorted(ids)
        return {
            name: {
                query: [(by_place[place], float(score)) for place, score in zip(*rows, strict=True)]
                for query, rows in zip(self.queries, each.rows(), strict=True)
            }
            for name, each in best.items()
        }

    def _metrics(self, ranking: Mapping[str, Sequence[tuple[str, float]]]) -> dict[str, float]:
        """Return the means of all measures over the queries."""
        each = [self._of_query(query, [key for key, _ in ranking[query]]) for query in self.queries]
        return {name: float(np.mean([values[name] for values in each])) for name in each[0]}

    def _of_query(self, query: str, ids: Sequence[str]) -> dict[str, float]:
        judged = self.relevant_docs[query]
        grades, ideal = grades_of(ids, judged), ideal_grades(judged)
        hits = {cut: int((grades[:cut] > 0).sum()) for cut in (*self.accuracy_at_k, *self.precision_recall_at_k)}
        return {
            **{f"accuracy@{cut}": float(hits[cut] > 0) for cut in self.accuracy_at_k},
            **{f"precision@{cut}": hits[cut] / cut for cut in self.precision_recall_at_k},
            **{f"recall@{cut}": hits[cut] / ideal.size for cut in self.precision_recall_at_k},
            **{f"ndcg@{cut}": discounted_gain(grades, cut) / discounted_gain(ideal, cut) for cut in self.ndcg_at_k},
            **{f"mrr@{cut}": reciprocal_rank(grades, cut) for cut in self.mrr_at_k},
            **{f"map@{cut}": average_precision(grades, cut, ideal.size) for cut in self.map_at_k},
        }

    def _write_rankings(self, folder: Path, function: str) -> None:
        """Write the documents of each query with their scores, one line of JSON for each query."""
        path = folder / self.csv_file.replace("_results.csv", f"_predictions_{function}.jsonl")
        with path.open("w", encoding="utf-8") as file:
            for query, hits in self.rankings[function].items():
                results = [{"corpus_id": key, "score": score} for key, score in hits]
                line = {"query_id": query, "query": self.queries[query], "results": results}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")


class _Best:
    """The documents of the highest scores of each query, of equal scores those of the lowest ids."""

    def __init__(self, queries: int, depth: int) -> None:
        self._depth = depth
        self._scores = np.empty((queries, 0))
        self._places = np.empty((queries, 0), np.int64)

    def add(self, scores: NDArray[np.floating], places: NDArray[np.int64]) -> None:
        """Add the scores [queries, documents] of documents, whose ids have these places in the order of ids."""
        both = np.concatenate([self._scores, scores], axis=1)
        every = np.concatenate([self._places, np.broadcast_to(places, scores.shape)], axis=1)
        rows = [self._first(score, place) for score, place in zip(both, every, strict=True)]
        self._scores = np.stack([score[row] for score, row in zip(both, rows, strict=True)])
        self._places = np.stack([place[row] for place, row in zip(every, rows, strict=True)])

    def _first(self, scores: NDArray[np.floating], places: NDArray[np.int64]) -> NDArray[np.intp]:
        """Return the positions of the best of a query's documents, in order."""
        if scores.size > self._depth:
            least = np.partition(scores, scores.size - self._depth)[scores.size - self._depth]
            candidates = np.flatnonzero(scores >= least)
        else:
            candidates = np.arange(scores.size)
        order = np.lexsort((places[candidates], -scores[candidates]))
        return candidates[order[: self._depth]]

    def rows(self) -> list[tuple[NDArray[np.int64], NDArray[np.floating]]]:
        """Return the places and the scores of the documents of each query."""
        return list(zip(self._places, self._scores, strict=True))


def _array(scores: Any) -> NDArray[np.floating]:
    return np.asarray(scores.cpu() if hasattr(scores, "cpu") else scores)


def _check_judgements(queries: Mapping[str, str], corpus: Mapping[str, str], judged: Mapping[str, Judgements]) -> None:
    """Raise ValueError where too many judgements are for unknown queries or documents."""
    pairs = [(query, document) for query, documents in judged.items() for document in documents]
    unknown = [(query, document) for query, document in pairs if query not in queries or document not in corpus]
    if len(unknown) > UNKNOWN_SHARE * len(pairs):
        listed = ", ".join(f"{query} {document}" for query, document in unknown[:3])
        raise ValueError(
            f"{len(unknown)} of {len(pairs)} judgements are for unknown queries or documents: {listed}, …; pass the "
            "queries and the corpus that they belong to"
        )


class SparseInformationRetrievalEvaluator(CountsTerms, InformationRetrievalEvaluator):
    """:class:`InformationRetrievalEvaluator` of sparse vectors, with their numbers of active terms.

    ``avg_flops`` is the sum over all terms of the share of queries that have it times the share of documents.
    """

    def compute(self, model: Any) -> dict[str, float]:
        """Return the metrics of a model, and the numbers of active terms of queries and documents."""
        return {**super().compute(model), "avg_flops": mean_flops([self])}

    def columns(self, metrics: Mapping[str, float]) -> Mapping[str, float]:
        """Return the columns of the table, those of sentence-transformers, in which the products are last."""
        others = {name: value for name, value in metrics.items() if name != "avg_flops"}
        return {**super().columns(others), "avg_flops": metrics["avg_flops"]}


def mean_flops(evaluators: Sequence[CountsTerms]) -> float:
    """Return the mean number of products of a query with a document, over the texts of all evaluators."""
    shares = [
        np.sum([each.counts[side] for each in evaluators], axis=0) / sum(each.rows[side] for each in evaluators)
        for side in ("query", "corpus")
    ]
    return float(shares[0] @ shares[1])


_MEASURE = re.compile(r"(.+)_(accuracy|precision|recall|mrr|ndcg|map)@(\d+)")
_GROUPS = {"accuracy": 0, "precision": 1, "recall": 1, "mrr": 2, "ndcg": 3, "map": 4}
_TITLES = {"mrr": "MRR", "ndcg": "NDCG", "map": "MAP"}


def retrieval_columns(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the columns of a table of retrieval, with the names and the order of sentence-transformers.

    Precision and recall alternate by depth. Other metrics stay behind them under their names.
    """
    parsed = [(name, _MEASURE.fullmatch(name)) for name in metrics]
    measures = [
        (match[1], _GROUPS[match[2]], int(match[3]), match[2], name) for name, match in parsed if match is not None
    ]
    columns = {
        f"{function}-{_TITLES.get(kind, kind.capitalize())}@{cut}": metrics[name]
        for function, _, cut, kind, name in sorted(measures)
    }
    return columns | {name: metrics[name] for name, match in parsed if match is None}
