"""An interrupted ingest continues: what was confirmed is not encoded again, and nothing is lost or stored twice."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from st_connectors.errors import Permanent, Refused, Throttled, Unavailable
from st_connectors.index import Index
from st_connectors.ingest import (
    DeadLetterFile,
    FileInUseError,
    IngestFailed,
    IngestInterrupted,
    IngestReport,
    LockError,
    Patience,
    Resume,
    StateError,
    TooManyRefusedError,
    locks,
)
from st_connectors.ingest import state as states
from st_connectors.ingest.ledger import Ledger
from st_connectors.ingest.state import read_state
from st_connectors.models import LazyModel, ModelOptions
from st_connectors.store import Record, Rejected, Store
from st_core.protocols import ModelKind


class Breaking:
    """A store that calls ``before`` with each request, and counts the requests."""

    def __init__(self, store: Store, before: Any = lambda records, number: None) -> None:
        self._store = store
        self._before = before
        self.requests = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def upsert(self, records: Sequence[Record]) -> list[Rejected]:
        self.requests += 1
        answer = self._before(records, self.requests - 1)
        return self._store.upsert(records) if answer is None else answer(self._store, records)


class Counting:
    """A dense encoder that remembers the texts that it has encoded."""

    name = "counting"
    dimension = 16

    def __init__(self) -> None:
        self.texts: list[str] = []

    def encode_document(self, inputs: list[str], /) -> np.ndarray:
        self.texts += [text for text in inputs if text.startswith("text ")]  # not those that describe the model
        return np.array([[len(text) + n for n in range(16)] for text in inputs], np.float32)

    encode_query = encode_document


@pytest.fixture(autouse=True)
def at_every_batch(monkeypatch):
    """Write the state after every batch, so that the tests do not depend on the time."""
    monkeypatch.setattr(states, "SAVE_EVERY", 0.0)


@pytest.fixture
def model() -> Counting:
    return Counting()


def index_of(store: Any, model: Counting) -> Index:
    lazy = LazyModel(ModelKind.DENSE, model, options=ModelOptions("torch", None))
    return Index(store, {"dense": lazy})


def a_document(number: int) -> dict[str, Any]:
    return {"id": f"d{number}", "text": f"text {number}", "number": number}


def stored(store: Any) -> dict[str, int]:
    return {record.id: record.payload["number"] for record in store.scan()}


def failing_at(number: int, error: Exception) -> Any:
    """Fail with an error from one request on."""

    def fail(_records: Sequence[Record], request: int) -> None:
        if request >= number:
            raise error

    return fail


GONE = Unavailable("gone", store="fake", operation="upsert")
NOW = Patience(limit=0)


def test_an_ingest_continues_after_what_is_confirmed(memory, model, tmp_path):
    """The second run encodes the rest only, and its report covers the whole input."""
    store, state = memory("dense"), tmp_path / "state.json"
    documents = [a_document(n) for n in range(95)]
    with pytest.raises(IngestFailed, match="gone"):
        index_of(Breaking(store, failing_at(4, GONE)), model).ingest(
            documents, batch=10, resume=state, patience=NOW, writers=1
        )
    found = read_state(state)
    assert found is not None
    assert found[0].intervals == ((0, 40),)
    model.texts.clear()

    report = index_of(store, model).ingest(iter(documents), batch=10, resume=state)

    assert model.texts == [f"text {n}" for n in range(40, 95)]
    assert (report.read, report.confirmed, report.resumed) == (95, 95, 40)
    assert stored(store) == {f"d{n}": n for n in range(95)}
    assert not state.exists()


@given(
    ids=st.lists(st.integers(0, 12), min_size=1, max_size=60),
    batch=st.integers(1, 6),
    writers=st.integers(1, 4),
    seed=st.integers(0, 1000),
)
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_after_any_interruptions_the_collection_is_the_input(memory, model, tmp_path, ids, batch, writers, seed):
    """Whatever the order of writes and wherever it breaks, the last document of each id wins, run after run."""
    chance = random.Random(seed)
    store, state = memory("dense"), tmp_path / "state.json"
    store.delete([record.id for record in store.scan()])
    documents = [{"id": f"d{one}", "text": f"t{n}", "number": n} for n, one in enumerate(ids)]

    def sometimes(_records: Sequence[Record], _number: int) -> Any:
        fate = chance.random()
        if fate < 0.15:
            raise GONE
        if fate < 0.3:

            def written_without_an_answer(inner: Store, records: Sequence[Record]) -> list[Rejected]:
                inner.upsert(records)
                raise GONE

            return written_without_an_answer
        return None

    for _ in range(400):
        try:
            report = index_of(Breaking(store, sometimes), model).ingest(
                documents, batch=batch, writers=writers, resume=state, patience=NOW
            )
        except IngestFailed:
            continue
        break
    else:
        pytest.fail("the ingest never ended")

    assert stored(store) == {f"d{one}": n for n, one in enumerate(ids)}
    assert report.read == report.confirmed == len(ids)
    assert not state.exists()


def test_batches_confirmed_out_of_order_are_not_written_again(memory, model, tmp_path):
    """The first batch is never acknowledged; the second run writes it alone."""
    store, state = memory("dense"), tmp_path / "state.json"
    later = []

    def hold_the_first(records: Sequence[Record], _number: int) -> None:
        if records[0].id == "d0":
            if not later:
                later.append("held")
                raise GONE
            raise Permanent("no", store="fake", operation="upsert")

    documents = [a_document(n) for n in range(30)]
    with pytest.raises(IngestFailed):
        index_of(Breaking(store, hold_the_first), model).ingest(
            documents, batch=10, writers=3, resume=state, patience=Patience(60, 0, 0)
        )
    found = read_state(state)
    assert found is not None
    confirmed = {n for start, end in found[0].intervals for n in range(start, end)}
    assert confirmed.isdisjoint(range(10))
    model.texts.clear()

    index_of(store, model).ingest(documents, batch=10, resume=state)

    assert sorted(model.texts) == sorted(f"text {n}" for n in range(30) if n not in confirmed)
    assert stored(store) == {f"d{n}": n for n in range(30)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"version": 1', "cannot be read"),
        ("\xff\xfe", "cannot be read"),
        ("[]", "is not a state of this package"),
        ('{"precious": 1}', "is not a state of this package"),
    ],
)
@pytest.mark.parametrize("restart", [False, True])
def test_a_file_that_is_no_state_is_never_replaced(memory, model, tmp_path, content, message, restart):
    """It may belong to another program; also if the ingest is to start over."""
    state = tmp_path / "state.json"
    state.write_text(content, encoding="latin-1")

    with pytest.raises(StateError, match=message) as caught:
        index_of(memory("dense"), model).ingest([a_document(0)], resume=Resume(state, restart=restart))

    assert "name another file" in str(caught.value)
    assert state.read_text(encoding="latin-1") == content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"version": 1, "identity": {}, "confirmed": [[5, 2]]}', "is damaged"),
        ('{"version": 2, "identity": {}}', "has version 2, and this package reads 1: install the newer package"),
    ],
)
def test_a_state_that_cannot_be_used_is_named(memory, model, tmp_path, content, message):
    """And is not overwritten, unless the ingest is to start over."""
    state = tmp_path / "state.json"
    state.write_text(content)

    with pytest.raises(StateError, match=message) as caught:
        index_of(memory("dense"), model).ingest([a_document(0)], resume=state)

    assert "--restart (restart=True)" in str(caught.value)
    assert state.read_text() == content
    assert index_of(memory("dense"), model).ingest([a_document(0)], resume=Resume(state, restart=True)).confirmed == 1


def test_an_empty_file_is_a_new_state_and_a_folder_is_none(memory, model, tmp_path):
    """As ``mktemp`` makes one."""
    (tmp_path / "state.json").touch()
    assert index_of(memory("dense"), model).ingest([a_document(0)], resume=tmp_path / "state.json").confirmed == 1
    with pytest.raises(StateError, match="is not a file: name a file for the state"):
        index_of(memory("dense"), model).ingest([a_document(0)], resume=tmp_path)


def test_an_ingest_that_stored_nothing_may_change(memory, model, tmp_path):
    """There is nothing to continue."""
    store, state = memory("dense"), tmp_path / "state.json"
    with pytest.raises(IngestFailed):
        index_of(Breaking(store, failing_at(0, GONE)), model).ingest(
            [a_document(0)], resume=Resume(state, "books"), patience=NOW
        )

    assert index_of(store, model).ingest([a_document(0)], resume=Resume(state, "others")).confirmed == 1


def test_a_document_is_not_lost_with_a_later_one_that_the_store_refuses(memory, model):
    """Of three versions the store takes the first two; the second is stored."""
    store = memory("dense")

    def refuse_bad(_records: Sequence[Record], _number: int) -> Any:
        error = Refused("bad", store="fake", operation="upsert", status=400)

        def answer(inner: Store, records: Sequence[Record]) -> list[Rejected]:
            inner.upsert([record for record in records if record.payload["number"] != 2])
            return [Rejected(at, each.id, error) for at, each in enumerate(records) if each.payload["number"] == 2]

        return answer

    documents = [{"id": "a", "text": f"text {n}", "number": n} for n in range(3)]

    report = index_of(Breaking(store, refuse_bad), model).ingest(documents)

    assert (report.confirmed, report.refused_total) == (2, 1)
    assert stored(store) == {"a": 1}


def test_a_document_that_is_nested_too_deeply_is_refused_alone(memory, model, tmp_path):
    """Its letter has no document, because JSON could not be read again."""
    nested: Any = []
    for _ in range(3000):
        nested = [nested]
    letters = tmp_path / "refused.jsonl"
    documents = [a_document(0), {**a_document(1), "nested": nested}, {**a_document(2), "id": 10**5000}, a_document(3)]

    report = index_of(memory("dense"), model).ingest(documents, dead_letters=letters)

    assert (report.confirmed, report.refused_total) == (2, 2)
    assert [letter["position"] for letter in letters_of(letters)] == [1, 2]


def test_a_file_of_another_program_is_never_taken_for_letters(memory, model, tmp_path):
    """Also if it is one line without an end; a device such as /dev/null takes letters."""
    other = tmp_path / "config.json"
    other.write_text('{"precious": 1}')

    with pytest.raises(ValueError, match="line 1 is not a dead letter"):
        index_of(memory("dense"), model).ingest([{"id": "a"}], dead_letters=other)

    assert other.read_text() == '{"precious": 1}'
    with pytest.raises(ValueError, match="is a folder: name a file"):
        index_of(memory("dense"), model).ingest([{"id": "a"}], dead_letters=tmp_path)
    assert index_of(memory("dense"), model).ingest([{"id": "a"}], dead_letters="/dev/null").refused_total == 1


def interrupted(store: Store, model: Counting, state: Path, **resume: Any) -> None:
    with pytest.raises(IngestFailed):
        index_of(Breaking(store, failing_at(2, GONE)), model).ingest(
            [a_document(n) for n in range(50)], batch=10, resume=Resume(state, **resume), patience=NOW
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": "others"}, 'the source\'s name is "others", not "books"'),
        ({"split": True}, 'the option split is {"tokens": 8, "overlap": 2}, not null'),
        ({"model": True}, "the model of field 'dense' is another one"),
    ],
)
def test_what_changed_since_the_interruption_is_named(memory, model, tmp_path, monkeypatch, change, message):
    """The source, the options and the models; it continues only if the changes are accepted."""
    store, state = memory("dense"), tmp_path / "state.json"
    fingerprint = {"weights": "1"}
    monkeypatch.setattr(
        LazyModel, "ref", lambda self: type("Ref", (), {"fingerprint": dict(fingerprint)})(), raising=True
    )
    interrupted(store, model, state, source="books")
    options: dict[str, Any] = {}
    if "model" in change:
        fingerprint["weights"] = "2"
    if "split" in change:
        from st_connectors import index as module
        from st_connectors.index import Split

        monkeypatch.setattr(module, "spans_of", lambda *_: lambda text: [(0, len(text))])
        options["split"] = Split(8, 2)
    source = change.get("source", "books")
    documents = [a_document(n) for n in range(50)]

    with pytest.raises(StateError) as caught:
        index_of(store, model).ingest(documents, resume=Resume(state, source), **options)

    assert message in str(caught.value)
    assert "--accept-changes (accept_changes=True)" in str(caught.value)
    report = index_of(store, model).ingest(documents, resume=Resume(state, source, accept_changes=True), **options)
    assert report.resumed == 20
    assert stored(store) == {f"d{n}": n for n in range(50)}


def test_an_emptied_collection_is_noticed(memory, model, tmp_path):
    """Otherwise the documents before the interruption would be missing from it."""
    store, state = memory("dense"), tmp_path / "state.json"
    interrupted(store, model, state)
    store.delete(["d3"])

    with pytest.raises(StateError, match=r"has 19 records, and this ingest stored 20: it was emptied or created again"):
        index_of(store, model).ingest([a_document(n) for n in range(50)], resume=state)


def test_a_shorter_source_is_noticed(memory, model, tmp_path):
    """Its first documents are not those that were confirmed."""
    store, state = memory("dense"), tmp_path / "state.json"
    interrupted(store, model, state)

    with pytest.raises(IngestFailed, match="the source ended after 7 documents, and 20 were confirmed"):
        index_of(store, model).ingest([a_document(n) for n in range(7)], resume=state)
    assert state.exists()


def test_a_second_ingest_of_the_same_source_is_refused(memory, model, tmp_path):
    """While the first is running; afterwards it starts."""
    store, state = memory("dense"), tmp_path / "state.json"
    refused = []

    def source() -> Iterator[dict[str, Any]]:
        yield a_document(0)
        try:
            index_of(store, model).ingest([a_document(1)], resume=Resume(state, "books"))
        except FileInUseError as error:
            refused.append(str(error))

    index_of(store, model).ingest(source(), resume=Resume(state, "books"))

    [message] = refused
    assert message.startswith("another ingest of books into 'c' is running: wait for it, or stop it")
    assert index_of(store, model).ingest([a_document(1)], resume=Resume(state, "books")).confirmed == 1


class Stream:
    """A source with a state, as streaming datasets have."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._next = 0
        self.yielded: list[int] = []

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while self._next < self._count:
            number = self._next
            self._next += 1
            self.yielded.append(number)
            yield a_document(number)

    def state_dict(self) -> dict[str, Any]:
        return {"next": self._next}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._next = state["next"]


