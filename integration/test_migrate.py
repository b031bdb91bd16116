"""Migrations on real servers: searched, written and killed meanwhile; a mark names the engine, as in ``ST_REQUIRE``."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

from integration.stores import address_of
from st_connectors import Index, collections, open_store
from st_connectors.errors import NotFound, SchemaMismatch, Unavailable
from st_connectors.ingest import IngestFailed
from st_connectors.migrating import Migrator, drop_old
from st_connectors.store import Parts
from st_connectors.testing.faults import BlackHole, Fault, FaultProxy, Hold, Pass, Seen
from st_core import SentenceTransformer, builtin

COMMAND = "import sys; from st_connectors.cli import run; sys.exit(run(sys.argv[1:]))"
COUNT = 120
WORDS = ["sea", "boat", "kettle", "paper", "planet", "glass", "violin", "harbour", "winter", "engine", "garden"]


@pytest.fixture(
    params=[pytest.param(each, marks=pytest.mark.engine(each)) for each in ("elasticsearch-9", "opensearch")]
)
def address(request, engines) -> Iterator[str]:
    """Yield a server of each engine, without the collections of these tests."""
    url = address_of(request.param, engines.url(request.param))
    drop_all(url)
    yield url
    drop_all(url)


def drop_all(url: str) -> None:
    """Drop the collections of these tests; the first one of a name drops the others."""
    for name in collections(url):
        if name.startswith("migrated"):
            with suppress(NotFound), closing(open_store(url, name)) as store:
                store.drop()


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> Path:
    """Return the folder of another model: the built-in one, with the order of its dimensions reversed."""
    from safetensors.numpy import load_file, save_file

    folder = tmp_path_factory.mktemp("models") / "other"
    shutil.copytree(builtin.path("dense"), folder)
    [weights] = folder.rglob("*.safetensors")
    tables = load_file(weights)
    reversed_tables = {
        key: np.ascontiguousarray(each[:, ::-1]) if each.ndim == 2 else each for key, each in tables.items()
    }
    save_file(reversed_tables, weights)
    return folder


def make_texts(count: int) -> dict[str, str]:
    generator = random.Random(7)
    return {f"d {at}": " ".join(generator.choices(WORDS, k=generator.randint(3, 30))) for at in range(count)}


def create(address: str, texts: dict[str, str]) -> Index:
    """Create a collection with these texts."""
    index = Index.create(
        address, collection="migrated", dense="builtin:dense", sparse="builtin:sparse", filterable={"n": "int"}
    )
    index.ingest({"id": key, "text": text, "n": at} for at, (key, text) in enumerate(texts.items()))
    return index


def check_content(address: str, texts: dict[str, str], model: str | Path) -> None:
    """Compare the collection of the name with the vectors that a model has for these texts."""
    encoder = SentenceTransformer(builtin.DENSE if model == builtin.DENSE else str(model))
    with Index.open(address, collection="migrated") as index:
        index.store.refresh()
        stored = {record.id: record for record in index.store.scan()}
        assert index.count() == len(stored)
    assert {key: record.payload["text"] for key, record in stored.items()} == texts
    rows = encoder.encode_document(list(texts.values()), normalize_embeddings=True)
    for key, row in zip(texts, rows, strict=True):
        np.testing.assert_allclose(stored[key].vectors["dense"], row, rtol=1e-5, atol=1e-6)
        assert stored[key].vectors["sparse"].indices.size


@contextmanager
def repeating(work: Callable[[], None]) -> Iterator[None]:
    """Repeat a function in another thread during the block; raise its error afterwards."""
    ended = threading.Event()

    def run() -> int:
        calls = 0
        while not ended.is_set():
            work()
            calls += 1
        return calls

    with ThreadPoolExecutor(1) as pool:
        calls = pool.submit(run)
        try:
            yield
        finally:
            ended.set()
        assert calls.result() > 1


def check_search(index: Index) -> None:
    """Search, and compare the vectors of the hits with those that the model of the index computes."""
    hits = index.search("a boat at sea", limit=5).hits
    assert len(hits) == 5
    records = index.get([hit.id for hit in hits], parts=Parts.PAYLOAD | Parts.VECTORS)
    model = index.models["dense"].load()
    for record in records:
        row = model.encode_document([record.payload["text"]], normalize_embeddings=True)[0]
        np.testing.assert_allclose(record.vectors["dense"], row, rtol=1e-5, atol=1e-6)


class Writer:
    """A program that writes all the time, and opens the collection again when an error says so."""

    def __init__(self, address: str, texts: dict[str, str]) -> None:
        self.texts = texts
        self.refused = 0
        self._address = address
        self._random = random.Random(3)
        self._index = Index.open(address, collection="migrated")

    def write(self) -> None:
        """Write a document, or delete one."""
        key = f"d {self._random.randrange(COUNT + 50)}"
        if self._random.random() < 0.2:
            self._repeat(lambda: self._index.delete([key]))
            self.texts.pop(key, None)
        else:
            text = " ".join(self._random.choices(WORDS, k=8))
            self._repeat(lambda: self._index.ingest([{"id": key, "text": text}]))
            self.texts[key] = text

    def _repeat(self, call: Callable[[], object]) -> None:
        """Call a function, again after the error of a switch, until there is none."""
        while not self._try(call):
            self.refused += 1
            self._index.close()
            self._index = Index.open(self._address, collection="migrated")

    def _try(self, call: Callable[[], object]) -> bool:
        try:
            call()
        except (SchemaMismatch, Unavailable):
            return False
        except IngestFailed as error:
            if not isinstance(error.__cause__, SchemaMismatch | Unavailable):
                raise
            return False
        return True

    def close(self) -> None:
        """Close the collection."""
        self._index.close()


def test_searches_and_writes_go_on(address, other):
    """Readers have no error and no mix of models; writes reach the new collection, and after --back the old one."""
    texts = make_texts(COUNT)
    with create(address, texts) as old, closing(Writer(address, texts)) as writer:

        def open_and_search() -> None:
            with Index.open(address, collection="migrated") as fresh:
                check_search(fresh)

        with repeating(lambda: check_search(old)), repeating(open_and_search):
            with repeating(writer.write), Migrator.start(old, dense=str(other)) as migrator:
                migrator.fill(batch=32)
                migrator.switch(batch=32)
            check_content(address, writer.texts, other)
            with repeating(writer.write), Index.open(address, collection="migrated") as now, Migrator.back(now) as back:
                back.fill(batch=32)
                back.switch(batch=32)
            check_content(address, writer.texts, builtin.DENSE)
        assert writer.refused >= 2
    with Index.open(address, collection="migrated") as index:
        assert drop_old(index) == "migrated~2"
    assert "migrated~2" not in collections(address)


def is_change(seen: Seen) -> bool:
    return seen.method == "PUT" or "_bulk" in seen.path


def run_and_kill(number: int, fault: Fault, proxy: FaultProxy, command: list[str]) -> int:
    """Run a command, kill it during the change of this number unless it ends before, and return its status.

    The status is 0 too if nothing is left to do, because the killed command was complete.
    """
    proxy.seen.clear()
    proxy.order(*[Pass()] * number, fault, only=is_change)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as child:
        while sum(map(is_change, list(proxy.seen))) <= number:
            with suppress(subprocess.TimeoutExpired):
                child.wait(0.05)
                break
        else:
            child.send_signal(signal.SIGKILL)
        errors = child.communicate()[1]
    if any(each in errors for each in ("undone already", "no previous collection")):
        return 0
    assert child.returncode in {0, -signal.SIGKILL}, errors
    return child.returncode


@pytest.mark.parametrize("fault", [BlackHole(), Hold()], ids=["before", "during"])
def test_a_killed_command_is_completed_by_the_same_command(address, other, fault):
    """Killed before or during a change, each time a later one, until it ends; likewise --back and --drop-old."""
    texts = make_texts(100)
    create(address, texts).close()
    parts = urlsplit(address)
    with FaultProxy((parts.hostname, parts.port)) as proxy:
        through = f"{parts.scheme}://{proxy.host}:{proxy.port}?timeout=30"
        command = [sys.executable, "-c", COMMAND, "migrate", "--in", through, "--collection", "migrated"]

        def complete(*options: str) -> int:
            number = 0
            while run_and_kill(number, fault, proxy, [*command, *options, "--yes", "--batch", "32"]):
                number += 1
                with Index.open(address, collection="migrated") as reader:
                    check_search(reader)
                assert number < 20
            return number

        assert complete("--dense", str(other)) >= 3
        check_content(address, texts, other)
        assert complete("--back") >= 1
        check_content(address, texts, builtin.DENSE)
        complete("--drop-old")
        assert collections(address).count("migrated~2") == 0


@pytest.mark.parametrize(
    "changes",
    [{"metric": "dot"}, {"quantization": "int8"}, {"filterable": {"year": "int"}}],
    ids=["metric", "quantization", "filterable"],
)
def test_other_settings(address, changes):
    """The new collection has the setting, and the vectors of the same model."""
    texts = make_texts(60)
    with create(address, texts) as index:
        with Migrator.start(index, **changes) as migrator:
            migrator.fill()
            migrator.switch()
        filterable = {**index.schema.filterable, **changes.get("filterable", {})}
    with Index.open(address, collection="migrated") as now:
        options = {key: value for key, value in changes.items() if key != "filterable"}
        assert asdict(now.schema.fields["dense"]).items() >= options.items()
        assert dict(now.schema.filterable) == filterable
        check_search(now)
    check_content(address, texts, builtin.DENSE)
