"""Estimate what a migration will take, from a sample of records."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from st_connectors.store import Record
from st_connectors.vectorise import FieldEncoder, tokenizer_of
from st_core.vectors import SparseVector

__all__ = ["Estimate", "count_tokens", "size_of"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a migration will take, computed from a sample of records that was encoded on this machine.

    ``records`` are those of the collection, ``tokens`` those of all their texts (None if no model has a tokenizer),
    ``seconds`` the time in the encoders, and ``bytes`` the size of new vectors and payloads, without indexes.
    """

    records: int
    tokens: int | None
    tokens_per_second: float | None
    records_per_second: float
    seconds: float
    bytes: int

    def to_json(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        rate = f"{self.records_per_second:,.0f} records/s"
        counts = f"{self.records:,} records"
        if self.tokens is not None and self.tokens_per_second is not None:
            rate, counts = f"{self.tokens_per_second:,.0f} tokens/s", f"{counts} with {self.tokens:,} tokens"
        time_needed = timedelta(seconds=round(self.seconds))
        return f"{counts}, {rate} here, about {time_needed}, {self.bytes / 1e6:,.1f} MB of vectors and payloads"


def count_tokens(encoders: Sequence[FieldEncoder], texts: Sequence[str]) -> int | None:
    """Return the tokens of the texts for all encoders with a tokenizer, None if none has one."""
    tokenizers = [tokenizer for encoder in encoders if (tokenizer := tokenizer_of(encoder.model)) is not None]
    counts = [len(encoding.ids) for each in tokenizers for encoding in each.encode_batch(list(texts))]
    return sum(counts) if tokenizers else None


def size_of(record: Record) -> int:
    """Return the bytes of a record's vectors, 4 for a number and 8 for a weight with its index, and of its payload."""
    vectors = sum(
        8 * each.indices.size if isinstance(each, SparseVector) else 4 * each.size for each in record.vectors.values()
    )
    return vectors + len(json.dumps(record.payload, ensure_ascii=False).encode())