def test_a_source_with_a_state_continues_from_it(memory, model, tmp_path):
    """Nothing before is read again."""
    store, state = memory("dense"), tmp_path / "state.json"
    with pytest.raises(IngestFailed):
        index_of(Breaking(store, failing_at(3, GONE)), model).ingest(Stream(95), batch=10, resume=state, patience=NOW)
    again = Stream(95)

    report = index_of(store, model).ingest(again, batch=10, resume=state)

    assert again.yielded == list(range(30, 95))
    assert report.confirmed == 95
    assert stored(store) == {f"d{n}": n for n in range(95)}


def test_a_state_that_cannot_be_written_stops_the_ingest(memory, model, tmp_path, monkeypatch):
    """What is stored stays, and the last state stays, from which the same ingest continues."""
    store, state = memory("dense"), tmp_path / "state.json"
    write = states.write_atomically
    writes = []

    def full(path: Path, parts: Any) -> None:
        writes.append(path)
        if len(writes) > 3:
            raise OSError(28, "No space left on device")
        write(path, parts)

    monkeypatch.setattr(states, "write_atomically", full)
    with pytest.raises(IngestFailed, match=r"the state cannot be written to .*: No space left on device; free space"):
        index_of(store, model).ingest([a_document(n) for n in range(90)], batch=10, resume=state)
    found = read_state(state)
    assert found is not None
    assert found[0].intervals == ((0, 20),)
    monkeypatch.setattr(states, "write_atomically", write)

    assert index_of(store, model).ingest([a_document(n) for n in range(90)], resume=state).confirmed == 90
    assert stored(store) == {f"d{n}": n for n in range(90)}


