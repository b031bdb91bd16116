"""Add vectors to the documents of writes, so that what is stored equals what ``Index.ingest`` stores."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from st_connectors._lucene.client import Connection, Request
from st_connectors._lucene.fields import FieldsLayout
from st_connectors._lucene.layout import AdoptedLayout, OwnLayout
from st_connectors._lucene.names import escape_field
from st_connectors._lucene.plain import ROOT
from st_connectors.errors import StoreError
from st_connectors.gateway.answers import ENCODING, Problem
from st_connectors.gateway.bulk import Item
from st_connectors.gateway.settings import OnFailure
from st_connectors.gateway.targets import Target
from st_connectors.ingest.documents import Document
from st_connectors.ingest.encode import Batch, encode_batch, prepare
from st_connectors.ingest.report import Refusal
from st_connectors.ingest.windows import Prepared
from st_connectors.layers.retry import NO_RETRY
from st_connectors.registry import wrapped
from st_connectors.schema import FieldKind
from st_connectors.server.faults import Fault, FaultKind
from st_connectors.store import Record
from st_connectors.vectorise import FieldEncoder
from st_core.errors import ModelError

__all__ = ["Outcome", "add_vectors"]

Outcome: TypeAlias = Item | Problem
"""An item as it is sent, or the reason for which it is not."""

DOCUMENT = "st_connectors_document_exception"


@dataclass(frozen=True, slots=True)
class _Slot:
    """A document of an item: of an ``update`` the part ``doc`` or ``upsert``, else the whole source.

    ``text`` is None for a part of a document without a text, which gets no vectors.
    """

    item: int
    part: str | None
    id: str
    payload: Mapping[str, Any]
    is_partial: bool = False
    has_text: bool = True


def add_vectors(target: Target, items: Sequence[Item]) -> list[Outcome]:
    """Return the items of one target with the vectors of their documents, in order; encodes their texts."""
    outcomes: list[Outcome] = []
    sources: list[dict[str, Any]] = []
    slots: list[_Slot] = []
    for number, item in enumerate(items):
        source: dict[str, Any] = {}
        try:
            item, source, own = _read(target, number, item)  # noqa: PLW2901 - the item with its id
            slots += own
            outcomes.append(item)
        except Problem as problem:
            outcomes.append(problem)
        sources.append(source)
    written = _written(target, slots)
    for slot, document in zip(slots, written, strict=True):
        outcome = outcomes[slot.item]
        if isinstance(outcome, Problem):
            continue
        if isinstance(document, Problem):
            outcomes[slot.item] = _without_vectors(target, outcome, document)
        elif slot.part is None:
            outcomes[slot.item] = replace(outcome, source=document + b"\n")
        else:
            sources[slot.item][slot.part] = json.loads(document)
            outcomes[slot.item] = replace(outcome, source=_dumped(sources[slot.item]))
    return outcomes


def _without_vectors(target: Target, item: Item, problem: Problem) -> Outcome:
    """Return what a rule says about an item whose text cannot be encoded."""
    is_stored = target.rule is not None and target.rule.on_failure is OnFailure.STORE and problem.kind == ENCODING
    return item if is_stored else problem


def _read(target: Target, number: int, item: Item) -> tuple[Item, dict[str, Any], list[_Slot]]:
    """Return an item with its id, its source, and its documents to encode; raises Problem for one without a text.

    What is not JSON is sent as it is: the engine answers it.
    """
    try:
        source = json.loads(item.source)
    except (ValueError, RecursionError):
        return item, {}, []
    if not isinstance(source, dict):
        return item, {}, []
    if item.action == "update":
        return item, source, _read_update(target, number, item, source)
    if _has_vectors(target, source):
        return item, source, []
    item = _identified(target, item, source)
    payload = _payload(target, item.id, source)
    if not _has_text(target, payload):
        return item, source, []
    return item, source, [_Slot(number, None, item.id or f"_{number}", payload)]


def _read_update(target: Target, number: int, item: Item, source: Mapping[str, Any]) -> list[_Slot]:
    """Return the documents of an update; scripts are sent as they are."""
    slots = []
    doc, upsert = source.get("doc"), source.get("upsert")
    identifier = item.id or f"_{number}"
    if isinstance(doc, dict) and not _has_vectors(target, doc):
        slots += _read_part(target, number, identifier, doc, is_whole=source.get("doc_as_upsert") is True)
    if isinstance(upsert, dict) and upsert and not _has_vectors(target, upsert):
        payload = _payload(target, item.id, upsert)
        if _has_text(target, payload):
            slots.append(_Slot(number, "upsert", identifier, payload))
    return slots


def _read_part(target: Target, number: int, identifier: str, doc: Mapping[str, Any], *, is_whole: bool) -> list[_Slot]:
    """Return the partial document of an update if it concerns vectors or their copies."""
    layout, key = target.store.layout, target.index.text_key
    if isinstance(layout, OwnLayout) and layout.is_private:
        reason = (
            "documents of this collection contain their payload as one string, which cannot be updated in part: "
            "index the complete document, or create the collection with payload=fields"
        )
        raise Problem(400, DOCUMENT, reason)
    payload = _payload(target, identifier, doc)
    has_text = payload.get(key) is not None
    if not has_text and is_whole:
        _has_text(target, payload)
    if not has_text and isinstance(layout, AdoptedLayout) and key not in payload:
        return []
    if has_text and not isinstance(payload[key], str):
        raise Problem(400, DOCUMENT, f"{key!r} must be a string, not {type(payload[key]).__name__}")
    return [_Slot(number, "doc", identifier, payload, is_partial=True, has_text=has_text)]


def _identified(target: Target, item: Item, source: Mapping[str, Any]) -> Item:
    """Return an item whose document contains its id with this id, a new one if it has none."""
    if isinstance(target.store.layout, AdoptedLayout) or item.id is not None:
        return item
    own = source.get("id")
    identifier = str(own) if isinstance(own, str | int) and own != "" else uuid.uuid4().hex
    metadata = {**item.metadata, "_id": identifier}
    return replace(item, id=identifier, metadata=metadata, line=_dumped({item.action: metadata}))


def _payload(target: Target, identifier: str | None, source: Mapping[str, Any]) -> dict[str, Any]:
    """Return the payload of a document, without the copy of its id that documents to ingest have."""
    if isinstance(target.store.layout, OwnLayout) and str(source.get("id")) == identifier:
        return {key: value for key, value in source.items() if key != "id"}
    return dict(source)


def _has_text(target: Target, payload: Mapping[str, Any]) -> bool:
    """Return whether a document has a text to encode; raises Problem unless a rule allows documents without."""
    key = target.index.text_key
    if payload.get(key) is not None:
        return True
    if target.rule is not None and target.rule.without_text is OnFailure.STORE:
        return False
    raise Problem(400, DOCUMENT, f"{key!r} is missing, so that the document would have no vectors")


def _has_vectors(target: Target, source: Mapping[str, Any]) -> bool:
    """Return whether a document is already in the form in which st-connectors stores it."""
    layout = target.store.layout
    if isinstance(layout, FieldsLayout):
        return ROOT in source
    if isinstance(layout, OwnLayout):
        return isinstance(source.get("payload"), str) and isinstance(source.get("vector", {}), dict) and "id" in source
    return all(_at(source, name) is not None for name in target.index.models)


def _at(source: Mapping[str, Any], path: str) -> Any:
    """Return the value at a path, None if there is none."""
    if path in source:
        return source[path]
    value: Any = source
    for step in path.split("."):
        value = value.get(step) if isinstance(value, Mapping) else None
    return value


def _written(target: Target, slots: Sequence[_Slot]) -> list[bytes | Problem]:
    """Return the documents of slots as they are stored."""
    records = _encoded(target, slots)
    results: list[bytes | Problem] = []
    for group in _distinct(records):
        results += _sources(target, group)
    return [_partial(target, slot, result) for slot, result in zip(slots, results, strict=True)]


def _encoded(target: Target, slots: Sequence[_Slot]) -> list[Record | Problem]:
    """Return the records of slots; a text that cannot be encoded fails alone."""
    key = target.index.text_key
    records: list[Record | Problem] = [Record(slot.id, {}, slot.payload) for slot in slots]
    ready: list[Prepared] = []
    for number, slot in enumerate(slots):
        if not slot.has_text:
            continue
        text = slot.payload[key]
        read = prepare(number, Document(slot.id, text, slot.payload), key, None)
        if isinstance(read, Refusal):
            records[number] = Problem(400, DOCUMENT, read.reason)
        else:
            ready.append(read)
    try:
        batch = encode_batch(Batch(tuple(ready), (), 0, len(slots)), _encoders(target))
    except (Fault, ModelError, StoreError, OSError, ImportError, ValueError, RuntimeError) as error:
        return [_failure(error) if slot.has_text else record for slot, record in zip(slots, records, strict=True)]
    for prepared, record in zip(batch.documents, batch.records, strict=True):
        records[prepared.position] = record
    for refusal in batch.refused:
        records[refusal.position] = Problem(400, ENCODING, refusal.reason)
    return records


def _encoders(target: Target) -> list[FieldEncoder]:
    return [
        FieldEncoder(name, FieldKind(model.kind.value), model.load()) for name, model in target.index.models.items()
    ]


def _failure(error: Exception) -> Problem:
    """Return the reason for which no text of a request can be encoded; a full queue may be tried again."""
    is_full = isinstance(error, Fault) and error.kind is FaultKind.OVERLOADED
    return Problem(429 if is_full else 503, ENCODING, str(error) or type(error).__name__)


def _distinct(records: Sequence[Record | Problem]) -> Iterator[list[Record | Problem]]:
    """Yield records in groups of distinct ids, because of equal ones a store writes only the last."""
    group: list[Record | Problem] = []
    ids: set[str] = set()
    for record in records:
        if isinstance(record, Record) and record.id in ids:
            yield group
            group, ids = [], set()
        group.append(record)
        ids |= {record.id} if isinstance(record, Record) else set()
    if group:
        yield group


def _sources(target: Target, records: Sequence[Record | Problem]) -> list[bytes | Problem]:
    """Return the documents that the store of a target would send for records."""
    results: list[bytes | Problem] = [each if isinstance(each, Problem) else b"" for each in records]
    places = [number for number, each in enumerate(records) if isinstance(each, Record)]
    sent: list[bytes] = []

    def capture(request: Request) -> Any:
        lines = [each for each in request.lines if isinstance(each, bytes)]
        sent.extend(lines[1::2])
        return {"errors": False, "items": [{"index": {"status": 200}}] * (len(lines) // 2)}

    connection = Connection(target.name, target.name, capture, lambda: None, sends_smile=False)
    store = wrapped(target.store.on_connection(connection), name="gateway", retry=NO_RETRY)
    rejected = store.upsert([each for each in records if isinstance(each, Record)])
    for each in rejected:
        results[places[each.position]] = Problem(400, DOCUMENT, each.error.message)
    accepted = [number for number in places if not isinstance(results[number], Problem)]
    for number, document in zip(accepted, sent, strict=True):
        results[number] = document
    return results


def _partial(target: Target, slot: _Slot, document: bytes | Problem) -> bytes | Problem:
    """Return a document as it is sent; of a partial one only what it changes."""
    if isinstance(document, Problem) or not slot.is_partial:
        return document
    source = json.loads(document)
    layout = target.store.layout
    if isinstance(layout, FieldsLayout):
        return _partial_fields(target, layout, slot, source)
    if not slot.has_text:
        source |= dict.fromkeys(target.index.models)
    return _dumped(source)


def _partial_fields(target: Target, layout: FieldsLayout, slot: _Slot, source: dict[str, Any]) -> bytes | Problem:
    """Return a partial document of a collection with ``payload=fields``, with the copies of what it changes."""
    system = source[ROOT]
    if hidden := json.loads(system.pop("exact", "{}")).get("hidden"):
        return Problem(400, DOCUMENT, f"{min(hidden)!r} cannot be a field, and so not be updated: index the document")
    named = [name for name in layout.filterable if name.partition(".")[0] in slot.payload]
    copies = dict.fromkeys(map(escape_field, named)) | system.get("filter", {})
    system |= {"filter": copies} if copies else {}
    if slot.payload.get(target.index.text_key, "") is None:
        system["vector"] = dict.fromkeys(map(escape_field, target.index.models))
    return _dumped(source)


def _dumped(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"
