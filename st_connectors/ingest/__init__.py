"""Documents to batches to vectors to a store, with nothing lost and nothing reported done that the store did not confirm."""

from __future__ import annotations

from st_connectors.ingest.documents import Document, DocumentError, choose_fields
from st_connectors.ingest.pipeline import IngestOptions, Progress, ingest
from st_connectors.ingest.prepare import Spans
from st_connectors.ingest.report import IngestFailed, IngestInterrupted, IngestReport, Refusal

__all__ = [
    "Document",
    "DocumentError",
    "IngestFailed",
    "IngestInterrupted",
    "IngestOptions",
    "IngestReport",
    "Progress",
    "Refusal",
    "Spans",
    "choose_fields",
    "ingest",
]
