"""Ingest: every document is confirmed or refused, nothing is lost, and memory stays bounded."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from st_connectors.errors import Refused, Unavailable
from st_connectors.ingest import (
    Document,
    IngestFailed,
    IngestInterrupted,
    IngestOptions,
    IngestReport,
    Patience,
    ingest,
)
from st_connectors.ingest import report as reports
from st_connectors.store import Record, Rejected, Store
from st_connectors.vectorise import CutTest, FieldEncoder
from st_core.errors import InputTooLong


class Picky:
    """A store that calls ``before`` with each batch and its number, and rejects ids that end in ``!``."""

    def __init__(self, store: Store, before: Callable[[Sequence[Record], int], None] | None = None) -> None:
        self._store = store
        self._before = before
        self._batches = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def upsert(self, records: Sequence[Record]) -> list[Rejected]:
        if self._before is not None:
            self._before(records, self._batches)
        self._batches += 1
        good = [record for record in records if not record.id.endswith("!")]
        rejected = self._store.upsert(good)
        assert rejected == []
        return [
            Rejected(position, record.id, Refused("no shouting", store="picky", operation="upsert"))
            for position, record in enumerate(records)
            if record.id.endswith("!")
        ]


AT_ONCE = IngestOptions(batch=10, patience=Patience(limit=0))
"""Options of an ingest that does not wait for a store that is down."""


def by_id(store: Store) -> dict[str, Record]:
    return {record.id: record for record in store.scan()}


def a_document(number: int, text: str = "red apple") -> dict[str, Any]:
    return {"id": f"d{number}", "text": text, "number": number}


GOOD = st.builds(
    lambda number, text: ("good", {"id": f"d{number}", "text": text}),
    st.integers(0, 30),
    st.sampled_from(["a", "", "sea boat"]),
)
LOUD = st.builds(lambda number: ("refused", {"id": f"d{number}!", "text": "a"}), st.integers(0, 30))
BROKEN = st.sampled_from(
    [
        ("refused", value)
        for value in (
            {"text": "a"},
            {"id": "x"},
            {"id": "", "text": "a"},
            {"id": 1.5, "text": "a"},
            7,
            None,
            {"id": "x", "text": 3},
        )
    ]
)


@given(items=st.lists(st.one_of(GOOD, LOUD, BROKEN), max_size=40), batch=st.integers(1, 7), size=st.integers(1, 300))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_document_is_confirmed_or_refused_once(memory, encoders, items, batch, size):
    """For any batches, confirmed plus refused documents are all documents, and the last of each id is stored."""
    store = memory("dense", "sparse")
    for record in list(store.scan()):
        store.delete([record.id])

    report = ingest(
        Picky(store), (value for _, value in items), encoders, options=IngestOptions(batch=batch, batch_bytes=size)
    )

    assert [refusal.position for refusal in report.refused] == [
        n for n, (what, _) in enumerate(items) if what == "refused"
    ]
    assert (report.read, report.confirmed) == (len(items), sum(what == "good" for what, _ in items))
    assert report.refused_total == report.read - report.confirmed
    expected = {value["id"]: value["text"] for what, value in items if what == "good"}
    assert {record.id: record.payload["text"] for record in store.scan()} == expected


def test_vectors_are_the_encoders_own(memory, encoders, letters):
    """Each record has the vectors of its own text.

    An empty text has no sparse vector and, without direction, no dense one.
    """
    store = memory("dense", "sparse")

    ingest(
        store, [{"id": "a", "text": "apple apple sea"}, {"id": "b", "text": "abba"}, {"id": "c", "text": ""}], encoders
    )

    records = by_id(store)
    expected = letters.encode_document(["apple apple sea", "abba"])
    np.testing.assert_allclose(records["a"].vectors["dense"], expected[0] / np.linalg.norm(expected[0]), rtol=1e-6)
    assert records["a"].vectors["sparse"].to_mapping() == {0: 2.0, 5: 1.0}
    np.testing.assert_allclose(records["b"].vectors["dense"], expected[1] / np.linalg.norm(expected[1]), rtol=1e-6)
    assert "sparse" not in records["b"].vectors
    assert records["c"].vectors == {}
    assert records["c"].payload == {"text": ""}


@pytest.mark.parametrize(
    ("document", "identifier", "reason"),
    [
        ({"text": "a"}, "", "'id' is missing"),
        ({"id": None, "text": "a"}, "", "'id' is missing"),
        ({"id": "", "text": "a"}, "", "'id' is empty"),
        ({"id": True, "text": "a"}, "", "'id' must be a string or an integer, not bool"),
        ({"id": ["x"], "text": "a"}, "", "'id' must be a string or an integer, not list"),
        ({"id": "x\udc80", "text": "a"}, r"'x\udc80'", "'id' contains half of a surrogate pair"),
        ({"id": "x"}, "x", "'text' is missing"),
        ({"id": "x", "text": None}, "x", "'text' is missing"),
        ({"id": "x", "text": b"a"}, "x", "'text' must be a string, not bytes"),
        ({"id": "x", "text": "\ud800"}, "x", "'text' contains half of a surrogate pair"),
        ({"id": "x", "text": "a", 3: "b"}, "x", "payload keys must be strings, not int"),
        ({"id": "x", "text": "a", "_chunk": {}}, "x", "'_chunk' is reserved"),
        ({"id": "x", "text": "a", "n": float("nan")}, "x", "n"),
        ({"id": "x" * 513, "text": "a"}, "x" * 513, "512"),
        (Document("x", "a", {"text": "b"}), "x", "another 'text'"),
        (Document("x", "a", ["b"]), "x", "payload must be a mapping, not list"),  # type: ignore[arg-type]
        ("x", "", "not str"),
    ],
)
def test_a_refused_document_is_named_with_its_reason(memory, encoders, document, identifier, reason):
    """A document that cannot go in is reported with position, id and reason; its neighbours go in."""
    store = memory("dense", "sparse")

    report = ingest(store, [a_document(0), document, a_document(2)], encoders)

    [refusal] = report.refused
    assert (refusal.position, refusal.id) == (1, identifier)
    assert reason in refusal.reason
    assert sorted(by_id(store)) == ["d0", "d2"]


def test_documents_come_as_mappings_or_documents(memory, encoders):
    """A Document and a mapping with the same content make the same record; a whole number as id becomes its digits."""
    store = memory("dense", "sparse")

    ingest(store, [Document("1", "red", {"year": 3}), {"id": 2, "text": "red", "year": 3}], encoders)

    records = by_id(store)
    assert records["1"].payload == records["2"].payload == {"year": 3, "text": "red"}
    assert records["1"].vectors["sparse"] == records["2"].vectors["sparse"]


def test_arguments_are_not_changed(memory, encoders):
    """What the caller hands in is the same afterwards."""
    document = {"id": 1, "text": "red", "tags": ["a", {"b": 1}]}

    ingest(memory("dense", "sparse"), [document], encoders)

    assert document == {"id": 1, "text": "red", "tags": ["a", {"b": 1}]}


def test_the_source_is_read_no_further_than_the_bound(memory, encoders):
    """While a batch is written, ``ahead`` are encoded, one is in each other stage, and one waits between two stages."""
    read = 0
    written = 0
    most = 0

    def source() -> Iterator[dict[str, Any]]:
        nonlocal read
        for number in range(500):
            read += 1
            yield a_document(number)

    def watch(records: Sequence[Record], batch: int) -> None:
        nonlocal written, most
        most = max(most, read - written)
        written += len(records)

    ingest(Picky(memory("dense", "sparse"), watch), source(), encoders, options=IngestOptions(batch=10, ahead=2))

    assert written == 500
    assert most <= 10 * (6 + 2)


def test_encoding_goes_on_while_the_store_writes(memory, encoders):
    """The first write waits until a later batch is read, which would never happen if the two took turns."""
    went_on = threading.Event()

    def source() -> Iterator[dict[str, Any]]:
        for number in range(30):
            if number == 15:
                went_on.set()
            yield a_document(number)

    def wait(records: Sequence[Record], batch: int) -> None:
        assert went_on.wait(timeout=30)

    report = ingest(Picky(memory("dense", "sparse"), wait), source(), encoders, options=IngestOptions(batch=10))

    assert report.confirmed == 30


def test_batches_end_by_bytes_too(memory, encoders):
    """Long texts make smaller batches."""
    sizes: list[int] = []
    documents = [a_document(number, "apple " * 200) for number in range(10)]

    ingest(
        Picky(memory("dense", "sparse"), lambda records, _: sizes.append(len(records))),
        documents,
        encoders,
        options=IngestOptions(batch=100, batch_bytes=3000),
    )

    assert sizes == [3, 3, 3, 1]


def test_an_interrupt_reports_exactly_what_the_store_has(memory, encoders):
    """Ctrl-C in the middle: what the report calls confirmed is in the store, and nothing else is."""
    store = memory("dense", "sparse")

    def source() -> Iterator[dict[str, Any]]:
        yield from (a_document(number) for number in range(45))
        raise KeyboardInterrupt

    with pytest.raises(IngestInterrupted) as caught:
        ingest(store, source(), encoders, options=IngestOptions(batch=10))

    report = caught.value.report
    assert report.read == report.confirmed == len(by_id(store))
    assert report.confirmed in {10, 20, 30, 40}  # of four batches, one waits between each two stages
    assert set(by_id(store)) == {f"d{number}" for number in range(report.confirmed)}


def test_a_store_that_breaks_ends_the_ingest_with_what_was_confirmed(memory, encoders):
    """The error names its cause, and the report counts only batches that the store confirmed."""
    store = memory("dense", "sparse")

    def breaks(records: Sequence[Record], batch: int) -> None:
        if batch == 3:
            raise Unavailable("gone", store="picky", operation="upsert")

    with pytest.raises(IngestFailed, match="picky upsert: gone") as caught:
        ingest(Picky(store, breaks), (a_document(n) for n in range(1000)), encoders, options=AT_ONCE)

    assert isinstance(caught.value.__cause__, Unavailable)
    confirmed = caught.value.report.confirmed
    # The one batch that may have been under way behind the broken one counts if it went in.
    assert confirmed in {30, 40, 50}
    assert confirmed == len(by_id(store))


def test_a_source_that_breaks_still_puts_in_what_it_gave(memory, encoders):
    """Everything the source gave before it raised is confirmed, and its own error is the cause."""
    store = memory("dense", "sparse")

    def source() -> Iterator[dict[str, Any]]:
        yield from (a_document(number) for number in range(25))
        raise LookupError("the database went away")

    with pytest.raises(IngestFailed, match="the database went away") as caught:
        ingest(store, source(), encoders, options=IngestOptions(batch=10))

    assert isinstance(caught.value.__cause__, LookupError)
    assert caught.value.report.confirmed == len(by_id(store)) == 25


def test_an_encoder_that_breaks_keeps_what_was_encoded(memory, encoders, letters):
    """Batches encoded before the encoder broke are in; its error is the cause."""
    store = memory("dense")

    class Breaking:
        encode_query = letters.encode_query

        def encode_document(self, inputs: list[str], /) -> np.ndarray:
            if "boom" in inputs:
                raise RuntimeError("no more memory")
            return letters.encode_document(inputs)

    documents = [a_document(n) for n in range(10)] + [a_document(10, "boom")]
    with pytest.raises(IngestFailed, match="no more memory") as caught:
        ingest(store, documents, [FieldEncoder("dense", encoders[0].kind, Breaking())], options=IngestOptions(batch=5))

    assert caught.value.report.confirmed == len(by_id(store)) == 10


@pytest.mark.parametrize(
    "error", [InputTooLong("12 tokens, at most 8"), ValueError("not a text I like"), TypeError("no")]
)
def test_a_text_the_encoder_refuses_is_refused_alone(memory, encoders, letters, error):
    """One text that an encoder does not take costs only its own document."""
    store = memory("dense")

    class Fussy:
        encode_query = letters.encode_query

        def encode_document(self, inputs: list[str], /) -> np.ndarray:
            if any("plum" in text for text in inputs):
                raise error
            return letters.encode_document(inputs)

    documents = [a_document(n, "plum" if n in {3, 7} else "pear") for n in range(12)]
    report = ingest(store, documents, [FieldEncoder("dense", encoders[0].kind, Fussy())])

    assert [(refusal.position, refusal.id) for refusal in report.refused] == [(3, "d3"), (7, "d7")]
    assert str(error) in report.refused[0].reason
    assert len(by_id(store)) == report.confirmed == 10


def test_a_vector_of_another_dimension_is_refused_by_name(memory, encoders):
    """The store's schema says 16 numbers; an encoder of 3 is refused for every document, with both numbers."""
    store = memory("dense")
    three = SimpleNamespace(encode_document=lambda texts: np.ones((len(texts), 3)), encode_query=None)

    report = ingest(store, [a_document(0)], [FieldEncoder("dense", encoders[0].kind, three)])

    assert report.confirmed == 0
    assert "16" in report.refused[0].reason
    assert "3" in report.refused[0].reason


