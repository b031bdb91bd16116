"""``--backend`` and ``--dtype`` of the commands that use an index: an exported folder needs no torch, and mistakes cost one line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

import st_core
from st_connectors import Index

pytest.importorskip("qdrant_edge")
pytest.importorskip("openvino", reason="needs openvino")

MODELS = {
    "dense": ("SentenceTransformer", "bert-mean"),
    "sparse": ("SparseEncoder", "splade-sum"),
    "reranker": ("CrossEncoder", "rerank-bert"),
}
WITHOUT_TORCH = """
import sys
sys.modules["torch"] = sys.modules["transformers"] = None
from st_connectors.cli import main
main()
"""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache for each test, of the processes that it starts too."""
    monkeypatch.setenv("ST_CONNECTORS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folders(exports, tmp_path):
    """Exported folders of three models with nothing but their int8 graphs."""
    found = {}
    for field, (_, name) in MODELS.items():
        folder = shutil.copytree(exports.folder(name, "openvino", "int8"), tmp_path / name)
        shutil.rmtree(next((folder / "graphs").glob("openvino-float32-*")))
        found[field] = str(folder)
    return found


@pytest.fixture
def where(tmp_path):
    return ["--in", f"qdrant+edge:{tmp_path / 'library'}", "--collection", "books"]


def making(folders):
    """The options of a new collection."""
    return ["--create", *(word for field, folder in folders.items() for word in (f"--{field}", folder))]


def without_torch(*arguments):
    """What a command leaves in a process that cannot import torch: status, standard output and standard error."""
    command = [sys.executable, "-c", WITHOUT_TORCH, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.torch
def test_exported_folders_fill_and_search_a_collection_without_torch(folders, books, where):
    """With the hits and scores of an index of the objects; the type is named once, and the collection remembers it."""
    made = without_torch("ingest", books, *where, *making(folders), "--backend", "openvino", "--dtype", "int8")
    more = without_torch("ingest", books, *where, "--backend", "openvino")
    plain = without_torch("search", "a voyage", *where, "--backend", "openvino", "--json")
    ranked = without_torch(
        "search", "a voyage", *where, "--rerank", "--backend", "openvino", "--dtype", "int8", "--json"
    )

    assert [(status, err) for status, _, err in (made, more, plain, ranked)] == [(0, "")] * 4
    models = {
        field: getattr(st_core, kind)(folders[field], backend="openvino", dtype="int8")
        for field, (kind, _) in MODELS.items()
    }
    with Index.create("memory:running of objects", collection="books", **models) as index:
        index.ingest([json.loads(line) for line in books.read_text(encoding="utf-8").splitlines()])
        for rerank, (_, out, _) in ((False, plain), (True, ranked)):
            expected = json.loads(json.dumps(index.search("a voyage", rerank=rerank).to_json()))
            found = json.loads(out)
            assert [hit["id"] for hit in found["hits"]] == [hit["id"] for hit in expected["hits"]]
            scores = [[hit["score"] for hit in each["hits"]] for each in (found, expected)]
            assert scores[0] == pytest.approx(scores[1], abs=1e-6)


@pytest.mark.torch
def test_what_cannot_be_loaded_without_torch_names_what_can(folders, books, where):
    """Forgetting the backend, or asking for a type that the folder lacks, is status 2 and one line with the right words."""
    options = [*where, *making(folders)]
    for running in (
        [],
        ["--backend", "auto"],
        ["--backend", "openvino"],
        ["--backend", "openvino", "--dtype", "bfloat16"],
    ):
        status, out, err = without_torch("ingest", books, *options, *running)

        [line] = err.splitlines()
        assert (status, out) == (2, "")
        assert "the folder has graphs already, load it with backend='openvino', dtype='int8'" in line
    assert without_torch("count", *where)[0] == 3


@pytest.mark.torch
def test_a_type_that_the_collection_was_not_made_in(cli, folders, books, where):
    """Status 3, with both types, also for an ingest; --trust-model searches all the same, and ingests into what is there."""
    running = ["--backend", "openvino", "--dtype"]
    assert cli("ingest", books, *where, *making(folders), *running, "int8").status == 0

    for command in (["search", "a voyage"], ["ingest", books]):
        outcome = cli(*command, *where, *running, "float32")
        assert outcome.status == 3
        assert "differs in precision (int8 then, float32 now)" in outcome.complaint()
    again = cli("ingest", books, *where, *making(folders), "--backend", "openvino")
    assert again.status == 3
    assert "in its precision, int8 and not float32" in again.complaint()
    trusted = cli("search", "a voyage", *where, *running, "float32", "--trust-model", "--json")
    assert (trusted.status, len(trusted.json["hits"])) == (0, 3)
    ingested = cli("ingest", books, *where, *running, "float32", "--trust-model", "--json")
    assert (ingested.status, ingested.json["confirmed"]) == (0, 3)
    made = cli("ingest", books, *where, "--create", "--trust-model")
    assert made.status == 2
    assert "leave out --create" in made.complaint()


@pytest.mark.torch
def test_create_takes_them_too(cli, folders, books, where):
    """The collection is made in the type that is named, and ingest goes on in it."""
    models = making(folders)[1:]
    outcome = cli("create", *where, *models, "--backend", "openvino", "--dtype", "int8", "--json")

    assert (outcome.status, outcome.err) == (0, "")
    assert {ref["precision"] for ref in outcome.json["models"].values()} == {"int8"}
    assert cli("ingest", books, *where, "--backend", "openvino", "--dtype", "int8").status == 0


@pytest.mark.torch
def test_a_missing_runtime(cli, folders, books, where, monkeypatch):
    """Status 2, with the command that installs it, and nothing is made."""
    monkeypatch.setitem(sys.modules, "openvino", None)

    outcome = cli("ingest", books, *where, *making(folders), "--backend", "openvino", "--dtype", "int8")

    assert outcome.status == 2
    assert "pip install 'st-connectors[openvino]'" in outcome.complaint()
    assert cli("count", *where).status == 3


@pytest.mark.parametrize("command", ["search", "ingest", "ingest --create", "create"])
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--backend", "tensorrt"], "there is no backend 'tensorrt'; there are torch, onnx, openvino, auto"),
        (["--backend", ""], "there is no backend ''"),
        (["--dtype", "int8"], "dtype='int8' needs backend='onnx' or backend='openvino'"),
        (["--dtype", "flaot32"], "backend 'torch' has no type 'flaot32'; there are float32"),
        (["--dtype", ""], "there is no type ''"),
        (["--backend", "onnx", "--dtype", "int4"], "backend 'onnx' has no type 'int4'"),
        (["--backend", "auto", "--dtype", "int8"], "for dtype='int8' name the backend"),
    ],
)
def test_what_runs_nothing(cli, library, books, command, arguments, says):
    """Status 2 and the library's own words, also where all models are built in."""
    name, *more = command.split()
    first = {"search": ["ocean"], "ingest": [books], "create": []}[name]

    outcome = cli(name, *first, *library, *more, *arguments)

    assert outcome.status == 2
    assert says in outcome.complaint()


@pytest.mark.parametrize(
    "running", [["--backend", "openvino", "--dtype", "int8"], ["--backend", "auto"], ["--dtype", "float32"]]
)
def test_built_in_models_take_any(cli, library, books, running):
    """They run on numpy: the same answer, and ingest needs no --create to take them."""
    expected = cli("search", "ocean", *library, "--json").json

    assert cli("ingest", books, *library, *running).status == 0
    assert cli("search", "ocean", *library, *running, "--json").json == expected
