"""Plain use of each store's own client, for comparison, with the same vectors, words and filter.

Each class creates, fills, searches and measures one collection with the best bulk path and queries of its client. It
stores everything that a Record contains, so that records can be read back, and a fill ends where ours does: on disk
and visible to searches.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeAlias
from urllib.parse import urlsplit

import numpy as np

from st_connectors import bm25
from st_connectors.store import Record
from st_core.vectors import SparseVector

__all__ = ["LEGS", "Bare", "Question", "bare_of"]

LEGS = ("dense", "sparse", "text", "hybrid")
LIMIT, DEPTH = 10, 100
BATCH = 1000
NAME = "bare"
Fill: TypeAlias = Callable[[Sequence[Record]], None]
Dense: TypeAlias = Callable[[Any], Any]
"""A function that returns the form in which a dense vector is sent."""


class Question(Protocol):
    """A text query and its vectors."""

    text: str
    dense: Any
    sparse: SparseVector


class Bare(Protocol):
    """One collection, used through a client alone."""

    def create(self, dimension: int) -> None:
        """Create the collection anew and empty."""

    def fill(self, records: Sequence[Record]) -> None:
        """Store records through a bulk path of the client, in one thread."""

    def bulk_paths(self) -> Mapping[str, Fill]:
        """Return the bulk paths of the client, by name."""

    def ask(self, leg: str, question: Question) -> Sequence[Any]:
        """Return the best ten hits with payloads."""

    def close(self) -> None:
        """Drop the collection."""


def bare_of(store: str, address: str, folder: Path) -> Bare:
    """Return the client of the store at an address."""
    match store:
        case "qdrant-edge":
            return Edge(folder / "bare")
        case "qdrant-memory":
            return Local()
        case "milvus-lite":
            return Milvus(folder / "bare.db")
        case "elasticsearch-9":
            return Elastic(_url(address))
        case "opensearch":
            return Open(_url(address))
    raise ValueError(f"no client to compare {store} with")


def _url(address: str) -> str:
    return f"http://{urlsplit(address).netloc}"


def _parts(records: Sequence[Record], size: int = BATCH) -> Iterator[Sequence[Record]]:
    for at in range(0, len(records), size):
        yield records[at : at + size]


def _tokens(vector: SparseVector) -> dict[str, float]:
    return {str(index): weight for index, weight in vector.to_mapping().items()}


class Edge:
    """A shard of qdrant-edge, with words weighted by our BM25.

    The engine's own BM25 drops stop words, so that the comparison would not store the same.
    """

    def __init__(self, folder: Path) -> None:
        import qdrant_edge

        self._edge = qdrant_edge
        self._folder = folder
        self._shard: Any = None

    def create(self, dimension: int) -> None:
        edge = self._edge
        self.close()
        self._folder.mkdir(parents=True)
        sparse = {
            "sparse": edge.EdgeSparseVectorParams(),
            "text": edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf),
        }
        dense = {"dense": edge.EdgeVectorParams(size=dimension, distance=edge.Distance.Cosine)}
        # As in our adapter: no graph for so few vectors.
        optimizers = edge.EdgeOptimizersConfig(indexing_threshold=200_000)
        config = edge.EdgeConfig(vectors=dense, sparse_vectors=sparse, optimizers=optimizers)
        self._shard = edge.EdgeShard.create(str(self._folder), config)
        self._shard.update(edge.UpdateOperation.create_field_index("kind", edge.PayloadSchemaType.Keyword))

    def fill(self, records: Sequence[Record]) -> None:
        edge = self._edge
        number = 0
        for part in _parts(records):
            points = []
            for record in part:
                words = bm25.document_weights(record.payload["text"])
                vectors = {
                    "dense": record.vectors["dense"].tolist(),
                    "sparse": self._sparse(record.vectors["sparse"]),
                    "text": edge.SparseVector(list(words), list(words.values())),
                }
                points.append(edge.Point(number, vectors, {"id": record.id, **record.payload}))
                number += 1
            self._shard.update(edge.UpdateOperation.upsert_points(points))
        self._shard.optimize()
        self._shard.flush()

    def bulk_paths(self) -> Mapping[str, Fill]:
        return {"update": self.fill}

    def ask(self, leg: str, question: Question) -> Sequence[Any]:
        edge = self._edge
        if leg == "hybrid":
            prefetches = [edge.Prefetch(limit=DEPTH, query=self._query(each, question)) for each in ("dense", "sparse")]
            request = edge.QueryRequest(
                limit=LIMIT, prefetches=prefetches, query=edge.Fusion.Rrf(k=61), with_payload=True
            )
        else:
            request = edge.QueryRequest(limit=LIMIT, query=self._query(leg, question), with_payload=True)
        return list(self._shard.query(request))

    def _query(self, leg: str, question: Question) -> Any:
        nearest = self._edge.Query.Nearest
        if leg == "dense":
            return nearest(question.dense.tolist(), using=leg)
        return nearest(
            self._sparse(question.sparse if leg == "sparse" else bm25.query_vector(question.text)), using=leg
        )

    def _sparse(self, vector: SparseVector) -> Any:
        return self._edge.SparseVector(vector.indices.tolist(), vector.values.tolist())

    def close(self) -> None:
        if self._shard is not None:
            self._shard.close()
            self._shard = None
        shutil.rmtree(self._folder, ignore_errors=True)


class Local:
    """The local mode of qdrant-client. Words are weighted by our BM25, since the client's own needs fastembed."""

    def __init__(self) -> None:
        from qdrant_client import QdrantClient, models

        self._client, self._models = QdrantClient(":memory:"), models

    def create(self, dimension: int) -> None:
        models = self._models
        self._client.delete_collection(NAME)
        self._client.create_collection(
            NAME,
            vectors_config={"dense": models.VectorParams(size=dimension, distance=models.Distance.COSINE)},
            sparse_vectors_config={
                "sparse": models.SparseVectorParams(),
                "text": models.SparseVectorParams(modifier=models.Modifier.IDF),
            },
        )

    def _sparse(self, vector: SparseVector) -> Any:
        return self._models.SparseVector(indices=vector.indices.tolist(), values=vector.values.tolist())

    def fill(self, records: Sequence[Record]) -> None:
        points = (
            self._models.PointStruct(
                id=number,
                vector={
                    "dense": record.vectors["dense"].tolist(),
                    "sparse": self._sparse(record.vectors["sparse"]),
                    "text": self._sparse(bm25.document_vector(record.payload["text"])),
                },
                payload={"id": record.id, **record.payload},
            )
            for number, record in enumerate(records)
        )
        self._client.upload_points(NAME, points, batch_size=500, wait=True)

    def bulk_paths(self) -> Mapping[str, Fill]:
        return {"upload_points": self.fill}

    def ask(self, leg: str, question: Question) -> Sequence[Any]:
        models = self._models
        if leg == "hybrid":
            prefetch = [
                models.Prefetch(query=self._query(each, question), using=each, limit=DEPTH)
                for each in ("dense", "sparse")
            ]
            query: Any = models.RrfQuery(rrf=models.Rrf(k=61))
            return self._client.query_points(NAME, prefetch=prefetch, query=query, limit=LIMIT).points
        return self._client.query_points(NAME, query=self._query(leg, question), using=leg, limit=LIMIT).points

    def _query(self, leg: str, question: Question) -> Any:
        if leg == "dense":
            return question.dense.tolist()
        return self._sparse(question.sparse if leg == "sparse" else bm25.query_vector(question.text))

    def close(self) -> None:
        self._client.delete_collection(NAME)


