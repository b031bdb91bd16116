"""``st-connectors setup`` on a real OpenSearch: plain ``_bulk`` equals ``Index.ingest``, and searches are the same.

The texts are Cranfield's if the folder ``cranfield`` exists under ``ST_BENCH_DATA``, otherwise docstrings of Python.
The encoder server is a process of its own with a key, the built-in models and a small reranker with random weights.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from integration.engines import Engines
from integration.stores import address_of
from st_connectors import Index
from st_connectors.cli import run
from st_connectors.setup.encoder import Encoder, Model
from st_connectors.setup.opensearch.plan import search_body
from st_connectors.setup.options import Options
from st_connectors.store import Parts
from st_core import SentenceTransformer, SparseEncoder
from st_core.builtin import path as builtin_path
from st_core.protocols import ModelKind

pytest.importorskip("opensearchpy", reason="needs the opensearch extra")
pytest.importorskip("fastapi", reason="needs the server extra")
transformers = pytest.importorskip("transformers", reason="needs the torch extra")

pytestmark = [pytest.mark.engine("opensearch"), pytest.mark.timeout(300)]

DATA = Path(os.environ.get("ST_BENCH_DATA", Path(__file__).parents[2] / "shared" / "data")) / "cranfield"
WRITERS = 32
POLL_S = 0.1
SWAPPED = 1 / 61 - 1 / 64
"""The most that a reciprocal rank changes if a hit moves by three places among equal ones."""
KEY = "key-of-the-encoder-server"
DENSE_WITHIN = 1e-5
SPARSE_WITHIN = 2.0**-8


@dataclass
class Server:
    """``st-connectors serve`` in a process, which can be killed and started again at the same address."""

    models: Sequence[str]
    port: int = 0
    process: Any = None

    @property
    def address(self) -> str:
        """The address, the same after a restart."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and wait until its models are loaded."""
        program = Path(sys.executable).with_name("st-connectors")
        models = [part for model in self.models for part in ("--model", model)]
        self.process = subprocess.Popen(
            [program, "serve", "--json", "--no-access-log", "--port", str(self.port), *models],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"ST_SERVER_API_KEY": KEY},
            text=True,
        )
        self.port = int(json.loads(self.process.stdout.readline())["address"].rpartition(":")[2])
        while self.get("/ready") != 200:
            with pytest.raises(subprocess.TimeoutExpired):
                self.process.wait(POLL_S)

    def get(self, path: str) -> int:
        """Return the status of an answer, 0 if there is none."""
        try:
            with urllib.request.urlopen(self.address + path, timeout=60) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            error.close()
            return error.code
        except urllib.error.URLError:
            return 0

    def kill(self) -> None:
        """End it as a power cut does."""
        if self.process is None:
            return
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


