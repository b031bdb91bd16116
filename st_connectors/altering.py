"""Change a collection by a copy that then takes its place, for what its store cannot change in place.

Nothing is encoded again: the copy has the stored vectors and payloads.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from st_connectors.copying import copy
from st_connectors.errors import Refused, Unsupported
from st_connectors.registry import open_store, replacing
from st_connectors.schema import Schema, alterations

if TYPE_CHECKING:
    from st_connectors.ingest import IngestReport, Progress
    from st_connectors.layers.retry import RetryPolicy
    from st_connectors.store import Capabilities, Store

__all__ = ["alter_by_copy", "needs_copy"]


def needs_copy(schema: Schema, requested: Schema, capabilities: Capabilities) -> bool:
    """Return whether a change is possible by copy, and not in place."""
    changed = alterations(schema, requested)
    return not changed <= capabilities.alterable and changed <= capabilities.alterable_by_copy | capabilities.alterable


def alter_by_copy(
    url: str,
    schema: Schema,
    *,
    client: object | None = None,
    retry: RetryPolicy | None = None,
    batch: int = 1000,
    progress: Progress | None = None,
) -> IngestReport:
    """Copy a collection with its vectors into a new one with another schema, which then takes its place at once.

    ``schema`` differs from the stored one only in what ``Capabilities.alterable_by_copy`` lists, and in the reranker.
    Options of the address for new collections apply to the copy, which otherwise has those of the collection.

    Until the copy is complete, searches use the collection as it was. Writes are refused meanwhile, so that none is
    lost. The copy takes its place only if it has every record: if the server refuses one, ``Refused`` is raised. After
    an error or Ctrl-C the copy is deleted and writes are accepted again. If the process is killed, writes stay refused
    until the same call is made again; it starts over. If the answer to the request that puts the copy in place is lost,
    nothing is deleted, and ``Unavailable`` says that the outcome is unknown. Programs that have the collection open
    must open it again.

    Raises ``Unsupported`` for a change that needs other vectors and for stores without copies, and what
    :func:`st_connectors.copying.copy` raises.
    """
    with closing(open_store(url, schema.collection, client=client, retry=retry)) as source:
        _check(source, schema)
        with replacing(url, schema.collection, schema, client=client, retry=retry) as replacement:
            report = copy(source, replacement.store, batch=batch, progress=progress)
            _check_complete(report, source, replacement.store)
            replacement.put_in_place()
    return report


def _check(source: Store, schema: Schema) -> None:
    allowed = source.capabilities.alterable_by_copy | {"models"}
    if fixed := alterations(source.schema, schema) - allowed:
        message = f"a copy with the stored vectors cannot change the {' and '.join(sorted(fixed))}"
        hint = "create another collection, or copy it under another name (st-connectors copy --into NAME)"
        raise Unsupported(f"{message} of {schema.collection!r}; {hint}", store="alter", operation="alter")


def _check_complete(report: IngestReport, source: Store, target: Store) -> None:
    """Raise ``Refused`` unless the copy has every record."""
    if report.refused_total:
        first = report.refused[0]
        message = f"the copy was given up, and nothing changed: record {first.id!r} cannot be copied: {first.reason}"
        raise Refused(message, store="alter", operation="alter")
    expected, found = source.count(), target.count()
    if expected != found:
        message = f"the copy was given up, and nothing changed: it has {found:,} records, not {expected:,}"
        raise Refused(message, store="alter", operation="alter")
