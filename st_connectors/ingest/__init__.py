"""Encode documents in batches and store them; each document is confirmed by the store or reported as refused."""

from __future__ import annotations

from st_connectors.ingest.dead_letters import DeadLetterError, DeadLetterFile
from st_connectors.ingest.documents import Document, DocumentError, Place, choose_fields
from st_connectors.ingest.limits import MaxRefused, TooManyRefusedError
from st_connectors.ingest.locks import FileInUseError, LockError
from st_connectors.ingest.missing import DeleteMissing, DeletionRefusedError, Missing
from st_connectors.ingest.pace import Patience, Waiting
from st_connectors.ingest.pipeline import IngestOptions, Progress, ingest
from st_connectors.ingest.planning import SyncPlan
from st_connectors.ingest.report import IngestFailed, IngestInterrupted, IngestReport, Refusal
from st_connectors.ingest.state import Resume, StateError
from st_connectors.ingest.windows import Spans

__all__ = [
    "DeadLetterError",
    "DeadLetterFile",
    "DeleteMissing",
    "DeletionRefusedError",
    "Document",
    "DocumentError",
    "FileInUseError",
    "IngestFailed",
    "IngestInterrupted",
    "IngestOptions",
    "IngestReport",
    "LockError",
    "MaxRefused",
    "Missing",
    "Patience",
    "Place",
    "Progress",
    "Refusal",
    "Resume",
    "Spans",
    "StateError",
    "SyncPlan",
    "TooManyRefusedError",
    "Waiting",
    "choose_fields",
    "ingest",
]
