"""``--backend`` and ``--dtype`` of the commands that use an index.

An exported folder needs no torch, and a mistake is reported as one line.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

import st_core
from st_connectors import Index
from st_core.install import install_command

pytest.importorskip("qdrant_edge")
pytest.importorskip("openvino", reason="needs openvino")

pytestmark = pytest.mark.long

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
    """Give each test, and the processes that it starts, a cache of its own."""
    monkeypatch.setenv("ST_CONNECTORS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folders(exports, tmp_path):
    """Return exported folders of three models, each with its int8 graph only."""
    paths = {}
    for field, (_, name) in MODELS.items():
        folder = shutil.copytree(exports.folder(name, "openvino", "int8"), tmp_path / name)
        shutil.rmtree(next((folder / "graphs").glob("openvino-float32-*")))
        paths[field] = str(folder)
    return paths


@pytest.fixture
def target(tmp_path):
    return ["--in", f"qdrant+edge:{tmp_path / 'library'}", "--collection", "books"]


def creating(folders):
    """Return the options of a new collection."""
    return ["--create", *(word for field, folder in folders.items() for word in (f"--{field}", folder))]


def without_torch(*arguments):
    """Run a command in a process that cannot import torch; return status, standard output and standard error."""
    command = [sys.executable, "-c", WITHOUT_TORCH, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.torch
def test_exported_folders_fill_and_search_a_collection_without_torch(folders, books, target):
    """Hits and scores equal those of loaded models; the dtype is passed once and recorded in the collection."""
    created = without_torch("ingest", books, *target, *creating(folders), "--backend", "openvino", "--dtype", "int8")
    repeated = without_torch("ingest", books, *target, "--backend", "openvino")
    plain = without_torch("search", "a voyage", *target, "--backend", "openvino", "--json")
    reranked = without_torch(
        "search", "a voyage", *target, "--rerank", "--backend", "openvino", "--dtype", "int8", "--json"
    )

    assert [(status, err) for status, _, err in (created, repeated, plain, reranked)] == [(0, "")] * 4
    models = {
        field: getattr(st_core, kind)(folders[field], backend="openvino", dtype="int8")
        for field, (kind, _) in MODELS.items()
    }
    with Index.create("memory:running of objects", collection="books", **models) as index:
        index.ingest([json.loads(line) for line in books.read_text(encoding="utf-8").splitlines()])
        for rerank, (_, out, _) in ((False, plain), (True, reranked)):
            expected = json.loads(json.dumps(index.search("a voyage", rerank=rerank).to_json()))
            actual = json.loads(out)
            assert [hit["id"] for hit in actual["hits"]] == [hit["id"] for hit in expected["hits"]]
            scores = [[hit["score"] for hit in each["hits"]] for each in (actual, expected)]
            assert scores[0] == pytest.approx(scores[1], abs=1e-6)


@pytest.mark.torch
def test_a_folder_without_the_requested_graph_names_those_it_has(folders, books, target):
    """A missing backend, or a dtype that the folder lacks, is status 2 and one line with the arguments that work."""
    options = [*target, *creating(folders)]
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
    assert without_torch("count", *target)[0] == 3


@pytest.mark.torch
@pytest.mark.filterwarnings("always::st_connectors.errors.ModelWarning")
def test_a_dtype_other_than_the_recorded_one(cli, folders, books, target):
    """The status is 3 and the message has both dtypes, unless ``--trust-model`` is set; it excludes ``--create``.

    A line says that texts are encoded otherwise than those in the collection.
    """
    warning = "st-connectors: warning: the dense and sparse vectors of 'books' were computed by openvino int8; "
    running = ["--backend", "openvino", "--dtype"]
    assert cli("ingest", books, *target, *creating(folders), *running, "int8").status == 0

    for command in (["search", "a voyage"], ["ingest", books]):
        outcome = cli(*command, *target, *running, "float32")
        assert outcome.status == 3
        warned, line = outcome.err.splitlines()
        assert warned.startswith(warning)
        assert "differs in precision (int8 then, float32 now)" in line
    again = cli("ingest", books, *target, *creating(folders), "--backend", "openvino")
    assert again.status == 3
    assert "in its precision, int8 and not float32" in again.error_line()
    trusted = cli("search", "a voyage", *target, *running, "float32", "--trust-model", "--json")
    assert (trusted.status, len(trusted.json["hits"])) == (0, 3)
    assert trusted.err.startswith(warning)
    ingested = cli("ingest", books, *target, *running, "float32", "--trust-model", "--json")
    assert (ingested.status, ingested.json["confirmed"]) == (0, 3)
    creating_too = cli("ingest", books, *target, "--create", "--trust-model")
    assert creating_too.status == 2
    assert "--trust-model applies to existing collections only" in creating_too.error_line()


@pytest.mark.torch
def test_create_accepts_backend_and_dtype(cli, folders, books, target):
    """The collection records the dtype, and ingest continues with it."""
    models = creating(folders)[1:]
    outcome = cli("create", *target, *models, "--backend", "openvino", "--dtype", "int8", "--json")

    assert (outcome.status, outcome.err) == (0, "")
    assert {ref["precision"] for ref in outcome.json["models"].values()} == {"int8"}
    assert cli("ingest", books, *target, "--backend", "openvino", "--dtype", "int8").status == 0


@pytest.mark.torch
def test_a_missing_runtime(cli, folders, books, target, monkeypatch):
    """The status is 2, the message has the command that installs the runtime, and nothing is created."""
    monkeypatch.setitem(sys.modules, "openvino", None)

    outcome = cli("ingest", books, *target, *creating(folders), "--backend", "openvino", "--dtype", "int8")

    assert outcome.status == 2
    assert install_command("openvino") in outcome.error_line()
    assert cli("count", *target).status == 3


@pytest.mark.parametrize("command", ["search", "ingest", "ingest --create", "create"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--backend", "tensorrt"], "unknown backend 'tensorrt'; expected one of torch, onnx, openvino, auto"),
        (["--backend", ""], "unknown backend ''"),
        (["--dtype", "int8"], "dtype='int8' needs backend='onnx' or backend='openvino'"),
        (["--dtype", "flaot32"], "unknown dtype 'flaot32' for backend 'torch'; expected one of float32"),
        (["--dtype", ""], "dtype is empty"),
        (["--backend", "onnx", "--dtype", "int4"], "unknown dtype 'int4' for backend 'onnx'"),
        (["--backend", "auto", "--dtype", "int8"], "for dtype='int8' name the backend"),
    ],
)
def test_unknown_backends_and_dtypes(cli, library, books, command, arguments, message):
    """The status is 2 with the message of the library, also if all models are built in."""
    name, *more = command.split()
    first = {"search": ["ocean"], "ingest": [books], "create": []}[name]

    outcome = cli(name, *first, *library, *more, *arguments)

    assert outcome.status == 2
    assert message in outcome.error_line()


@pytest.mark.parametrize(
    "running", [["--backend", "openvino", "--dtype", "int8"], ["--backend", "auto"], ["--dtype", "float32"]]
)
def test_built_in_models_accept_any_backend(cli, library, books, running):
    """Built-in models run on numpy: the hits are the same, and ingest needs no ``--create``."""
    expected = cli("search", "ocean", *library, "--json").json

    assert cli("ingest", books, *library, *running).status == 0
    assert cli("search", "ocean", *library, *running, "--json").json == expected