class _Lucene:
    """The common part of the Elasticsearch and OpenSearch clients: only the vectors in documents and queries differ."""

    _client: Any
    _helpers: Any
    parallel = False

    def _actions(self, records: Iterable[Record], dense: Dense = np.ndarray.tolist) -> Iterator[dict[str, Any]]:
        for record in records:
            vectors = {"dense": dense(record.vectors["dense"]), "sparse": _tokens(record.vectors["sparse"])}
            yield {"_index": NAME, "_id": record.id, "_source": {**record.payload, **vectors}}

    def fill(self, records: Sequence[Record]) -> None:
        if self.parallel:
            self.fill_in_threads(4, 500, records)
        else:
            self._fill(BATCH, records)

    def bulk_paths(self) -> Mapping[str, Fill]:
        streaming = {f"streaming_bulk, {size} each": partial(self._fill, size) for size in (250, 500, BATCH)}
        return streaming | {
            f"parallel_bulk, {threads} threads, {size} each": partial(self.fill_in_threads, threads, size)
            for threads in (2, 4)
            for size in (250, 500)
        }

    def _fill(self, size: int, records: Sequence[Record], dense: Dense = np.ndarray.tolist) -> None:
        self._finish(self._helpers.streaming_bulk(self._client, self._actions(records, dense), chunk_size=size))

    def fill_in_threads(
        self, threads: int, size: int, records: Iterable[Record], dense: Dense = np.ndarray.tolist
    ) -> None:
        """Store records, which are read as they are needed, through ``parallel_bulk``."""
        actions = self._actions(records, dense)
        self._finish(self._helpers.parallel_bulk(self._client, actions, thread_count=threads, chunk_size=size))

    def _finish(self, done: Iterable[tuple[bool, Any]]) -> None:
        for good, item in done:
            if not good:
                raise RuntimeError(f"record not written: {item}")
        self._client.indices.refresh(index=NAME)

    def _properties(self, dense: dict[str, Any], sparse: dict[str, Any]) -> dict[str, Any]:
        fields = {"dense": dense, "sparse": sparse, "text": {"type": "text"}, "kind": {"type": "keyword"}}
        return {"dynamic": False, "properties": fields}

    def ask(self, leg: str, question: Question) -> Sequence[Any]:
        if leg != "hybrid":
            answer = self._client.search(index=NAME, **self._given(self._body(leg, question, LIMIT)))
            return list(answer["hits"]["hits"])
        lines = [line for each in ("dense", "sparse") for line in ({}, self._body(each, question, DEPTH))]
        # Fusion is left out: the client has no call for it.
        answers = self._msearch(lines)["responses"]
        return [hit for answer in answers for hit in answer["hits"]["hits"]]

    def _body(self, leg: str, question: Question, limit: int) -> dict[str, Any]:
        query = {"match": {"text": question.text}} if leg == "text" else self._vector_query(leg, question, limit)
        return {"query": query, "size": limit, "_source": {"excludes": ["dense", "sparse"]}, "track_total_hits": False}

    def _vector_query(self, leg: str, question: Question, limit: int) -> dict[str, Any]:
        raise NotImplementedError

    def _given(self, body: dict[str, Any]) -> dict[str, Any]:
        raise NotImplementedError

    def _msearch(self, lines: list[dict[str, Any]]) -> Any:
        raise NotImplementedError

    def close(self) -> None:
        self._client.indices.delete(index=NAME, ignore_unavailable=True)


