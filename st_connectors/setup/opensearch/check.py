"""Send a text through the pipelines of a set-up, and compare the vectors with those of the library."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlencode

from st_connectors.errors import NotFound, StoreError
from st_connectors.setup.comparing import SAMPLE, Finding, compare_dense, compare_sparse, library_vector
from st_connectors.setup.encoder import Encoder
from st_connectors.setup.opensearch.cluster import Cluster
from st_connectors.setup.opensearch.plan import Kind, Names, search_body
from st_connectors.setup.options import DENSE, SPARSE, Options

__all__ = ["check"]


def check(cluster: Cluster, options: Options, encoder: Encoder, address: str, key: str | None) -> Iterator[Finding]:
    """Yield a finding for the vectors of documents, those of queries, and a search; nothing is stored.

    ``address`` is that of the encoder server as seen from here. Raises NotFound if the set-up does not exist.
    """
    if cluster.existing(Kind.INDEX, options.collection, options.name) is None:
        message = f"there is no set-up {options.name!r} with an index {options.collection!r}: run setup without --check"
        raise NotFound(message, store="opensearch", operation="setup")
    if not options.is_semantic:
        yield from _documents(cluster, options, encoder, address, key)
    yield from _queries(cluster, options, encoder, address, key)
    yield from _searches(cluster, options, encoder)


def _documents(
    cluster: Cluster, options: Options, encoder: Encoder, address: str, key: str | None
) -> Iterator[Finding]:
    document = {"_index": options.collection, "_id": "check", "_source": {options.text: SAMPLE}}
    path = f"/_ingest/pipeline/{Names(options.name).ingest}/_simulate"
    [outcome] = cluster.send("POST", path, {"docs": [document]})["docs"]
    if "doc" not in outcome:
        yield Finding("documents", problem=_reason(outcome.get("error")))
        return
    source = outcome["doc"]["_source"]
    if encoder.dense is not None:
        expected = library_vector(encoder.dense, address, key, SAMPLE, "document")
        yield compare_dense("dense vectors of documents", source.get(DENSE), expected)
    if encoder.sparse is not None:
        expected = library_vector(encoder.sparse, address, key, SAMPLE, "document")
        yield compare_sparse("sparse vectors of documents", source.get(SPARSE), expected)


def _reason(error: Any) -> str:
    """Return the innermost reason of an error."""
    while isinstance(error, Mapping) and isinstance(error.get("caused_by"), Mapping):
        error = error["caused_by"]
    return str(error.get("reason") if isinstance(error, Mapping) else error)


def _queries(cluster: Cluster, options: Options, encoder: Encoder, address: str, key: str | None) -> Iterator[Finding]:
    if encoder.dense is not None:
        output = _predict(cluster, options, "dense-query", "text_embedding")
        expected = library_vector(encoder.dense, address, key, SAMPLE, "query")
        yield compare_dense("dense vectors of queries", output.get("data"), expected)
    if encoder.sparse is not None:
        output = _predict(cluster, options, "sparse-query", "sparse_encoding")
        expected = library_vector(encoder.sparse, address, key, SAMPLE, "query")
        [weights] = output.get("dataAsMap", {}).get("response") or [None]
        yield compare_sparse("sparse vectors of queries", weights, expected)


def _predict(cluster: Cluster, options: Options, part: str, algorithm: str) -> Mapping[str, Any]:
    name = f"{options.name}-{part}"
    model = cluster.existing(Kind.MODEL, name, options.name)
    if model is None:
        raise NotFound(f"there is no model {name!r}: run setup again", store="opensearch", operation="setup")
    answer = cluster.send("POST", f"/_plugins/_ml/_predict/{algorithm}/{model.id}", {"text_docs": [SAMPLE]})
    output: Mapping[str, Any] = answer["inference_results"][0]["output"][0]
    return output


def _searches(cluster: Cluster, options: Options, encoder: Encoder) -> Iterator[Finding]:
    names = Names(options.name)
    pipeline = names.search if encoder.reranker is None else names.rerank
    path = f"/{options.collection}/_search?{urlencode({'search_pipeline': pipeline})}"
    try:
        cluster.send("POST", path, search_body(options, encoder, SAMPLE, size=3))
    except StoreError as error:
        yield Finding("a search", problem=error.message)
    else:
        yield Finding("a search")
