"""Ingest documents of which some are poisoned: exactly these are dead letters, each once."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from integration.faults.checking import compare
from integration.faults.command import ingest_command, letters_in
from integration.faults.material import NAME, Document, expected, make_documents
from integration.faults.outcome import Outcome
from integration.faults.places import Setting, drop
from st_connectors import Index
from st_core.errors import InputTooLong

__all__ = ["HUGE", "LINES", "poison"]

EVERY = 100
"""One document of so many is poisoned."""
HUGE = 200_000_000
"""The bytes of the largest line."""
MAX_DOCUMENT = 1_000_000

LINES: dict[str, Callable[[str], bytes]] = {
    "an empty id": lambda text: _line(id="", text=text),
    "an id of 513 bytes": lambda text: _line(id="i" * 513, text=text),
    "no id": lambda text: _line(text=text),
    "an id that is null": lambda text: _line(id=None, text=text),
    "an id that is a list": lambda text: _line(id=["a"], text=text),
    "an id that is a fraction": lambda text: _line(id=1.5, text=text),
    "half of a surrogate pair in the id": lambda text: _line(id="\ud800", text=text),
    "no text": lambda text: _line(id=f"no text {len(text)}"),
    "a text that is a number": lambda _: _line(id="number", text=5),
    "a filterable field of another type": lambda text: _line(id="type", text=text, year="unknown"),
    "a filterable field beyond 64 bits": lambda text: _line(id="beyond", text=text, year=2**70),
    "an over-long document": lambda text: _line(id="long", text=text * (MAX_DOCUMENT // len(text) + 2)),
    "bytes that are not UTF-8": lambda text: _line(id="utf-8", text=text).replace(b"utf-8", b"\x81\x8d\xff"),
    "NaN": lambda text: _line(id="nan", text=text, weight=float("nan")),
    "a number beyond the range of floats": lambda text: _line(id="huge", text=text).replace(b"}", b', "a": 1e999}'),
    "half an object": lambda text: _line(id="half", text=text)[:-4],
    "a list": lambda text: json.dumps([text]).encode(),
    "nesting without end": lambda text: _line(id="deep", text=text).replace(b"}", b', "a": ' + b"[" * 9000 + b"}"),
    "a line of 200 MB": lambda text: _line(id="200 MB", text=text),  # made long by `_write`
}
"""Lines that are no documents of the collection, by what is wrong, from the text of a document."""


def _line(**document: object) -> bytes:
    return json.dumps(document).encode()


def poison(setting: Setting) -> Outcome:
    """Ingest a file with poisoned lines by the command, and documents that an encoder or the store refuses."""
    return _poison_lines(setting) + _poison_vectors(setting)


def _poison_lines(setting: Setting) -> Outcome:
    source = [{**each, "year": 1990} for each in make_documents(setting.documents, setting.seed)]
    path = setting.folder / "source.jsonl"
    poisoned = _write(path, source)
    good = [document for number, document in enumerate(source, 1) if number not in poisoned]
    arguments = ("--max-document", str(MAX_DOCUMENT), "--encoding", "utf-8")
    drop(setting)
    try:
        child = ingest_command(path, setting.address, setting.folder, arguments).run()
        outcome = Outcome(len(source), runs=1, faults=len(poisoned), retries=child.retries)
        outcome += compare(setting, expected(good)) + _check_places(letters_in(setting.folder), poisoned)
        if child.status != 1 or child.report.get("refused_total") != len(poisoned):
            outcome += Outcome(problem=f"the command ended with {child.status}: {child.messages[-3:]}")
    finally:
        drop(setting)
        path.unlink()
    return outcome


def _write(path: Path, source: Sequence[Document]) -> dict[int, str]:
    """Write a file in which every hundredth line is poisoned; return what is wrong by the number of the line."""
    kinds = list(LINES)
    poisoned: dict[int, str] = {}
    with path.open("wb") as file:
        for number, document in enumerate(source, 1):
            if number % EVERY:
                file.write(_line(**document) + b"\n")
                continue
            at = len(poisoned)
            # The largest line occurs once.
            kind = kinds[-1] if at == 1 else kinds[at % (len(kinds) - 1)]
            poisoned[number] = kind
            line = LINES[kind](str(document["text"]))
            file.write(line.replace(b'"text": "', b'"text": "' + b"x" * HUGE) if at == 1 else line)
            file.write(b"\n")
    return poisoned


def _check_places(letters: Path, poisoned: dict[int, str]) -> Outcome:
    """Compare the lines of the source that dead letters name with those that are poisoned."""
    lines = [json.loads(line) for line in letters.read_text(encoding="utf-8").splitlines()]
    counts = Counter(letter["source"]["position"] for letter in lines)
    problems = [f"there is no dead letter for {poisoned[number]}" for number in poisoned if not counts[number]]
    problems += [f"line {number} has {count} dead letters" for number, count in counts.items() if count > 1]
    problems += [f"line {number} is refused, and is not poisoned" for number in counts if number not in poisoned]
    return Outcome(letters=len(lines), problem="; ".join(problems))


DENSE = {"not a number": np.nan, "infinite": np.inf}
"""Weights of a dense vector, by the word that a poisoned text begins with."""


class Poisoned:
    """A dense model whose vectors are wrong for texts that begin with the name of a fault."""

    def __init__(self, model: Any) -> None:
        """Wrap a model."""
        self._model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def encode_document(self, inputs: list[str], **_: object) -> Any:
        """Return the vectors; raise InputTooLong for a text that is too long for this model."""
        if any(text.startswith("too long") for text in inputs):
            raise InputTooLong("a text has more tokens than the model takes")
        vectors = list(map(self._vector, inputs, self._model.encode_document(inputs)))
        return np.stack(vectors) if len({len(vector) for vector in vectors}) == 1 else vectors

    def _vector(self, text: str, vector: np.ndarray) -> np.ndarray:
        for word, weight in DENSE.items():
            if text.startswith(word):
                return np.full_like(vector, weight)
        return vector[:-1] if text.startswith("short") else vector


VECTORS = (*DENSE, "short", "too long")


def _poison_vectors(setting: Setting) -> Outcome:
    """Ingest with a model whose vectors have wrong weights and dimensions, and which refuses long texts."""
    source = make_documents(setting.documents, setting.seed + 1)
    good = [{**each, "year": 1990} for number, each in enumerate(source, 1) if number % EVERY]
    letters = setting.folder / "refused.jsonl"
    drop(setting)
    Index.create(setting.address, collection=NAME, dense="builtin:dense", sparse="builtin:sparse").close()
    try:
        with closing(Index.open(setting.address, collection=NAME, dense=Poisoned(_dense()), trust_model=True)) as index:
            report = index.ingest(_poisoned_texts(source), dead_letters=letters)
        wanted = {f"poisoned {number}" for number in range(EVERY, len(source) + 1, EVERY)}
        named = [json.loads(line)["failedData"]["indexId"] for line in letters.read_text().splitlines()]
        outcome = Outcome(len(source), runs=1, faults=len(wanted), retries=report.retries, letters=len(named))
        if sorted(named) != sorted(wanted):
            outcome += Outcome(problem=f"the dead letters have {set(named) ^ wanted} too much or too little")
        return outcome + compare(setting, expected(good))
    finally:
        drop(setting)


def _dense() -> Any:
    from st_core import SentenceTransformer

    return SentenceTransformer("builtin:dense")


def _poisoned_texts(source: Sequence[Document]) -> Iterator[Document]:
    for number, document in enumerate(source, 1):
        if number % EVERY:
            yield {**document, "year": 1990}
        else:
            kind = VECTORS[number // EVERY % len(VECTORS)]
            yield {**document, "id": f"poisoned {number}", "year": 1990, "text": f"{kind} {document['text']}"}