@dataclass
class Cluster:
    """Plain requests, as any client sends them."""

    url: str

    def send(self, method: str, path: str, body: Any = None) -> Any:
        """Send JSON, or bytes as lines, and return the JSON of the answer, which may be an error."""
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        kind = "application/x-ndjson" if isinstance(body, bytes) else "application/json"
        request = urllib.request.Request(self.url + path, content, {"content-type": kind}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return json.load(error) | {"status": error.code}

    def bulk(self, index: str, documents: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """Send documents by ``_bulk`` and return the error of each that failed."""
        lines = [
            part for key, source in documents.items() for part in ({"index": {"_index": index, "_id": key}}, source)
        ]
        answer = self.send("POST", "/_bulk", "".join(json.dumps(line) + "\n" for line in lines).encode())
        assert [item["index"]["_id"] for item in answer["items"]] == list(documents)
        return {item["index"]["_id"]: item["index"]["error"] for item in answer["items"] if "error" in item["index"]}

    def refresh(self, index: str) -> None:
        """Make written documents searchable."""
        self.send("POST", f"/{index}/_refresh")


@dataclass
class Setup:
    """A cluster, an encoder server, and commands that set up one with the other."""

    cluster: Cluster
    server: Server
    output: Any
    names: set[str] = field(default_factory=set)

    @property
    def address(self) -> str:
        """The address of the store."""
        return address_of("opensearch", self.cluster.url)

    def __call__(self, collection: str, *options: str, status: int = 0) -> str:
        """Run the command, and return what it prints, or its error."""
        self.names.add(collection)
        where = ["--in", self.address, "--collection", collection, "--encoder", self.server.address]
        assert run(["setup", "opensearch", *where, *options]) == status
        printed = self.output.readouterr()
        assert KEY not in printed.out + printed.err
        return printed.out if status == 0 else printed.err


@pytest.fixture(scope="module")
def cluster(engines: Engines) -> Cluster:
    return Cluster(engines.url("opensearch"))


@pytest.fixture(scope="module")
def reranker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a small cross-encoder with random weights, wide enough that scores differ."""
    import torch

    folder = tmp_path_factory.mktemp("models") / "reranker"
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(builtin_path("sparse") / "tokenizer.json"),
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=128,
    )
    config = transformers.BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
        num_labels=1,
        initializer_range=0.5,
    )
    torch.manual_seed(5)
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def server(reranker: Path) -> Iterator[Server]:
    server = Server(("dense=builtin:dense", "sparse=builtin:sparse", f"reranker={reranker}"))
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture
def setup(
    cluster: Cluster, server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Setup]:
    """Return the command with the key of the server, and remove afterwards all that it has created."""
    monkeypatch.setenv("ST_REMOTE_API_KEY", KEY)
    made = Setup(cluster, server, capsys)
    try:
        yield made
    finally:
        for name in made.names:
            made(name, "--remove", "--yes")


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    """Return 1,400 texts by id: abstracts of Cranfield, or docstrings."""
    if DATA.is_dir():
        rows = map(json.loads, (DATA / "corpus.jsonl").read_text("utf-8").splitlines())
        return {row["_id"]: f"{row.get('title', '')} {row['text']}".strip() for row in rows}
    from st_connectors.demo.docstrings import collect

    # Without repetitions, which rank equally.
    distinct = dict.fromkeys(each.text for each in collect())
    return {str(number): text for number, text in enumerate(list(distinct)[:1400])}


def queries() -> list[str]:
    if DATA.is_dir():
        rows = map(json.loads, (DATA / "queries.jsonl").read_text("utf-8").splitlines())
        return [row["text"] for row in rows][:20]
    return [
        "copy a directory tree",
        "parse a date",
        "sort a list by a key",
        "wait for a thread",
        "read a file line by line",
    ]


def objects(cluster: Cluster) -> dict[str, list[str]]:
    """Return the names of everything on a cluster that a set-up creates."""
    found = {}
    for kind in ("connectors", "models", "model_groups"):
        hits = cluster.send("POST", f"/_plugins/_ml/{kind}/_search", {"size": 1000, "query": {"match_all": {}}})
        found[kind] = sorted(hit["_source"]["name"] for hit in hits["hits"]["hits"])
    for kind in ("ingest", "search"):
        answer = cluster.send("GET", f"/_{kind}/pipeline")
        found[kind] = sorted(name for name, body in answer.items() if isinstance(body, dict))
    found["indices"] = sorted(name for name in cluster.send("GET", "/_all") if not name.startswith("."))
    found["settings"] = [json.dumps(cluster.send("GET", "/_cluster/settings?flat_settings=true"))]
    return found


def vectors_of(index: Index) -> dict[str, Mapping[str, Any]]:
    return {record.id: record.vectors for record in index.store.scan(parts=Parts.VECTORS)}


def assert_same_vectors(found: Mapping[str, Mapping[str, Any]], expected: Mapping[str, Mapping[str, Any]]) -> None:
    assert found.keys() == expected.keys()
    for key, vectors in expected.items():
        np.testing.assert_allclose(found[key]["dense"], vectors["dense"], rtol=0, atol=DENSE_WITHIN)
        np.testing.assert_array_equal(found[key]["sparse"].indices, vectors["sparse"].indices)
        np.testing.assert_allclose(found[key]["sparse"].values, vectors["sparse"].values, rtol=SPARSE_WITHIN)


def test_plain_bulk_and_searches_by_text_equal_the_library(setup: Setup, texts, reranker) -> None:
    """32 writers send texts alone: ids and vectors are those of ``Index.ingest``, and top tens those of ``Index``."""
    setup("plain")
    assert "differs" not in setup("plain", "--check")
    full = {key: text for key, text in texts.items() if text}
    keys = list(full)
    parts = [{key: {"text": full[key]} for key in keys[at::WRITERS]} for at in range(WRITERS)]
    with ThreadPoolExecutor(WRITERS) as writers:
        errors = list(writers.map(lambda part: setup.cluster.bulk("plain", part), parts))
    assert errors == [{}] * WRITERS
    setup.cluster.refresh("plain")
    models = {"dense": "builtin:dense", "sparse": "builtin:sparse"}
    with (
        Index.adopt(
            setup.address,
            collection="plain",
            dense=("dense", models["dense"]),
            sparse=("sparse", models["sparse"]),
            reranker=reranker,
        ) as plain,
        Index.create("memory:", collection="library", **models) as library,
    ):
        library.ingest([{"id": key, "text": text} for key, text in full.items()])
        assert_same_vectors(vectors_of(plain), vectors_of(library))
        assert_same_hits(setup.cluster, plain)


def assert_same_hits(cluster: Cluster, library: Index) -> None:
    """Compare hybrid hits, and the ten best of them after rerank, with the library's on the same index."""
    model = Model("m", ModelKind.RERANKER, 1)
    options = Options("plain", depth=50)
    for query in queries():
        expected = library.search(query, limit=50, mode="hybrid", depth=50).hits
        body = search_body(options, Encoder("", model, model), query, size=50)
        hits = cluster.send("POST", "/plain/_search", body)["hits"]["hits"]
        assert_same_up_to_ties(hits, expected)
        reranked = library.search(query, limit=50, mode="hybrid", depth=50, rerank=True).hits
        body = search_body(options, Encoder("", model, model, model), query, size=50)
        again = cluster.send("POST", "/plain/_search?search_pipeline=plain-rerank", body)["hits"]["hits"]
        # Of those that are equal in the last place, each side may rerank others.
        both = {hit["_id"] for hit in hits} & {hit.id for hit in expected}
        found, best = [hit for hit in again if hit["_id"] in both], [hit for hit in reranked if hit.id in both]
        assert [hit["_id"] for hit in found[:10]] == [hit.id for hit in best[:10]]
        np.testing.assert_allclose([hit["_score"] for hit in found], [hit.score for hit in best], atol=1e-5)


def assert_same_up_to_ties(found: Sequence[Mapping[str, Any]], expected: Sequence[Any]) -> None:
    """Compare hits; those of equal score may be in another order, and beyond the end for the lowest score.

    Reciprocal ranks of two legs are often equal: the n-th of one leg and the n-th of the other, for example. Docstrings
    are also equal within a leg, where they change places and with them their reciprocal ranks.
    """
    scores = [hit.score for hit in expected]
    if not DATA.is_dir():
        np.testing.assert_allclose([hit["_score"] for hit in found], scores, rtol=0, atol=SWAPPED)
        assert len({hit["_id"] for hit in found[:10]} & {hit.id for hit in expected[:10]}) >= 9
        return
    np.testing.assert_allclose([hit["_score"] for hit in found], scores, 1e-6)
    sure = sum(not np.isclose(score, scores[-1], rtol=1e-6) for score in scores)
    assert {hit["_id"] for hit in found[:sure]} == {hit.id for hit in expected[:sure]}


def test_running_it_again_changes_nothing_and_removal_leaves_nothing(setup: Setup) -> None:
    """Objects of other programs stay, those of the set-up go."""
    before = objects(setup.cluster)
    first = setup("twice")
    after = objects(setup.cluster)
    assert first.count("created: ") == setup("twice", "--dry-run").count("\n\n")
    # "deployed again" is rare: the cluster may for some seconds have a wrong state of a model that was just deployed.
    outcomes = re.findall(r"^([\w ]+): (\w+)", setup("twice"), re.MULTILINE)
    changed = [each for each in outcomes if each[0] not in {"Try it", "unchanged"}]
    assert set(changed) <= {("deployed again", "model")}
    assert ("unchanged", "index") in outcomes
    assert objects(setup.cluster) == after
    assert "add --yes" not in setup("twice", "--remove")
    assert objects(setup.cluster) == before


@pytest.mark.parametrize("state", ["DEPLOY_FAILED", "UNDEPLOYED", "DEPLOYING"])
def test_a_model_that_is_not_deployed_is_deployed_again(setup: Setup, state: str) -> None:
    """It keeps its id, so that pipelines and other users of the model stay valid."""
    setup("lost", "--reranker", "none")
    find = {"query": {"term": {"name.keyword": "lost-dense-query"}}}
    [before] = setup.cluster.send("POST", "/_plugins/_ml/models/_search", find)["hits"]["hits"]
    change = {"doc": {"model_state": state}}
    setup.cluster.send("POST", f"/.plugins-ml-model/_update/{before['_id']}?refresh=true", change)
    printed = setup("lost", "--reranker", "none")
    assert "deployed again: model lost-dense-query" in printed
    assert "created: " not in printed
    assert "replaced: " not in printed
    after = setup.cluster.send("GET", f"/_plugins/_ml/models/{before['_id']}")
    assert after["model_state"] == "DEPLOYED"
    assert "a search: works" in setup("lost", "--reranker", "none", "--check")


def test_another_layout_replaces_models_and_keeps_documents(setup: Setup) -> None:
    """Another fusion replaces the search pipelines, another model adds some; documents stay, and searches work."""
    setup("changed", "--reranker", "none")
    setup.cluster.bulk("changed", {"1": {"text": "copy a directory"}})
    printed = setup("changed", "--fusion", "weighted:0.3,0.7", "--two-phase")
    assert "created: model changed-reranker" in printed
    assert "replaced: search pipeline changed-search" in printed
    assert "unchanged: index changed" in printed
    assert "a search: works" in setup("changed", "--check")
    setup.cluster.refresh("changed")
    assert setup.cluster.send("GET", "/changed/_count")["count"] == 1
    assert "detached from its pipelines" in setup("changed", "--remove", "--keep-collection")
    assert setup.cluster.send("GET", "/changed/_count")["count"] == 1
    assert "attached to its pipelines" in setup("changed")


def test_names_of_other_programs_are_refused(setup: Setup) -> None:
    """A pipeline, a group and an index that exist already stay as they are, and nothing is created."""
    send = setup.cluster.send
    send("PUT", "/_ingest/pipeline/mine-ingest", {"description": "mine", "processors": []})
    send("PUT", "/theirs", {})
    try:
        before = objects(setup.cluster)
        assert "'mine-ingest' exists and was not created by this set-up: choose another --name" in setup(
            "mine", status=3
        )
        assert "--backfill theirs copies its documents" in setup("theirs", status=3)
        assert objects(setup.cluster) == before
        assert "there is no set-up 'mine'" in setup("mine", "--remove")
        assert objects(setup.cluster) == before
    finally:
        send("DELETE", "/_ingest/pipeline/mine-ingest")
        send("DELETE", "/theirs")


def test_vectors_of_another_dimension_are_refused(setup: Setup) -> None:
    """An index for another model is named with both dimensions."""
    setup("narrow", "--dense", "none", "--reranker", "none")
    assert "the index 'narrow' has no field 'dense'" in setup("narrow", status=3)
    setup("narrow", "--remove")
    mapping = {
        "mappings": {
            "_meta": {"st_connectors_setup": {"description": "created by st-connectors setup: narrow"}},
            "properties": {
                "text": {"type": "text"},
                "dense": {"type": "knn_vector", "dimension": 8},
                "sparse": {"type": "rank_features"},
            },
        },
        "settings": {"index.knn": True},
    }
    setup.cluster.send("PUT", "/narrow", mapping)
    message = setup("narrow", status=3)
    assert "has vectors of dimension 8 in 'dense', and the model has 256" in message
    assert "--backfill narrow" in message


@pytest.mark.parametrize("way", ["reindex", "scan"])
def test_documents_of_another_index_are_copied_with_vectors(setup: Setup, way: str) -> None:
    """A document that cannot be encoded is counted and named. By scan all others are copied; the server stops there."""
    texts = {str(number): {"text": f"text number {number}"} for number in range(450)} | {"empty": {"text": ""}}
    setup.cluster.bulk("source", texts)
    setup.cluster.refresh("source")
    try:
        printed = setup("copied", "--backfill", "source", "--backfill-by", way, status=1)
        setup.cluster.refresh("copied")
        with Index.adopt(setup.address, collection="copied", sparse=("sparse", "builtin:sparse")) as copied:
            stored = vectors_of(copied)
    finally:
        setup.cluster.send("DELETE", "/source")
    assert "refused: empty: " in printed
    if way == "scan":
        assert stored.keys() == texts.keys() - {"empty"}
    assert stored.keys() <= texts.keys()
    assert all(vectors.keys() == {"dense", "sparse"} for vectors in stored.values())


def test_an_encoder_that_dies_fails_items_which_succeed_later(setup: Setup, texts) -> None:
    """Killed and restarted among 32 writers: nothing is stored without vectors, and sending again stores the rest."""
    setup("killed", "--reranker", "none")
    keys = [key for key, text in texts.items() if text][:1024]
    parts = [keys[at::WRITERS] for at in range(WRITERS)]
    first_done = threading.Event()
    failed: set[str] = set()

    def write(part: Sequence[str]) -> None:
        for at in range(0, len(part), 8):
            errors = setup.cluster.bulk("killed", {key: {"text": texts[key]} for key in part[at : at + 8]})
            failed.update(errors)
            first_done.set()

    with ThreadPoolExecutor(WRITERS) as writers:
        running = [writers.submit(write, part) for part in parts]
        first_done.wait()
        setup.server.kill()
        for each in running:
            each.result()
    assert failed, "the server died too late"
    setup.cluster.refresh("killed")
    with Index.adopt(setup.address, collection="killed", sparse=("sparse", "builtin:sparse")) as killed:
        stored = vectors_of(killed)
        assert stored.keys() == set(keys) - failed
        assert all(vectors.keys() == {"dense", "sparse"} for vectors in stored.values())
        setup.server.start()
        assert setup.cluster.bulk("killed", {key: {"text": texts[key]} for key in sorted(failed)}) == {}
        setup.cluster.refresh("killed")
        expected = SentenceTransformer("builtin:dense").encode_document([texts[key] for key in keys])
        sparse = list(SparseEncoder("builtin:sparse").encode_document([texts[key] for key in keys]).rows())
        rows = {key: {"dense": expected[at], "sparse": sparse[at]} for at, key in enumerate(keys)}
        assert_same_vectors(vectors_of(killed), rows)


def test_settings_that_forbid_the_call_are_changed_only_if_allowed(setup: Setup) -> None:
    """Without permission nothing is created; with it, removal takes the change back."""
    forbid = {"plugins.ml_commons.connector.private_ip_enabled": False}
    setup.cluster.send("PUT", "/_cluster/settings", {"persistent": forbid})
    try:
        before = objects(setup.cluster)
        assert "add --allow-settings" in setup("forbidden", status=3)
        assert objects(setup.cluster) == before
        assert setup("forbidden", "--dry-run").startswith("PUT /_cluster/settings\n")
        setup("forbidden", "--allow-settings")
        assert setup.cluster.bulk("forbidden", {"1": {"text": "copy a directory"}}) == {}
        setup("forbidden", "--remove", "--yes")
        assert objects(setup.cluster) == before
    finally:
        setup.cluster.send("PUT", "/_cluster/settings", {"persistent": dict.fromkeys(forbid)})
