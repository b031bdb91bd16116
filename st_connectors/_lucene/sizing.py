"""What advice reckons with on both engines: sparse vectors and shards."""

from __future__ import annotations

from st_connectors.sizing import Sizing

__all__ = ["SIZING"]

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
"""The figures of Lucene; each engine adds its dense layouts."""