def test_refusals_are_kept_up_to_a_bound_and_all_counted(memory, encoders):
    """A million refusals do not fill the memory."""
    report = ingest(
        memory("dense", "sparse"),
        ({"id": "x"} for _ in range(50)),
        encoders,
        options=IngestOptions(batch=8, max_refused=10),
    )

    assert report.refused_total == 50
    assert [refusal.position for refusal in report.refused] == list(range(10))


def test_progress_tells_of_every_batch(memory, encoders):
    """The callback sees the confirmed count rise batch by batch to the report's own."""
    seen: list[IngestReport] = []

    report = ingest(
        memory("dense", "sparse"),
        [a_document(n) for n in range(25)],
        encoders,
        options=IngestOptions(batch=10),
        progress=seen.append,
    )

    assert [step.confirmed for step in seen] == [10, 20, 25]
    assert report.confirmed == 25


def test_a_report_is_plain_json(memory, encoders):
    """to_json gives plain values with every refusal spelt out."""
    report = ingest(memory("dense", "sparse"), [a_document(0), {"id": "x"}], encoders)

    value = report.to_json()
    assert min(value.pop(name) for name in ("seconds", "encode_seconds", "write_seconds")) > 0
    assert value == {
        "read": 2,
        "confirmed": 1,
        "records": 1,
        "refused": [
            {
                "position": 1,
                "id": "x",
                "reason": "'text' is missing",
                "error": "DocumentError",
                "place": None,
                "stage": "read",
                "attempts": 0,
                "status": None,
            }
        ],
        "refused_total": 1,
        "cut": 0,
        "split": 0,
        "skipped": 0,
        "replaced": 0,
        "filled": {},
        "unfilled": [],
        "resumed": 0,
        "tokens": 0,
        "retries": 0,
        "unchanged": 0,
        "payload_only": 0,
        "deleted": 0,
    }


