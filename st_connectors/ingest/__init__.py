"""Encode documents in batches and store them; each document is confirmed by the store or reported as refused."""

from __future__ import annotations

from st_connectors.ingest.documents import Document, DocumentError, Place, choose_fields
from st_connectors.ingest.pipeline import IngestOptions, Progress, ingest
from st_connectors.ingest.report import IngestFailed, IngestInterrupted, IngestReport, Refusal
from st_connectors.ingest.windows import Spans

__all__ = [
    "Document",
    "DocumentError",
    "IngestFailed",
    "IngestInterrupted",
    "IngestOptions",
    "IngestReport",
    "Place",
    "Progress",
    "Refusal",
    "Spans",
    "choose_fields",
    "ingest",
]