def test_temporary_errors_of_single_records_never_refuse_them(memory, model):
    """Only these records are sent again, as often as it takes."""
    store = memory("dense")
    sent = []

    def throttle_half(records: Sequence[Record], number: int) -> Any:
        sent.append([record.id for record in records])
        if number >= 3:
            return None
        busy = Throttled("busy", store="fake", operation="upsert", retry_after=0.0)

        def answer(inner: Store, given_records: Sequence[Record]) -> list[Rejected]:
            half = len(given_records) // 2
            inner.upsert(given_records[:half])
            return [Rejected(at, given_records[at].id, busy) for at in range(half, len(given_records))]

        return answer

    report = index_of(Breaking(store, throttle_half), model).ingest([a_document(n) for n in range(8)])

    assert (report.confirmed, report.refused_total) == (8, 0)
    assert sent[0] == [f"d{n}" for n in range(8)]
    assert sent[1][0] == "d4"
    assert stored(store) == {f"d{n}": n for n in range(8)}
    assert report.retries == 3


def test_an_error_that_does_not_concern_a_record_stops_at_once(memory, model):
    """A missing permission is not a reason to refuse documents."""
    store = memory("dense")

    def forbid(_records: Sequence[Record], _number: int) -> Any:
        denied = Permanent("the server answered 403", store="fake", operation="upsert", status=403)
        return lambda _store, records: [Rejected(0, records[0].id, denied)]

    with pytest.raises(IngestFailed, match="403") as caught:
        index_of(Breaking(store, forbid), model).ingest([a_document(0)])

    assert caught.value.report.refused_total == 0