class Elastic(_Lucene):
    """elasticsearch-py. Vectors are part of the source, as in our adapter, so that they can be read back exactly."""

    def __init__(self, url: str) -> None:
        from elasticsearch import Elasticsearch, helpers

        self._client, self._helpers = Elasticsearch(url), helpers

    def create(self, dimension: int) -> None:
        self.close()
        graph = {"type": "hnsw", "m": 16, "ef_construction": 100}
        dense = {"type": "dense_vector", "dims": dimension, "similarity": "cosine", "index_options": graph}
        sparse = {"type": "sparse_vector", "index_options": {"prune": False}}
        settings = {"index": {"mapping": {"exclude_source_vectors": False}}}
        self._client.indices.create(index=NAME, settings=settings, mappings=self._properties(dense, sparse))

    def bulk_paths(self) -> Mapping[str, Fill]:
        """Return also those with vectors as base64, which Elasticsearch accepts from 9.3 on."""
        pack = self._helpers.pack_dense_vector
        return {
            **super().bulk_paths(),
            "streaming_bulk, 500 each, base64": partial(self._fill, 500, dense=pack),
            "parallel_bulk, 2 threads, 500 each, base64": partial(self.fill_in_threads, 2, 500, dense=pack),
            "parallel_bulk, 4 threads, 500 each, base64": partial(self.fill_in_threads, 4, 500, dense=pack),
        }

    def _vector_query(self, leg: str, question: Question, limit: int) -> dict[str, Any]:
        if leg == "sparse":
            return {"sparse_vector": {"field": "sparse", "query_vector": _tokens(question.sparse)}}
        vector = question.dense.tolist()
        candidates = max(100, 2 * limit)
        return {"knn": {"field": "dense", "query_vector": vector, "k": limit, "num_candidates": candidates}}

    def _given(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"source" if key == "_source" else key: value for key, value in body.items()}

    def _msearch(self, lines: list[dict[str, Any]]) -> Any:
        return self._client.msearch(index=NAME, searches=lines)


class Open(_Lucene):
    """opensearch-py."""

    def __init__(self, url: str) -> None:
        from opensearchpy import OpenSearch, helpers

        parts = urlsplit(url)
        self._client, self._helpers = OpenSearch([{"host": parts.hostname, "port": parts.port}], timeout=60), helpers

    def create(self, dimension: int) -> None:
        self.close()
        graph = {"m": 16, "ef_construction": 100}
        method = {"name": "hnsw", "engine": "lucene", "space_type": "cosinesimil", "parameters": graph}
        dense = {"type": "knn_vector", "dimension": dimension, "method": method}
        mappings = self._properties(dense, {"type": "rank_features"})
        self._client.indices.create(index=NAME, body={"settings": {"index": {"knn": True}}, "mappings": mappings})

    def _vector_query(self, leg: str, question: Question, limit: int) -> dict[str, Any]:
        if leg == "sparse":
            return {"neural_sparse": {"sparse": {"query_tokens": _tokens(question.sparse)}}}
        return {"knn": {"dense": {"vector": question.dense.tolist(), "k": max(100, 2 * limit)}}}

    def _given(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"body": body}

    def _msearch(self, lines: list[dict[str, Any]]) -> Any:
        return self._client.msearch(index=NAME, body=lines)


