"""Copy a collection from store to store with its vectors; nothing is encoded again.

Records stream through a batch at a time, so that the size of the collection does not matter. A copy that was stopped is begun again: what is there
is replaced by the same, or with ``skip_existing`` compared and left alone.
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
from st_connectors.schema import Schema, schema_difference
from st_connectors.store import Capabilities, Record, Rejected, Store
from st_core.vectors import SparseVector

__all__ = ["content_hash", "copy", "same_place"]

BATCH_BYTES = 16 * 1024 * 1024
"""About what is read before it is written, however large single records are."""
MAX_REFUSED = 1000


def copy(
    source: Store,
    target: Store,
    *,
    skip_existing: bool = False,
    batch: int = 1000,
    progress: Progress | None = None,
) -> IngestReport:
    """Put every record of ``source`` into ``target``, which is made where it is not there; other records of the target stay.

    Ids and payloads come out equal, vectors bit for bit where the target keeps float32. ``skip_existing`` fetches what the target has under the
    same ids, a batch at a time, and writes only records that are missing or differ. Both are open stores; open the target with
    ``replace(source.schema, collection=name)``.

    The report counts what the target confirmed and what was ``skipped``. Raises SchemaMismatch where the target has another schema, IngestFailed where
    a store breaks and IngestInterrupted on Ctrl-C; the last two carry the report until then, and copying again finishes.
    """
    check_int(batch, 1, "batch")
    _check_schemas(source, target)
    target.create()
    tally = Tally(MAX_REFUSED)
    read = 0
    try:
        for records in _batches(source.scan(batch=batch), batch):
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
    """Whether two addresses lead to one store, in so far as their spelling tells: options and relative paths do not hide it."""
    one, other = parse_address(source), parse_address(target)
    if one.name != other.name or (one.host is None and one.variants != other.variants):
        return False
    if one.host is None and other.host is None:
        return os.path.realpath(one.path) == os.path.realpath(other.path)
    return (one.host, one.port, one.path.rstrip("/")) == (other.host, other.port, other.path.rstrip("/"))


def content_hash(record: Record) -> bytes:
    """A digest of the id, the payload with the order of its keys, and the bits of every vector; equal where two records are the same."""
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
        raise ValueError("source and target are one store: open another to copy into")
    asked = replace(source.schema, collection=target.schema.collection)
    difference = schema_difference(target.schema, asked)
    if difference:
        raise SchemaMismatch(difference, store="copy", operation="create")


def _batches(records: Iterable[Record], most: int) -> Iterator[list[Record]]:
    """Records in lists of up to ``most`` and about ``BATCH_BYTES``."""
    taken: list[Record] = []
    size = 0
    for record in records:
        taken.append(record)
        size += size_of(record)
        if len(taken) == most or size >= BATCH_BYTES:
            yield taken
            taken, size = [], 0
    if taken:
        yield taken


def _copy_batch(records: Sequence[Record], target: Store, read: int, *, skip_existing: bool) -> IngestReport:
    """Write a batch that begins at position ``read`` of the source and return its report."""
    wanted = _lacking(records, target) if skip_existing else list(range(len(records)))
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


def _lacking(records: Sequence[Record], target: Store) -> list[int]:
    """The positions of records that the target does not hold as they are."""
    schema, can = target.schema, target.capabilities
    held = {record.id: content_hash(record) for record in target.get([record.id for record in records])}
    return [at for at, record in enumerate(records) if held.get(record.id) != _asked_hash(record, schema, can)]


def _asked_hash(record: Record, schema: Schema, can: Capabilities) -> bytes:
    """The digest of a record as the target gets it; that of nothing for one that it refuses, which it is left to say."""
    try:
        return content_hash(check_record(record, schema, optional_vectors=can.optional_vectors))
    except (ValueError, TypeError):
        return b""