def test_a_store_that_refuses_everything_stops_the_ingest(memory, model):
    """After a hundred documents, none of which it took: the mapping is wrong, and not the documents."""

    def refuse(_records: Sequence[Record], _number: int) -> Any:
        error = Refused("mapper conflict", store="fake", operation="upsert", status=400)
        return lambda _store, records: [Rejected(at, record.id, error) for at, record in enumerate(records)]

    store = Breaking(memory("dense"), refuse)
    with pytest.raises(IngestFailed, match="all of the first 100 documents were refused; the last reason: mapper"):
        index_of(store, model).ingest((a_document(n) for n in range(5000)), batch=20)


@pytest.mark.parametrize(("limit", "read"), [(10, 11), ("10", 11), ("5%", 101)])
def test_too_many_refused_documents_stop_the_ingest(memory, model, limit, read):
    """A number, or a share from the hundredth document on."""
    documents = ({"id": f"d{n}"} if n % 10 < 6 or n < 11 else a_document(n) for n in range(1000))
    with pytest.raises(IngestFailed, match="documents were refused, and the limit is") as caught:
        index_of(memory("dense"), model).ingest(documents, batch=1, max_refused=limit, writers=1)

    assert isinstance(caught.value.__cause__, TooManyRefusedError)
    assert caught.value.report.read == read


