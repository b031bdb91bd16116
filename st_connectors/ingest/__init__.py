"""Ingest: documents are encoded in batches and stored; the store confirms each one, or it is reported as refused."""

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
