"""MTEB measures a store as our own evaluation does, and its fusion is ours; `make test-mteb` installs it."""

from __future__ import annotations

import random

import pytest

mteb = pytest.importorskip("mteb", reason="needs MTEB, installed by `make test-mteb`")

from datasets import Dataset  # noqa: E402 - after the guard
from mteb.abstasks.retrieval import AbsTaskRetrieval  # noqa: E402 - after the guard
from mteb.abstasks.task_metadata import TaskMetadata  # noqa: E402 - after the guard
from mteb.models import SearchProtocol  # noqa: E402 - after the guard
from mteb.models.hybrid_wrappers import HybridSearch  # noqa: E402 - after the guard

from st_connectors.evaluation import Judged, Variant, evaluate  # noqa: E402 - after the guard
from st_connectors.evaluation.mteb import IndexSearch  # noqa: E402 - after the guard
from st_connectors.fusion import fuse  # noqa: E402 - after the guard
from st_connectors.index import Index  # noqa: E402 - after the guard
from st_connectors.schema import Rrf  # noqa: E402 - after the guard

CORPUS = {
    "sea": "An ageing fisherman struggles with a giant marlin. He is alone.",
    "submarine": "A voyage in a submarine under the ocean. It is long.",
    "time": "A traveller visits the far future. Nobody believes him.",
    "moon": "Members of a club shoot a capsule to the moon. It misses.",
    "war": "Martians land in England with machines. They die of germs.",
    "island": "A sailor is alone on an island for many years. He meets a man.",
}
QUERIES = {"q1": "a big fish in the ocean", "q2": "aquatic vessels", "q3": "future machines", "island": "alone at sea"}
GRADES = {"q1": {"sea": 2, "submarine": 1}, "q2": {"submarine": 1}, "q3": {"time": 1}, "island": {"sea": 2, "moon": 1}}


class Books(AbsTaskRetrieval):
    """A retrieval task in memory."""

    metadata = TaskMetadata(
        name="Books",
        description="Short texts about books.",
        reference=None,
        dataset={"path": "local/books", "revision": "1"},
        type="Retrieval",
        category="t2t",
        modalities=["text"],
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score="ndcg_at_10",
        date=("2026-01-01", "2026-01-02"),
        domains=["Fiction"],
        task_subtypes=[],
        license="cc0-1.0",
        annotations_creators="human-annotated",
        dialect=[],
        sample_creation="created",
        bibtex_citation="",
    )

    def load_data(self, *_, **__):
        """Use the texts above."""
        rows = [[{"id": key, "text": text} for key, text in part.items()] for part in (CORPUS, QUERIES)]
        corpus, queries = map(Dataset.from_list, rows)
        split = {"corpus": corpus, "queries": queries, "relevant_docs": GRADES, "top_ranked": None}
        self.dataset = {"default": {"test": split}}
        self.data_loaded = True


class OthersOnly(Books):
    """The same task without documents that have the id of their query."""

    ignore_identical_ids = True


def create(collection):
    """Create a collection in memory with two legs."""
    return Index.create("memory:", collection=collection, dense="builtin:dense", sparse="builtin:sparse")


def by_mteb(task, search):
    """The scores that MTEB computes."""
    result = mteb.evaluate(search, task, cache=None, co2_tracker=False, show_progress_bar=False)
    return result.task_results[0].scores["test"][0]


@pytest.mark.parametrize("mode", ["dense", "sparse", "hybrid"])
def test_mteb_measures_what_our_evaluation_does(mode):
    """With grades, for one leg and for both."""
    search = IndexSearch("books", create, options={"mode": mode})
    assert isinstance(search, SearchProtocol)
    with search, create("books") as index:
        index.ingest({"id": key, "text": text} for key, text in CORPUS.items())
        measures = {"ndcg@3": "ndcg_at_3", "ndcg@10": "ndcg_at_10", "recall@1": "recall_at_1", "map@10": "map_at_10"}
        variants = [Variant(mode, index, {"mode": mode})]
        wanted = evaluate(variants, Judged(QUERIES, GRADES), measures=list(measures)).results[0].measures

        scores = by_mteb(Books(), search)

    assert {name: scores[theirs] for name, theirs in measures.items()} == pytest.approx(
        {name: wanted[name].value for name in measures}, abs=2e-5
    )


def test_mteb_leaves_out_the_documents_of_queries():
    """A task that says so measures the other documents."""
    with IndexSearch("books", create, options={"mode": "dense"}) as search:
        scores, others = by_mteb(Books(), search), by_mteb(OthersOnly(), search)

    assert others["ndcg_at_10"] > scores["ndcg_at_10"]


@pytest.mark.parametrize("weights", [None, (0.7, 0.3), (0.2, 0.8)])
@pytest.mark.parametrize("k", [1, 60])
def test_fusion_by_ranks_is_that_of_mteb(weights, k):
    """Of random rankings with different documents; only the order of equal scores differs."""
    searches = [IndexSearch(name, create) for name in ("one", "two")]
    generator = random.Random(7)
    hybrid = HybridSearch(searches, weights=weights or (1.0, 1.0), rrf_k=k)
    for _ in range(20):
        legs = []
        for _leg in searches:
            ids = generator.sample([f"d{number}" for number in range(12)], generator.randint(0, 12))
            legs.append({key: float(len(ids) - place) for place, key in enumerate(ids)})

        fused = fuse(legs, Rrf(k, weights))

        assert dict(fused) == pytest.approx(hybrid.fuse(legs))
        assert fused == sorted(fused, key=lambda pair: (-pair[1], pair[0]))


@pytest.mark.parametrize("weights", [None, (0.7, 0.3)])
def test_a_hybrid_search_is_the_hybrid_search_of_mteb(weights):
    """MTEB fuses the legs of a store, and the store fuses them itself."""
    legs = [IndexSearch(mode, create, options={"mode": mode}) for mode in ("dense", "sparse")]
    ours = IndexSearch("hybrid", create, options={"mode": "hybrid", "fusion": Rrf(60, weights)})
    call = {"task_metadata": Books.metadata, "hf_split": "test", "hf_subset": "default", "encode_kwargs": {}}
    corpus, queries = ([{"id": key, "text": text} for key, text in part.items()] for part in (CORPUS, QUERIES))
    theirs = HybridSearch(legs, weights=weights or (1.0, 1.0))
    theirs.index(corpus, **call)
    ours.index(corpus, num_proc=None, **call)

    wanted = theirs.search(queries, top_k=6, **call)
    found = ours.search(queries, top_k=6, num_proc=None, **call)

    for query in QUERIES:
        assert found[query] == pytest.approx(wanted[query], rel=1e-5)
    for each in (*legs, ours):
        each.close()