def test_the_state_and_the_letters_are_two_files(memory, model, tmp_path):
    """One would replace the other."""
    index = index_of(memory("dense"), model)
    with pytest.raises(ValueError, match="the state and the refused documents need two files"):
        index.ingest([a_document(0)], resume=tmp_path / "f", dead_letters=tmp_path / "." / "f")


def test_an_ingest_beyond_its_limit_does_not_resume(memory, model, tmp_path):
    """The documents that earlier runs refused count; with a higher limit it continues."""
    documents = [{"id": f"d{n}"} if n < 11 else a_document(n) for n in range(50)]
    index = index_of(memory("dense"), model)
    arguments = {"batch": 1, "writers": 1, "resume": tmp_path / "state.json"}
    with pytest.raises(IngestFailed, match="the limit is 10; the last reason"):
        index.ingest(documents, max_refused=10, **arguments)

    with pytest.raises(IngestFailed, match="11 of 11 documents were refused, and the limit is 10: raise it") as caught:
        index.ingest(documents, max_refused=10, **arguments)

    assert isinstance(caught.value.__cause__, TooManyRefusedError)
    assert caught.value.report.read == caught.value.report.resumed == 11
    assert index.ingest(documents, max_refused=11, **arguments).confirmed == 39


@pytest.mark.parametrize("limit", ["", "x", "-1", "101%", "-1%", "nan%"])
def test_an_invalid_limit_is_refused(memory, model, limit):
    """With an example of a valid one."""
    with pytest.raises(ValueError, match="such as 100 or 1%"):
        index_of(memory("dense"), model).ingest([], max_refused=limit)