def test_texts_a_model_cuts_are_counted(memory, letters, encoders):
    """Each document whose end an encoder leaves out counts once, however many encoders do so."""
    cutting = [FieldEncoder(e.field, e.kind, e.model, cuts=CutTest(10, len)) for e in encoders]

    report = ingest(
        memory("dense", "sparse"),
        [a_document(0, "pear"), a_document(1, "a longer text"), a_document(2, "red")],
        cutting,
    )

    assert (report.confirmed, report.cut, report.split) == (3, 1, 0)


def tens(text: str) -> list[tuple[int, int]]:
    """Windows of ten characters."""
    return [(start, min(start + 10, len(text))) for start in range(0, max(len(text), 1), 10)]


SPLIT = IngestOptions(spans=tens, batch=4)


def test_a_long_text_becomes_windows_of_its_document(memory, encoders):
    """Each window has its piece of the text, its own vectors, the document's payload, and its place.

    Short texts stay as they are.
    """
    store = memory("dense", "sparse")

    report = ingest(
        store,
        [{"id": "a", "text": "apple pear plum boat", "year": 3}, {"id": "b", "text": "sea", "year": 4}],
        encoders,
        options=SPLIT,
    )

    records = by_id(store)
    assert (report.confirmed, report.records, report.split) == (2, 3, 1)
    assert records["a"].payload == {
        "text": "apple pear",
        "year": 3,
        "_chunk": {"parent": "a", "number": 0, "of": 2, "start": 0, "end": 10},
    }
    assert records["a#window-1"].payload == {
        "text": " plum boat",
        "year": 3,
        "_chunk": {"parent": "a", "number": 1, "of": 2, "start": 10, "end": 20},
    }
    assert records["a#window-1"].vectors["sparse"].to_mapping() == {2: 1.0, 3: 1.0}
    assert records["b"].payload == {"text": "sea", "year": 4}


