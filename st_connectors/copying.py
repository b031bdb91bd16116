"""Copy a collection with its vectors from one store to another, without encoding texts again.

Records are streamed in batches, so that memory does not grow with the collection. To finish an interrupted copy, copy
again: existing records are replaced by equal ones, or compared and skipped with ``skip_existing``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import xxhash

from st_connectors.arguments import check_int
from st_connectors.errors import SchemaMismatch
from st_connectors.ingest import IngestFailed, IngestInterrupted, IngestReport, Progress, Refusal
from st_connectors.ingest.report import Tally
from st_connectors.layers.records import check_record, size_of
from st_connectors.registry import parse_address
from st_connectors.schema import Schema, alterations, schema_difference
from st_connectors.store import Capabilities, Record, Rejected, Store
from st_core.vectors import SparseVector

__all__ = ["batches", "content_hash", "copy", "same_place"]

BATCH_BYTES = 16 * 1024 * 1024
"""The approximate maximum size of a batch in bytes."""
MAX_REFUSED = 1000


def copy(
    source: Store,
    target: Store,
    *,
    skip_existing: bool = False,
    batch: int = 1000,
    progress: Progress | None = None,
) -> IngestReport:
    """Copy every record of ``source`` to ``target``, which is created if it does not exist.

    Other records of the target stay unchanged. Both arguments are open stores; open the target with
    ``replace(source.schema, collection=name)``, to which filterable fields may be added, and in which fusion and
    quantization may differ; a record with a value of another kind in a further filterable field is refused. The copies
    have equal ids and payloads; their vectors are equal bit for bit if the target stores float32. ``skip_existing``
    reads the records of the target with the same ids, batch by batch, and writes only records that are missing or
    differ.

    The report counts the records that the target confirmed and those that were ``skipped``. Raises SchemaMismatch if
    the target has another schema, IngestFailed if a store fails, and IngestInterrupted on Ctrl-C; the last two contain
    the report up to that point, and another copy completes the target.
    """
    batch = check_int(batch, 1, "batch")
    _check_schemas(source, target)
    target.create()
    tally = Tally(MAX_REFUSED)
    read = 0
    try:
        for records in batches(source.scan(batch=batch), batch):
            tally.add(_copy_batch(records, target, read, skip_existing=skip_existing))
            read += len(records)
            if progress is not None:
                progress(tally.report())
        target.refresh()
    except KeyboardInterrupt as error:
        raise IngestInterrupted(tally.report()) from error
    except Exception as error:
        raise IngestFailed(tally.report(), error) from error
    return tally.report()


def same_place(source: str, target: str) -> bool:
    """Return whether two addresses denote the same store; options are ignored, and relative paths are resolved."""
    one, other = parse_address(source), parse_address(target)
    if one.name != other.name or (one.host is None and one.variants != other.variants):
        return False
    if one.host is None and other.host is None:
        return os.path.realpath(one.path) == os.path.realpath(other.path)
    return (one.host, one.port, one.path.rstrip("/")) == (other.host, other.port, other.path.rstrip("/"))


def content_hash(record: Record) -> bytes:
    """Return a digest of the id, the payload including the order of its keys, and the bits of every vector."""
    digest = xxhash.xxh3_128(record.id.encode())
    digest.update(b"\0" + json.dumps(record.payload, ensure_ascii=False, separators=(",", ":")).encode())
    for name, vector in sorted(record.vectors.items()):
        digest.update(b"\0" + name.encode() + b"\0")
        if isinstance(vector, SparseVector):
            digest.update(vector.indices.tobytes() + vector.values.tobytes())
        else:
            digest.update(np.ascontiguousarray(vector, dtype=np.float32).tobytes())
    return digest.digest()


def _check_schemas(source: Store, target: Store) -> None:
    if source is target:
        raise ValueError("source and target are the same store; open another target")
    stored, requested = _without_reranker(source.schema), _without_reranker(target.schema)
    expected = replace(stored, collection=requested.collection, migration=requested.migration)
    difference = schema_difference(requested, _with_alterations(expected, requested))
    if difference:
        raise SchemaMismatch(difference, store="copy", operation="create")


def _without_reranker(schema: Schema) -> Schema:
    """Return the schema with the models of its fields only, because no vector depends on the reranker."""
    return replace(schema, models={name: ref for name, ref in schema.models.items() if name in schema.fields})


def _with_alterations(schema: Schema, target: Schema) -> Schema:
    """Return the schema with what a copy may change: further filterable fields, and quantization."""
    changed = alterations(schema, target)
    return replace(
        schema,
        filterable=target.filterable if "filterable" in changed else schema.filterable,
        fields=target.fields if "quantization" in changed else schema.fields,
    )


def batches(records: Iterable[Record], count: int) -> Iterator[list[Record]]:
    """Yield lists of up to ``count`` records and about ``BATCH_BYTES`` bytes."""
    batch: list[Record] = []
    size = 0
    for record in records:
        batch.append(record)
        size += size_of(record)
        if len(batch) == count or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _copy_batch(records: Sequence[Record], target: Store, read: int, *, skip_existing: bool) -> IngestReport:
    """Write a batch that starts at position ``read`` of the source, and return the report of the batch."""
    wanted = _differing(records, target) if skip_existing else list(range(len(records)))
    rejected = target.upsert([records[at] for at in wanted]) if wanted else []
    confirmed = len(wanted) - len(rejected)
    return IngestReport(
        read=len(records),
        confirmed=confirmed,
        records=confirmed,
        refused=tuple(_refuse(item, records, wanted[item.position], read) for item in rejected),
        refused_total=len(rejected),
        skipped=len(records) - len(wanted),
    )


def _refuse(item: Rejected, records: Sequence[Record], at: int, read: int) -> Refusal:
    return Refusal(read + at, item.id, item.error.message, type(item.error), None, records[at])


def _differing(records: Sequence[Record], target: Store) -> list[int]:
    """Return the positions of records that are missing in the target or differ from those of the target."""
    schema, capabilities = target.schema, target.capabilities
    stored = {record.id: content_hash(record) for record in target.get([record.id for record in records])}
    return [
        at
        for at, record in enumerate(records)
        if stored.get(record.id) != _hash_as_stored(record, schema, capabilities)
    ]


def _hash_as_stored(record: Record, schema: Schema, capabilities: Capabilities) -> bytes:
    """Return the digest of a record as the target stores it, or b"" for a record that the target will refuse."""
    try:
        return content_hash(check_record(record, schema, optional_vectors=capabilities.optional_vectors))
    except (ValueError, TypeError):
        return b""