def test_an_encoder_that_returns_too_few_vectors_stops_the_ingest(memory, model):
    """None of its vectors can be assigned to a text, so that no document is refused in its place."""
    model.encode_document = lambda texts: np.ones((len(texts) - 1, 16), np.float32)  # type: ignore[method-assign]

    with pytest.raises(IngestFailed, match="expected 3 vectors from the encoder, one per text, not 2"):
        index_of(memory("dense"), model).ingest([a_document(n) for n in range(3)])


def letters_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_refused_documents_are_written_whole_exactly_once(memory, model, tmp_path):
    """Also if the ingest ends between the letters and the state: the second run does not write them twice."""
    store, state, letters = memory("dense"), tmp_path / "state.json", tmp_path / "refused.jsonl"
    documents: list[dict[str, Any]] = [a_document(n) if n % 5 else {"id": f"d{n}", "n": [1, None]} for n in range(40)]
    add = Ledger.add

    def add_and_die(self: Ledger, batch: Any, report: IngestReport) -> IngestReport:
        if batch.start == 20:
            assert self._letters is not None
            self._letters.write(report.refused)
            raise KeyError("killed")
        return add(self, batch, report)

    Ledger.add = add_and_die  # type: ignore[method-assign]
    try:
        with pytest.raises(IngestFailed, match="killed"):
            index_of(store, model).ingest(documents, batch=10, resume=state, dead_letters=letters, writers=1)
    finally:
        Ledger.add = add  # type: ignore[method-assign]
    assert len(letters_of(letters)) == 6

    index_of(store, model).ingest(documents, batch=10, resume=state, dead_letters=letters)

    found = letters_of(letters)
    assert [letter["position"] for letter in found] == list(range(0, 40, 5))
    assert [letter["failedData"]["document"] for letter in found] == documents[::5]
    assert {(letter["stage"], letter["error"]["type"], letter["error"]["reason"]) for letter in found} == {
        ("read", "DocumentError", "'text' is missing")
    }


def test_a_broken_last_line_of_the_letters_is_repaired(memory, model, tmp_path):
    """A crash in the middle of a line."""
    letters = tmp_path / "refused.jsonl"
    index_of(memory("dense"), model).ingest([{"id": "a"}], dead_letters=letters)
    with letters.open("a") as file:
        file.write('{"pluginId": "st')

    index_of(memory("dense"), model).ingest([{"id": "b"}], dead_letters=letters)

    assert [letter["failedData"]["indexId"] for letter in letters_of(letters)] == ["a", "b"]


