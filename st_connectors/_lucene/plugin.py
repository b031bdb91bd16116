"""The plugin entry of both engines: capabilities, sizing figures, and functions that import the client on first use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from st_connectors.lazy import lazy_function
from st_connectors.plugin import Place, Plugin
from st_connectors.schema import Metric
from st_connectors.sizing import Sizing
from st_connectors.store import Capabilities, Precision

__all__ = ["CAPABILITIES", "LOADING", "SIZING", "lucene_plugin"]

LOADING: Mapping[str, str] = {"index.refresh_interval": "-1", "index.number_of_replicas": "0"}
"""The settings for bulk loading: no refresh every second, and no replicas, which the server creates afterwards."""

CAPABILITIES = Capabilities(
    metrics=frozenset(Metric),
    sparse=True,
    text=True,
    optional_vectors=True,
    filters=frozenset({"eq", "in", "range", "exists", "and", "or", "not"}),
    efforts=frozenset({"exact", "default", "candidates"}),
    persistent=True,
    partial_failure=True,
    max_batch=1000,
    # A server accepts 100 MB (http.max_content_length). Texts and filterable values are sent twice, and payloads are
    # escaped.
    max_bytes=15_000_000,
    max_limit=10_000,  # index.max_result_window, and the upper bound for candidates of a knn query
    bulk_loading=frozenset(LOADING),
    fields={
        "dense": Precision(exact=True, score_rtol=1e-5),
        # Lucene truncates a weight to nine significant bits: a relative error of 2 ** -8 at most.
        "sparse": Precision(score_rtol=0.004),
        "text": Precision(score_rtol=1e-5),
    },
    alterable=frozenset({"models", "fusion", "filterable"}),
    alterable_by_copy=frozenset({"fusion", "filterable", "quantization"}),
    # A server indexes a request to a shard in one thread. On a node that shares two cores with the ingest, medians of
    # bench.sinks --writers were 1,421, 1,723, 2,106 and 1,719 records/s with 1 to 4 writers on OpenSearch 2.19, and
    # 1,589, 1,817, 1,868 and 1,951 on Elasticsearch 9.5; their ranges overlap from 2 on.
    writers=2,
)
"""The capabilities that both engines share; each engine adds its dimensions, fusion and quantizations."""

SIZING = Sizing(
    dense=(),
    sparse_entry=8,
    sparse_source="a bound: Lucene packs a document number and the 17 upper bits of a weight for each",
    sparse_in_memory=False,
    shard_documents=200_000_000,
    shard_bytes=50_000_000_000,
    shard_source="Elasticsearch, Size your shards",
    shard_option="shards",
)
"""The sizing figures of Lucene; each engine adds its dense layouts."""


def lucene_plugin(
    name: str,
    drivers: Sequence[str],
    capabilities: Capabilities,
    sizing: Sizing,
    secrets: Sequence[str] = ("USERNAME", "PASSWORD"),
) -> Plugin:
    """Return the plugin of an engine whose functions are in ``st_connectors.NAME.store``.

    ``secrets`` are the ends of the names of its environment variables, after ``ST_NAME_``.
    """
    function = partial(lazy_function, f"st_connectors.{name}.store", extra=name, drivers=drivers)
    return Plugin(
        name=name,
        extra=name,
        variants={
            "": f"a server over HTTP ({name}://host:9200)",
            "https": f"a server over TLS ({name}+https://host:9200)",
        },
        capabilities=capabilities,
        connect=function("connect"),
        collections=function("collections"),
        adopt=function("adopt"),
        loading=function("loading"),
        replacing=function("replacing"),
        sizing={"": sizing},
        places={"": Place.SERVER, "https": Place.SERVER},
        secrets=tuple(f"ST_{name.upper()}_{secret}" for secret in secrets),
    )