@pytest.mark.parametrize("together", [True, False])
def test_a_shorter_text_leaves_no_windows_behind(memory, encoders, together):
    """Replacing a split document by a shorter one removes the windows it no longer has, in one ingest or in two."""
    store = memory("dense", "sparse")
    versions = [{"id": "a", "text": "x" * 45}, {"id": "a", "text": "y" * 15}]

    for documents in [versions] if together else [versions[:1], versions[1:]]:
        ingest(store, documents, encoders, options=SPLIT)

    assert {name: record.payload["text"] for name, record in by_id(store).items()} == {
        "a": "y" * 10,
        "a#window-1": "y" * 5,
    }


def test_a_text_that_is_not_split_leaves_no_windows_behind(memory, encoders):
    """Also where nothing is split any more; records whose ids only look like windows stay."""
    store = memory("dense", "sparse")
    ingest(store, [{"id": name, "text": "x" * 45} for name in "ab"], encoders, options=SPLIT)

    ingest(store, [{"id": "a", "text": "y"}, {"id": "c", "text": "z"}, {"id": "c#window-1", "text": "own"}], encoders)
    ingest(store, [{"id": "b#window-1", "text": "own"}, {"id": "b", "text": "y"}, {"id": "c", "text": "y"}], encoders)

    assert {name: record.payload["text"] for name, record in by_id(store).items()} == {
        "a": "y",
        "b": "y",
        "b#window-1": "own",
        "c": "y",
        "c#window-1": "own",
    }