def test_a_restart_removes_the_letters_of_the_ingest_that_it_restarts(memory, model, tmp_path):
    """The documents are refused again; the letters of other ingests stay."""
    letters, state = tmp_path / "refused.jsonl", tmp_path / "state.json"
    index = index_of(memory("dense"), model)
    index.ingest([{"id": "other"}], dead_letters=letters)

    def broken() -> Iterator[dict[str, Any]]:
        yield {"id": "a"}
        yield {"id": "b"}
        raise OSError("gone")

    with pytest.raises(IngestFailed):
        index.ingest(broken(), batch=1, resume=state, dead_letters=letters)
    assert [letter["failedData"]["indexId"] for letter in letters_of(letters)] == ["other", "a", "b"]

    index.ingest([{"id": "b"}, {"id": "c"}], resume=Resume(state, restart=True), dead_letters=letters)

    assert [letter["failedData"]["indexId"] for letter in letters_of(letters)] == ["other", "b", "c"]


@pytest.mark.parametrize(
    ("origin", "remaining"),
    [((), "abc"), (("one",), "bc"), (("one", "1"), "bc"), (("one", "2"), "abc"), (("b",), "abc")],
)
def test_an_ingest_of_the_same_origin_replaces_letters(memory, model, tmp_path, origin, remaining):
    """Of the same collection only; without an origin, all letters remain."""
    path = tmp_path / "refused.jsonl"
    index_of(memory("dense"), model).ingest([{"id": "a"}], dead_letters=DeadLetterFile(path, ("one", "1")))
    elsewhere = index_of(memory("dense"), model)
    elsewhere._address = "memory:elsewhere"
    elsewhere.ingest([{"id": "b"}], dead_letters=DeadLetterFile(path, ("one", "1")))

    index_of(memory("dense"), model).ingest([{"id": "c"}], dead_letters=DeadLetterFile(path, origin))

    assert [letter["failedData"]["indexId"] for letter in letters_of(path)] == list(remaining)


