"""How well similarities find duplicates among texts, and translations."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from st_core.evaluation.encoding import CountsTerms, VectorEvaluator
from st_core.evaluation.pairs import same_lengths
from st_core.evaluation.thresholds import Separation
from st_core.retrieval import paraphrase_mining_embeddings
from st_core.similarity import cos_sim

__all__ = ["ParaphraseMiningEvaluator", "SparseTranslationEvaluator", "TranslationEvaluator"]

logger = logging.getLogger(__name__)

_PART = 1024
"""The number of texts whose similarities to all others are in memory at a time."""


class ParaphraseMiningEvaluator(VectorEvaluator):
    """Searches texts for duplicates by the cosine of their vectors, and compares with the known duplicates.

    Known duplicates are pairs of ids in ``duplicates_list``, or mappings from an id to ids and True in
    ``duplicates_dict``. With ``add_transitive_closure`` the duplicates of duplicates are duplicates too. Pairs with
    unknown ids are left out. Raises ValueError if no pair remains.
    """

    def __init__(  # noqa: PLR0917 - the order of sentence-transformers
        self,
        sentences_map: Mapping[str, str],
        duplicates_list: Sequence[tuple[str, str]] | None = None,
        duplicates_dict: Mapping[str, Mapping[str, bool]] | None = None,
        add_transitive_closure: bool = False,
        query_chunk_size: int = 5000,
        corpus_chunk_size: int = 100000,
        max_pairs: int = 500000,
        top_k: int = 100,
        show_progress_bar: bool = False,
        batch_size: int = 16,
        name: str = "",
        write_csv: bool = True,
        truncate_dim: int | None = None,
    ) -> None:
        """Store the texts and the pairs."""
        super().__init__(
            name,
            write_csv=write_csv,
            batch_size=batch_size,
            show_progress_bar=show_progress_bar,
            limit=truncate_dim,
        )
        self.sentences = list(sentences_map.values())
        places = {key: place for place, key in enumerate(sentences_map)}
        listed = [
            *(duplicates_list or ()),
            *((key, other) for key, others in (duplicates_dict or {}).items() for other in others if others[other]),
        ]
        known = [(places[first], places[second]) for first, second in listed if first in places and second in places]
        self._duplicates = {(min(pair), max(pair)) for pair in known if pair[0] != pair[1]}
        if add_transitive_closure:
            self._duplicates = {pair for group in _groups(self._duplicates) for pair in combinations(sorted(group), 2)}
        if not self._duplicates:
            raise ValueError(
                f"none of the {len(listed)} pairs of duplicates is of two of the {len(places)} texts; pass pairs of "
                "their ids"
            )
        self._mining: dict[str, Any] = {
            "query_chunk_size": query_chunk_size,
            "corpus_chunk_size": corpus_chunk_size,
            "max_pairs": max_pairs,
            "top_k": top_k,
        }
        self.csv_file = f"paraphrase_mining_evaluation{f'_{name}' if name else ''}_results.csv"
        self.primary_metric = self._named("average_precision")

    def compute(self, model: Any) -> dict[str, float]:
        """Return the measures of a model."""
        pairs = paraphrase_mining_embeddings(self.encode(model, self.sentences), **self._mining)
        scores = np.array([score for score, _, _ in pairs])
        labels = np.array([(first, second) in self._duplicates for _, first, second in pairs], np.int64)
        separation = Separation(scores, labels, len(self._duplicates))
        best = separation.f1()
        return {
            "average_precision": separation.average_precision(),
            "f1": best.f1,
            "precision": best.precision,
            "recall": best.recall,
            "threshold": best.threshold,
        }

    def columns(self, metrics: Mapping[str, float]) -> Mapping[str, float]:
        """Return the columns of the table, those of sentence-transformers."""
        return {name: metrics[name] for name in ("precision", "recall", "f1", "threshold", "average_precision")}

    def primary_of(self, metrics: Mapping[str, float], model: Any) -> str:  # noqa: ARG002
        """Return the average precision."""
        return "average_precision"


class TranslationEvaluator(VectorEvaluator):
    """The share of texts whose translation is nearer by cosine than those of the other texts, in both directions.

    Of equal cosines the first text counts. A text that equals the translation is right too. With
    ``print_wrong_matches`` every other is logged as a warning.
    """

    def __init__(  # noqa: PLR0917 - the order of sentence-transformers
        self,
        source_sentences: Sequence[str],
        target_sentences: Sequence[str],
        show_progress_bar: bool = False,
        batch_size: int = 16,
        name: str = "",
        print_wrong_matches: bool = False,
        write_csv: bool = True,
        truncate_dim: int | None = None,
    ) -> None:
        """Store the arguments; raise ValueError for columns of different lengths."""
        super().__init__(
            name,
            write_csv=write_csv,
            batch_size=batch_size,
            show_progress_bar=show_progress_bar,
            limit=truncate_dim,
        )
        same_lengths(source_sentences=source_sentences, target_sentences=target_sentences)
        self.source_sentences, self.target_sentences = list(source_sentences), list(target_sentences)
        self.print_wrong_matches = print_wrong_matches
        self.csv_file = f"translation_evaluation{f'_{name}' if name else ''}_results.csv"
        self.primary_metric = self._named("mean_accuracy")

    def compute(self, model: Any) -> dict[str, float]:
        """Return the shares of a model."""
        sources, targets = (self.encode(model, texts) for texts in (self.source_sentences, self.target_sentences))
        found = _nearest(sources, targets)
        if self.print_wrong_matches:
            self._log_wrong(found)
        forth = _share(self.target_sentences, found)
        back = _share(self.source_sentences, _nearest(targets, sources))
        return {"src2trg_accuracy": forth, "trg2src_accuracy": back, "mean_accuracy": (forth + back) / 2}

    def _log_wrong(self, found: Iterable[int]) -> None:
        for place, nearest in enumerate(found):
            wanted, got = self.target_sentences[place], self.target_sentences[nearest]
            if got != wanted:
                source = self.source_sentences[place]
                logger.warning("text %d %r: the nearest is %r, expected %r", place, source, got, wanted)

    def columns(self, metrics: Mapping[str, float]) -> Mapping[str, float]:
        """Return the columns of the table, those of sentence-transformers."""
        return {name: metrics[f"{name}_accuracy"] for name in ("src2trg", "trg2src")}

    def primary_of(self, metrics: Mapping[str, float], model: Any) -> str:  # noqa: ARG002
        """Return the mean of both directions."""
        return "mean_accuracy"


class SparseTranslationEvaluator(CountsTerms, TranslationEvaluator):
    """:class:`TranslationEvaluator` of sparse vectors, with the number of their active terms."""


def _nearest(queries: Any, vectors: Any) -> NDArray[np.int64]:
    """Return the position of the nearest vector of each query [n]."""
    parts = [cos_sim(queries[start : start + _PART], vectors) for start in range(0, queries.shape[0], _PART)]
    return np.concatenate([np.asarray(part).argmax(axis=1) for part in parts])


def _share(texts: Sequence[str], found: Iterable[int]) -> float:
    return float(np.mean([texts[place] == texts[nearest] for place, nearest in enumerate(found)]))


def _groups(pairs: Iterable[tuple[int, int]]) -> list[set[int]]:
    """Return the sets of positions that pairs connect."""
    group_of: dict[int, set[int]] = {}
    for first, second in pairs:
        merged = group_of.get(first, {first}) | group_of.get(second, {second})
        group_of.update(dict.fromkeys(merged, merged))
    return list({id(group): group for group in group_of.values()}.values())