def test_a_document_with_a_refused_window_is_refused(memory, encoders):
    """A document is confirmed in whole or refused; the reason names the window."""
    store = memory("dense", "sparse")
    documents = [{"id": "a", "text": "x" * 25}, {"id": "b" * 505, "text": "x" * 25}]

    report = ingest(store, documents, encoders, options=SPLIT)

    assert (report.confirmed, report.refused_total) == (1, 1)
    assert report.refused[0].id == "b" * 505
    assert "#window-1" in report.refused[0].reason


def test_ids_like_those_of_windows_are_refused_when_splitting(memory, encoders):
    """A user's own id cannot fall on a window's."""
    store = memory("dense", "sparse")

    report = ingest(store, [{"id": "a#window-1", "text": "x"}], encoders, options=SPLIT)

    assert "reserved for windows" in report.refused[0].reason
    assert store.count() == 0


@pytest.mark.parametrize("option", ["batch", "batch_bytes", "ahead"])
def test_options_below_one_are_refused(option):
    """A batch of nothing would never end."""
    with pytest.raises(ValueError, match=f"{option} must be at least 1, not 0"):
        IngestOptions(**{option: 0})


@pytest.mark.parametrize("module", ["pandas", "polars", "pyarrow"])
def test_a_table_is_refused_by_name(module, memory, encoders):
    """An iteration of it would take its columns for documents."""
    store = memory("dense", "sparse")
    library = pytest.importorskip(module)
    columns = {"id": ["1"], "text": ["red"]}
    table = library.table(columns) if module == "pyarrow" else library.DataFrame(columns)

    with pytest.raises(TypeError, match=f"not {type(table).__name__}: its rows are df.to_dict"):
        ingest(store, table, encoders)
    rows = {"pandas": "to_dict", "polars": "to_dicts", "pyarrow": "to_pylist"}[module]
    documents = getattr(table, rows)(*(["records"] if module == "pandas" else []))
    assert ingest(store, documents, encoders).confirmed == 1


def test_a_report_contains_refused_documents_up_to_a_size(memory, monkeypatch):
    """The refusals beyond it are reported without their documents, and the callback receives all of them whole."""
    monkeypatch.setattr(reports, "MAX_REFUSED_BYTES", 900)
    documents = [{"id": f"d{n}", "note": "x" * size} for n, size in enumerate([300, 800, 300, 300])]
    whole = []

    report = ingest(memory(), documents, [], options=IngestOptions(on_refused=lambda each: whole.append(each.document)))

    assert [each.document for each in report.refused] == [documents[0], None, documents[2], None]
    assert [each.id for each in report.refused] == ["d0", "d1", "d2", "d3"]
    assert whole == documents