def test_letters_in_use_are_refused(memory, model, tmp_path):
    """By another ingest."""
    letters = tmp_path / "refused.jsonl"
    refused = []

    def source() -> Iterator[dict[str, Any]]:
        yield a_document(0)
        try:
            index_of(memory("dense"), model).ingest([], dead_letters=letters)
        except FileInUseError as error:
            refused.append(str(error))

    index_of(memory("dense"), model).ingest(source(), dead_letters=letters)

    assert "is in use by another ingest, sync or replay" in refused[0]


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="folders have no owner here")
def test_locks_in_a_folder_of_another_user_are_refused(memory, model, tmp_path, monkeypatch):
    """The message is about the folder of locks, not about the state or the letters."""
    user = os.getuid() + 1
    monkeypatch.setattr(locks.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(locks.os, "getuid", lambda: user)
    folder = tmp_path / f"st-connectors-{user}"
    message = f"the folder of locks {folder} belongs to another user (number {user - 1}); remove it, or name another"

    for arguments in ({"resume": tmp_path / "state.json"}, {"dead_letters": tmp_path / "refused.jsonl"}):
        with pytest.raises(LockError, match=re.escape(message)):
            index_of(memory("dense"), model).ingest([a_document(0)], **arguments)

    assert not (tmp_path / "state.json").exists()


def test_locks_in_a_file_are_refused(memory, model, tmp_path, monkeypatch):
    """Their folder cannot be created."""
    place = tmp_path / "place"
    place.write_text("")
    monkeypatch.setattr(locks.tempfile, "gettempdir", lambda: str(place))
    with pytest.raises(LockError, match=f"the folder of locks {re.escape(str(place))}.* cannot be created: Not a dir"):
        index_of(memory("dense"), model).ingest([a_document(0)], resume=tmp_path / "state.json")


def test_a_store_that_cannot_count_its_records_fails_the_ingest(memory, model, tmp_path):
    """Before the first document, with the report of the earlier runs."""
    store, state = memory("dense"), tmp_path / "state.json"

    def half() -> Iterator[dict[str, Any]]:
        yield from map(a_document, range(20))
        raise OSError("gone")

    with pytest.raises(IngestFailed):
        index_of(store, model).ingest(half(), batch=10, resume=state)
    failing = Breaking(store)
    failing.count = lambda *_arguments: raise_(GONE)  # type: ignore[attr-defined]

    with pytest.raises(IngestFailed, match="gone") as caught:
        index_of(failing, model).ingest(map(a_document, range(30)), resume=state)

    assert caught.value.__cause__ is GONE
    assert (caught.value.report.read, caught.value.report.resumed) == (20, 20)
    assert index_of(store, model).ingest(map(a_document, range(30)), resume=state).resumed == 20


def raise_(error: Exception) -> Any:
    raise error


class Looking(Breaking):
    """A store whose lookups, deletions and refreshes fail once each."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.failed: list[str] = []

    def _fail_once(self, name: str) -> None:
        if name not in self.failed:
            self.failed.append(name)
            raise GONE

    def get(self, *arguments: Any, **options: Any) -> Any:
        self._fail_once("get")
        return self._store.get(*arguments, **options)

    def delete(self, ids: Sequence[str]) -> None:
        self._fail_once("delete")
        self._store.delete(ids)

    def refresh(self) -> None:
        self._fail_once("refresh")
        self._store.refresh()


def test_a_store_that_is_down_is_waited_for_by_every_operation(memory, model, monkeypatch):
    """Looking up windows, removing those that are stale, and the last refresh."""
    from st_connectors import index as module
    from st_connectors.index import Split

    monkeypatch.setattr(module, "spans_of", lambda *_: lambda text: [(at, at + 4) for at in range(0, len(text), 4)])
    store = memory("dense")
    index_of(store, model).ingest([{"id": "a", "text": "text 1 text 2", "number": 1}], split=Split(8))
    looking = Looking(store)

    index_of(looking, model).ingest(
        [{"id": "a", "text": "text", "number": 1}], split=Split(8), patience=Patience(60, 0, 0)
    )

    assert sorted(looking.failed) == ["delete", "get", "refresh"]
    assert stored(store) == {"a": 1}


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Let Ctrl-C interrupt this process, which the processes of pytest-xdist ignore."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_a_second_interrupt_ends_the_ingest_at_once(memory, model, tmp_path):
    """Nothing that the store acknowledges later is counted: it is written again by the next run."""
    store, state = memory("dense"), tmp_path / "state.json"
    reached, released, written = threading.Event(), threading.Event(), threading.Event()

    def hold(records: Sequence[Record], _number: int) -> Any:
        if records[0].id != "d20":
            return None

        def write_late(inner: Store, held: Sequence[Record]) -> list[Rejected]:
            reached.set()
            released.wait(60)
            answer = inner.upsert(held)
            written.set()
            return answer

        return write_late

    def source() -> Iterator[dict[str, Any]]:
        yield from (a_document(n) for n in range(30))
        assert reached.wait(60)
        raise KeyboardInterrupt

    with pytest.raises(IngestInterrupted) as caught:
        index_of(Breaking(store, hold), model).ingest(
            source(), batch=10, resume=state, writers=1, on_interrupt=_interrupt_again
        )

    assert caught.value.report.confirmed == 20
    released.set()
    assert written.wait(60)
    found = read_state(state)
    assert found is not None
    assert found[0].intervals == ((0, 20),)
    assert index_of(store, model).ingest([a_document(n) for n in range(30)], resume=state).confirmed == 30


def _interrupt_again() -> None:
    """Send the signal from another thread, so that it reaches the main thread wherever it waits."""
    main = threading.main_thread().ident
    assert main is not None
    threading.Thread(target=lambda: signal.pthread_kill(main, signal.SIGINT)).start()
