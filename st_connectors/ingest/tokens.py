"""Tokenize the texts of a batch before they are encoded, and divide the batch by the number of its tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

from st_connectors.ingest.encode import Batch
from st_connectors.vectorise import FieldEncoder
from st_core.errors import InputTooLong

if TYPE_CHECKING:
    from st_core.engine.prepared import Prepared as Tokens

__all__ = ["tokenize_batch"]


def tokenize_batch(batch: Batch, encoders: Sequence[FieldEncoder], limit: int) -> Iterator[Batch]:
    """Yield a batch in parts of at most ``limit`` tokens, or of one document, with the tokens of their texts.

    The tokens of all encoders count together. Those of an encoder that tokenizes only when it encodes are unknown, and
    do not count; the same holds for an encoder that refuses a text, which becomes known when the batch is encoded.
    """
    items = batch.to_encode
    texts = [window.text for item in items for window in item.windows]
    tokens = [_tokenize(encoder, texts) for encoder in encoders]
    lengths = [None if each is None else each.lengths.tolist() for each in tokens]
    starts = [0, *accumulate(len(item.windows) for item in items)]
    counts = [sum(sum(each[first:last]) for each in lengths if each) for first, last in pairwise(starts)]
    truncated = {at for encoder, each in zip(encoders, lengths, strict=True) for at in _truncated(encoder, texts, each)}
    marked = replace(
        batch,
        truncated=frozenset(
            item.position
            for item, (first, last) in zip(items, pairwise(starts), strict=True)
            if not truncated.isdisjoint(range(first, last))
        ),
    )
    parts = _divide(counts, limit)
    ends = [items[part.start].position for part in parts[1:]]
    for part, piece in zip(parts, _cut_at(marked, ends), strict=True):
        windows = range(starts[part.start], starts[part.stop])
        yield replace(
            piece,
            tokens=tuple(None if each is None else each.take(windows) for each in tokens),
            token_count=sum(counts[part.start : part.stop]),
        )


def _tokenize(encoder: FieldEncoder, texts: list[str]) -> Tokens | None:
    try:
        return encoder.tokenize(texts) if texts else None
    except (InputTooLong, ValueError, TypeError):
        return None  # which text is refused is not known; the encoder raises the error again


def _truncated(encoder: FieldEncoder, texts: Sequence[str], lengths: Sequence[int] | None) -> Iterator[int]:
    """Yield the numbers of the texts that an encoder truncates."""
    if encoder.cuts is not None:
        for at, text in enumerate(texts):
            if encoder.cuts(text, None if lengths is None else lengths[at]):
                yield at


def _divide(counts: Sequence[int], limit: int) -> list[range]:
    """Return ranges of consecutive documents of at most ``limit`` tokens each, or of one document; at least one."""
    parts, start, total = [], 0, 0
    for at, count in enumerate(counts):
        if at > start and total + count > limit:
            parts.append(range(start, at))
            start, total = at, 0
        total += count
    return [*parts, range(start, len(counts))]


def _cut_at(batch: Batch, positions: Sequence[int]) -> Iterator[Batch]:
    """Yield the parts of a batch between positions; only the last one has the cursor and the unchanged documents."""
    bounds = [batch.start, *positions, batch.end]
    for start, end in pairwise(bounds):
        is_last = end == batch.end
        yield replace(
            batch,
            documents=tuple(item for item in batch.documents if start <= item.position < end),
            refused=tuple(refusal for refusal in batch.refused if start <= refusal.position < end),
            start=start,
            end=end,
            cursor=batch.cursor if is_last else None,
            unchanged=batch.unchanged if is_last else 0,
        )