class Milvus:
    """pymilvus on Milvus Lite, with the BM25 function for words."""

    def __init__(self, path: Path) -> None:
        from pymilvus import MilvusClient

        path.parent.mkdir(parents=True, exist_ok=True)
        self._client = MilvusClient(str(path))

    def create(self, dimension: int) -> None:
        from pymilvus import DataType, Function, FunctionType

        client = self._client
        self.drop()
        shape = client.create_schema(auto_id=False, enable_dynamic_field=False)
        shape.add_field("id", DataType.VARCHAR, is_primary=True, max_length=512)
        shape.add_field("dense", DataType.FLOAT_VECTOR, dim=dimension)
        shape.add_field("sparse", DataType.SPARSE_FLOAT_VECTOR)
        shape.add_field("text", DataType.VARCHAR, max_length=65_535, enable_analyzer=True)
        shape.add_field("words", DataType.SPARSE_FLOAT_VECTOR)
        shape.add_field("kind", DataType.VARCHAR, max_length=512)
        shape.add_field("payload", DataType.JSON)
        shape.add_function(Function("bm25", FunctionType.BM25, ["text"], ["words"]))
        params = client.prepare_index_params()
        params.add_index("dense", index_type="FLAT", metric_type="COSINE")
        inverted = {"inverted_index_algo": "DAAT_MAXSCORE"}
        params.add_index("sparse", index_type="SPARSE_INVERTED_INDEX", metric_type="IP", params=inverted)
        params.add_index("words", index_type="SPARSE_INVERTED_INDEX", metric_type="BM25", params=inverted)
        client.create_collection(NAME, schema=shape, index_params=params)
        client.load_collection(NAME)

    def fill(self, records: Sequence[Record]) -> None:
        self._fill(self._client.upsert, BATCH, records)

    def bulk_paths(self) -> Mapping[str, Fill]:
        methods = {"insert": self._client.insert, "upsert": self._client.upsert}
        return {
            f"{name}, {size} each": partial(self._fill, method, size)
            for name, method in methods.items()
            for size in (500, BATCH)
        }

    def _fill(self, method: Callable[..., object], size: int, records: Sequence[Record]) -> None:
        for part in _parts(records, size):
            rows = [
                {
                    "id": record.id,
                    "dense": record.vectors["dense"].tolist(),
                    "sparse": record.vectors["sparse"].to_mapping(),
                    "text": record.payload["text"],
                    "kind": record.payload["kind"],
                    "payload": dict(record.payload),
                }
                for record in part
            ]
            method(NAME, rows)
        self._client.flush(NAME)

    def ask(self, leg: str, question: Question) -> Sequence[Any]:
        if leg == "hybrid":
            from pymilvus import AnnSearchRequest, RRFRanker

            requests = [
                AnnSearchRequest([data], each, {"metric_type": metric, "params": {}}, limit=DEPTH)
                for each in ("dense", "sparse")
                for data, _, metric in [self._leg(each, question)]
            ]
            fused = self._client.hybrid_search(NAME, requests, RRFRanker(60), limit=LIMIT, output_fields=["payload"])
            return list(fused[0])
        data, column, metric = self._leg(leg, question)
        params = {"metric_type": metric, "params": {}}
        hits = self._client.search(
            NAME, [data], anns_field=column, search_params=params, limit=LIMIT, output_fields=["payload"]
        )
        return list(hits[0])

    def _leg(self, leg: str, question: Question) -> tuple[Any, str, str]:
        match leg:
            case "dense":
                return question.dense.tolist(), "dense", "COSINE"
            case "sparse":
                return question.sparse.to_mapping(), "sparse", "IP"
            case _:
                return question.text, "words", "BM25"

    def drop(self) -> None:
        if self._client.has_collection(NAME):
            self._client.drop_collection(NAME)

    def close(self) -> None:
        self.drop()
        self._client.close()


def timed(call: Any, *arguments: Any) -> float:
    """Return the seconds that a call takes."""
    began = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - began
