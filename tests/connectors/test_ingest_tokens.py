"""Batches by tokens: parts are complete and small enough, and their tokens are those of their texts."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import st_core
from st_connectors.chunks import CHUNK_KEY
from st_connectors.ingest import Document, IngestOptions, Refusal, ingest
from st_connectors.ingest.encode import Batch, encode_batch
from st_connectors.ingest.tokens import tokenize_batch
from st_connectors.ingest.windows import Prepared
from st_connectors.schema import FieldKind
from st_connectors.vectorise import CutTest, FieldEncoder
from st_core.errors import InputTooLong

WORDS = st.lists(st.sampled_from(["apple", "boat", "unbelievable", "é", "!"]), max_size=12).map(" ".join)


@pytest.fixture(scope="module")
def dense() -> FieldEncoder:
    return FieldEncoder("dense", FieldKind.DENSE, st_core.SentenceTransformer("builtin:dense"))


@pytest.fixture(scope="module")
def both(dense: FieldEncoder) -> list[FieldEncoder]:
    return [dense, FieldEncoder("sparse", FieldKind.SPARSE, st_core.SparseEncoder("builtin:sparse"))]


def prepared(position: int, texts: Sequence[str]) -> Prepared:
    windows = tuple(Document(f"d{position}-{number}", text, {}) for number, text in enumerate(texts))
    return Prepared(position, Document(f"d{position}", " ".join(texts), {}), windows)


def refusal(position: int) -> Refusal:
    return Refusal(position, None, "no document", ValueError)


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    """Batches of split and unsplit documents, between which others were refused, unchanged, or have their vectors."""
    start = draw(st.integers(0, 5))
    kinds = draw(st.lists(st.sampled_from(["text", "refused", "unchanged", "renewed"]), max_size=8))
    items = list(enumerate(kinds, start))
    texts = {at: draw(st.lists(WORDS, min_size=1, max_size=3)) for at, kind in items if kind in {"text", "renewed"}}
    return Batch(
        tuple(prepared(at, each) for at, each in texts.items()),
        tuple(refusal(at) for at, kind in items if kind == "refused"),
        start,
        start + len(kinds),
        {"at": 7},
        renewed={at: () for at, kind in items if kind == "renewed"},
        unchanged=kinds.count("unchanged"),
    )


@given(batch=batches(), limit=st.integers(1, 40))
def test_parts_are_the_batch_and_have_the_tokens_of_their_texts(
    both: list[FieldEncoder], batch: Batch, limit: int
) -> None:
    parts = list(tokenize_batch(batch, both, limit))

    assert [item for part in parts for item in part.documents] == list(batch.documents)
    assert [item for part in parts for item in part.refused] == list(batch.refused)
    assert [part.start for part in parts] == [batch.start, *(part.end for part in parts[:-1])]
    assert parts[-1].end == batch.end
    assert sum(part.read for part in parts) == batch.read
    assert [part.cursor for part in parts] == [None] * (len(parts) - 1) + [{"at": 7}]
    for part in parts:
        texts = [window.text for item in part.to_encode for window in item.windows]
        wanted = [encoder.model.prepare_document(texts) for encoder in both]  # type: ignore[attr-defined]
        for found, request in zip(part.tokens, wanted, strict=True):
            if texts:
                assert found is not None
                assert [row.tolist() for row in found.tokens.ids] == [row.tolist() for row in request.tokens.ids]
        assert part.token_count == sum(int(request.lengths.sum()) for request in wanted)
        assert part.token_count <= limit or len(part.to_encode) == 1


@given(batch=batches(), limit=st.integers(1, 40))
def test_no_part_could_have_the_next_document(both: list[FieldEncoder], batch: Batch, limit: int) -> None:
    """Batches are as large as the limit allows, so that it costs as few requests as possible."""
    parts = list(tokenize_batch(batch, both, limit))

    for part, following in pairwise(parts):
        texts = [window.text for window in following.to_encode[0].windows]
        first = sum(int(each.model.prepare_document(texts).lengths.sum()) for each in both)  # type: ignore[attr-defined]
        assert part.token_count + first > limit


@given(texts=st.lists(WORDS, min_size=1, max_size=6), limit=st.integers(1, 40))
def test_vectors_are_those_of_encode_document(both: list[FieldEncoder], texts: list[str], limit: int) -> None:
    batch = Batch(tuple(prepared(at, [text]) for at, text in enumerate(texts)), (), 0, len(texts))

    records = [each for part in tokenize_batch(batch, both, limit) for each in encode_batch(part, both).records]

    wanted = [encoder.documents(texts) for encoder in both]
    for record, dense_vector, sparse_vector in zip(records, *wanted, strict=True):
        assert np.array_equal(record.vectors["dense"], dense_vector)  # type: ignore[arg-type]
        assert record.vectors["sparse"] == sparse_vector


def test_a_report_counts_the_tokens_of_all_models(memory: Any) -> None:
    """As the models count them: special tokens and prompts included."""
    model = st_core.SentenceTransformer("builtin:dense", truncate_dim=16, prompts={"document": "a long prompt: "})
    store = memory("dense")
    texts = ["one boat", "two boats at sea", ""]
    sizes: list[int] = []

    report = ingest(
        store,
        [{"id": str(at), "text": text} for at, text in enumerate(texts)],
        [FieldEncoder("dense", FieldKind.DENSE, model)],
        options=IngestOptions(batch_tokens=1),
        progress=lambda total: sizes.append(total.confirmed),
    )

    assert report.tokens == int(model.prepare_document(texts).lengths.sum()) > 15
    assert sizes == [1, 2, 3]


class Doubling(st_core.SentenceTransformer):
    """A model whose author replaced ``encode``."""

    def encode(self, *args: Any, **kwargs: Any) -> Any:
        return 2 * super().encode(*args, **kwargs)


class DoublingDocuments(st_core.SentenceTransformer):
    """A model whose author replaced ``encode_document``."""

    def encode_document(self, *args: Any, **kwargs: Any) -> Any:
        return 2 * super().encode_document(*args, **kwargs)


def replaced() -> st_core.SentenceTransformer:
    model = st_core.SentenceTransformer("builtin:dense")
    encode = model.encode_document
    model.encode_document = lambda *args, **kwargs: 2 * encode(*args, **kwargs)  # type: ignore[method-assign]
    return model


@pytest.mark.parametrize(
    "make", [lambda: Doubling("builtin:dense"), lambda: DoublingDocuments("builtin:dense"), replaced]
)
def test_a_model_that_replaces_encoding_is_not_bypassed(dense: FieldEncoder, make: Any) -> None:
    encoder = FieldEncoder("dense", FieldKind.DENSE, make())

    tokens = encoder.tokenize(["a boat"])

    assert tokens is None
    np.testing.assert_array_equal(
        encoder.documents(["a boat"], tokens)[0], 2 * np.asarray(dense.documents(["a boat"])[0])
    )


def test_an_encoder_on_other_devices_tokenizes_there(dense: FieldEncoder) -> None:
    encoder = FieldEncoder("dense", FieldKind.DENSE, dense.model, arguments={"pool": object()})

    assert encoder.tokenize(["a boat"]) is None


def test_only_texts_that_fill_the_model_are_tokenized_a_second_time(dense: FieldEncoder) -> None:
    """Whether a text is truncated is known from its tokens, unless it has as many as the model reads."""
    counted: list[str] = []

    def count(text: str) -> int:
        counted.append(text)
        return len(text.split())

    model = st_core.SentenceTransformer("builtin:dense")
    model.max_seq_length = 3
    texts = ["a boat", "unbelievable" * 3, "one two three", "one two three four", "b"]
    batch = Batch(tuple(prepared(at, [text]) for at, text in enumerate(texts)), (), 0, len(texts))

    (part,) = tokenize_batch(batch, [FieldEncoder("dense", FieldKind.DENSE, model, CutTest(3, count))], 1000)

    assert part.truncated == {3}
    assert counted == ["unbelievable" * 3, "one two three", "one two three four"]


class Strict(st_core.SentenceTransformer):
    """A model that refuses a text."""

    def prepare(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if "too long" in inputs:
            raise InputTooLong("too long")
        return super().prepare(inputs, *args, **kwargs)

    def encode(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        return self.finish(self.compute([self.prepare(inputs, kwargs.get("prompt_name"), task="document")])[0])

    def encode_document(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        return self.encode(inputs)


def test_a_text_that_a_model_refuses_is_refused_alone(memory: Any) -> None:
    model = Strict("builtin:dense", truncate_dim=16)
    store = memory("dense")

    report = ingest(
        store,
        [{"id": str(at), "text": text} for at, text in enumerate(["a", "too long", "b"])],
        [FieldEncoder("dense", FieldKind.DENSE, model)],
    )

    assert [(each.id, each.stage) for each in report.refused] == [("1", "encode")]
    assert sorted(record.id for record in store.scan()) == ["0", "2"]


def test_windows_of_a_document_stay_together(memory: Any) -> None:
    model = st_core.SentenceTransformer("builtin:dense", truncate_dim=16)
    store = memory("dense")
    batches: list[int] = []

    def spans(text: str) -> list[tuple[int, int]]:
        return [(start, start + 4) for start in range(0, len(text), 4)]

    ingest(
        store,
        [{"id": "a", "text": "boatshipseas"}, {"id": "b", "text": "redblue"}],
        [FieldEncoder("dense", FieldKind.DENSE, model)],
        options=IngestOptions(batch_tokens=1, spans=spans),
        progress=lambda total: batches.append(total.records),
    )

    assert batches == [3, 5]
    assert {record.payload[CHUNK_KEY]["parent"] for record in store.scan()} == {"a", "b"}  # type: ignore[index,call-overload]
