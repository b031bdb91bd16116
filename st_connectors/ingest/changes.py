"""Compare documents with stored records, so that a sync encodes and writes only what has changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum

from st_connectors.chunks import CHUNK_KEY, SYNC_KEY
from st_connectors.ingest.contents import Content, content_of, rest_hash, with_content
from st_connectors.ingest.documents import Document
from st_connectors.ingest.encode import Batch
from st_connectors.ingest.report import Refusal
from st_connectors.ingest.seen import SeenIds
from st_connectors.ingest.windows import Prepared
from st_connectors.store import MAX_ID_BYTES, Parts, Record, Store

__all__ = ["Change", "DocumentComparison"]


class Change(StrEnum):
    """How a document differs from its stored records."""

    NEW = "new"
    TEXT = "text changed"
    PAYLOAD = "payload changed"
    NONE = "unchanged"


class DocumentComparison:
    """Compare the batches of one sync with a collection; for use in one thread.

    ``ids`` are the ids of the source, refused documents included, and ``unidentified`` is the last refused document
    without a known id.
    """

    def __init__(self, store: Store, text_key: str, models: str, *, are_models_recorded: bool) -> None:
        """Store the arguments.

        ``models`` identifies the models that encode. ``are_models_recorded`` states whether the collection records
        the same models, so that the vectors of records without hashes are theirs.
        """
        self.ids = SeenIds()
        self.unidentified: Refusal | None = None
        self._store = store
        self._text_key = text_key
        self._models = models
        self._are_models_recorded = are_models_recorded

    def __call__(self, batch: Batch) -> Batch:
        """Return the batch without unchanged documents, with the hashes of all others in their payloads.

        Documents of which only the payload has changed receive their stored vectors.
        """
        changes = self.classify(batch)
        renewed = self._renew([item for item in batch.documents if changes[item.position] is Change.PAYLOAD])
        self.add(batch)  # after all lookups, since a comparison is repeated after a temporary error
        documents = tuple(self._mark(item) for item in batch.documents if changes[item.position] is not Change.NONE)
        records = {
            item.position: tuple(
                replace(record, payload=window.payload)
                for record, window in zip(renewed[item.position], item.windows, strict=True)
            )
            for item in documents
            if item.position in renewed
        }
        return replace(batch, documents=documents, renewed=records, unchanged=len(batch.documents) - len(documents))

    def classify(self, batch: Batch) -> dict[int, Change]:
        """Return by position how each document differs from the collection; ``add`` follows before the next batch.

        The ids of a batch are distinct. Only the first document with an id is compared; later ones count as changed,
        because the stored records may be those of another one that is not written yet.
        """
        stored = self._look_up(window.id for item in batch.documents for window in item.windows)
        are_repeated = self.ids.contains([item.document.id for item in batch.documents])
        return {
            item.position: self._change_of(item, stored, is_repeated=is_repeated)
            for item, is_repeated in zip(batch.documents, are_repeated, strict=True)
        }

    def add(self, batch: Batch) -> None:
        """Add the ids of a batch that was compared."""
        self.ids.add([item.document.id for item in batch.documents])
        self.ids.add([refusal.id for refusal in batch.refused if refusal.id])
        for refusal in batch.refused:
            if not refusal.id:
                self.unidentified = refusal

    def _look_up(self, ids: Iterable[str], parts: Parts = Parts.PAYLOAD) -> dict[str, Record]:
        names = [each for each in dict.fromkeys(ids) if len(each.encode()) <= MAX_ID_BYTES]
        return {record.id: record for record in self._store.get(names, parts=parts)} if names else {}

    def _change_of(self, item: Prepared, stored: Mapping[str, Record], *, is_repeated: bool) -> Change:
        records = [stored.get(window.id) for window in item.windows]
        content = self._content_of(item)
        if records[0] is None:
            return Change.NEW
        if is_repeated or content is None:
            return Change.TEXT
        pairs = [
            (False, False) if record is None else self._equal(record, window, content)
            for record, window in zip(records, item.windows, strict=True)
        ]
        if not all(is_text_equal for is_text_equal, _ in pairs):
            return Change.TEXT
        return Change.NONE if all(is_rest_equal for _, is_rest_equal in pairs) else Change.PAYLOAD

    def _equal(self, record: Record, window: Document, content: Content) -> tuple[bool, bool]:
        """Return whether a record has the vectors of a window, and whether it has the rest of its payload.

        The payload of a record without hashes is compared itself.
        """
        entry = record.payload.get(SYNC_KEY)
        if isinstance(entry, Mapping):
            return entry.get("text") == content.text, entry.get("payload") == content.payload
        keys = (self._text_key, CHUNK_KEY)
        is_text_equal = all(record.payload.get(key) == window.payload.get(key) for key in keys)
        is_rest_equal = rest_hash(record.payload, self._text_key) == content.payload
        return is_text_equal and self._are_models_recorded, is_rest_equal

    def _renew(self, documents: Sequence[Prepared]) -> dict[int, tuple[Record, ...]]:
        """Return the stored records of documents with their vectors, by position, of those that still have all."""
        stored = self._look_up((window.id for item in documents for window in item.windows), Parts.VECTORS)
        complete = {item.position: [stored.get(window.id) for window in item.windows] for item in documents}
        return {
            position: tuple(record for record in records if record is not None)
            for position, records in complete.items()
            if None not in records
        }

    def _mark(self, item: Prepared) -> Prepared:
        content = self._content_of(item)
        return item if content is None else with_content(item, content)

    def _content_of(self, item: Prepared) -> Content | None:
        return content_of(item, self._store.schema, self._text_key, self._models)
