"""Write datasets of Ray Data to a store from all nodes of a cluster; the extra ``ray`` installs Ray."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import closing, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from st_connectors.arguments import check_int
from st_connectors.ingest.arrow import ArrowLayout
from st_connectors.ingest.arrow_task import TaskWriter
from st_connectors.ingest.report import IngestFailed, IngestReport
from st_connectors.layers.retry import RetryPolicy
from st_connectors.plugin import Place
from st_connectors.registry import bulk_loading, open_store, parse_address, plugins
from st_connectors.schema import Schema
from st_core.errors import missing_extra

if TYPE_CHECKING:
    from st_connectors.ingest.ray_sink import StoreSink

__all__ = ["write_store"]


def write_store(
    dataset: Any,
    url: str,
    collection: str | Schema,
    layout: ArrowLayout | None = None,
    *,
    concurrency: int | None = None,
    dead_letters: str | os.PathLike[str] | None = None,
    bulk: bool = False,
    batch: int = 1000,
    max_refused: int = 1000,
    retry: RetryPolicy | None = None,
    ray_remote_args: Mapping[str, Any] | None = None,
) -> IngestReport:
    """Store the rows of a dataset, whose vectors are already encoded, and return the sum of the reports of all tasks.

    A schema is created by this process if the collection does not exist; a name is that of an existing collection. Each
    task opens its own store, with the environment of its node, and writes its blocks by
    :func:`st_connectors.ingest.arrow.write_arrow`; ``layout``, ``batch`` and ``max_refused`` are its arguments. At most
    ``concurrency`` tasks write at the same time. ``dead_letters`` is a folder, on a file system that all nodes share,
    in which each task writes its refused rows to a JSONL file. ``bulk`` applies the store's settings for bulk loading
    until the write ends.

    A task whose process or node dies runs again. No row is lost or stored twice, because rows replace stored records
    with the same id. The report counts ids that occur twice in one task only as ``replaced``.

    Raises ValueError for an embedded store, which other processes cannot use. Raises :class:`IngestFailed` with the
    report of the task that failed if a store fails; Ray's errors stay what they are. To go on after an error, write the
    same dataset again; with a ``CheckpointConfig``, Ray then skips the rows of tasks that were complete.
    """
    _check_shared(url)
    name = collection.collection if isinstance(collection, Schema) else collection
    schema = collection if isinstance(collection, Schema) else None
    size = check_int(batch, 1, "batch")
    sink = _sink(TaskWriter(url, name, layout or ArrowLayout(), size, max_refused, dead_letters, retry=retry))
    began = time.perf_counter()
    with closing(open_store(url, name, schema, retry=retry)) as store:
        if schema is not None:
            store.create()
        with bulk_loading(url, name) if bulk else nullcontext():
            _run(dataset, sink, concurrency, ray_remote_args)
        store.refresh()
    total = sum(sink.reports, IngestReport())
    return replace(total, refused=total.refused[:max_refused], seconds=time.perf_counter() - began)


def _sink(writer: TaskWriter) -> StoreSink:
    try:
        from st_connectors.ingest.ray_sink import StoreSink
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"ray", "pyarrow", "pandas"}:
            raise
        raise missing_extra("ray", "writing a dataset of Ray") from error
    return StoreSink(writer)


def _run(dataset: Any, sink: StoreSink, concurrency: int | None, ray_remote_args: Mapping[str, Any] | None) -> None:
    """Run the write; raise the IngestFailed of a task instead of the error that Ray puts around it."""
    try:
        dataset.write_datasink(sink, concurrency=concurrency, ray_remote_args=dict(ray_remote_args or {}))
    except Exception as error:
        failed = _failure_in(error)
        if failed is None:
            raise
        failed.args = (str(failed).partition("\n")[0],)  # Ray 2.60 appends advice on its own retries
        raise failed from error


def _failure_in(error: BaseException | None) -> IngestFailed | None:
    """Return the IngestFailed that an error of Ray wraps, if any."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if type(error) is IngestFailed:
            return error
        error = getattr(error, "cause", None) or error.__cause__
    return None


def _check_shared(url: str) -> None:
    """Raise ValueError unless other processes can use the store at an address."""
    address = parse_address(url)
    places = plugins()[address.name].places
    place = next((places[variant] for variant in address.variants or ("",) if variant in places), None)
    if place in {Place.PATH, Place.NAME}:
        raise ValueError(
            f"{address.scheme}: is used by one process at a time, and the tasks of Ray are several: name a server"
        )
