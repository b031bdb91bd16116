"""The assembled nodes respond like the real engines, compared with hand-computed scores over plain HTTP.

Weights and vectors are multiples of a power of two with few digits, so that nine significant bits and float32
represent them exactly.
"""

import contextlib
import dataclasses
import http.server
import json
import os
import re
import select
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import ClassVar

import pytest

from integration.engines import Engines
from integration.nodes import Found, Missing, StartError, find, required
from integration.nodes.containers import IMAGES
from integration.nodes.jdk import choose, installed
from integration.nodes.recipes import RECIPES
from integration.nodes.run import run
from st_connectors.testing.serving import Serving

ROOT = Path(__file__).parent.parent
TIMEOUT_S = 60
VERSIONS = {engine: recipe.version for engine, recipe in RECIPES.items()}


class HTTP:
    """One node, used over plain HTTP."""

    def __init__(self, url: str) -> None:
        self.url = url

    def __call__(self, method: str, path: str, body: object = None) -> dict:
        """Return the JSON response with the HTTP status under ``"http"``; a list is sent as NDJSON."""
        text = "".join(f"{json.dumps(line)}\n" for line in body) if isinstance(body, list) else json.dumps(body)
        kind = "application/x-ndjson" if isinstance(body, list) else "application/json"
        data = None if body is None else text.encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": kind}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
                return {"http": answer.status, **json.load(answer)}
        except urllib.error.HTTPError as error:
            return {"http": error.code, **json.load(error)}

    def create(self, index: str, properties: dict, settings: dict | None = None) -> None:
        """Create an index anew."""
        self("DELETE", f"/{index}")
        answer = self("PUT", f"/{index}", {"settings": settings or {}, "mappings": {"properties": properties}})
        assert answer.get("acknowledged"), answer

    def fill(self, index: str, documents: dict[str, dict]) -> list[dict]:
        """Store documents by id and return the items of the response."""
        lines = [part for key, source in documents.items() for part in ({"index": {"_id": key}}, source)]
        return self("POST", f"/{index}/_bulk?refresh=true", lines)["items"]

    def scores(self, index: str, body: dict, parameters: str = "") -> dict[str, float]:
        """Return the scores of a search by id, best first."""
        answer = self("POST", f"/{index}/_search{parameters}", body)
        assert answer["http"] == 200, answer
        return {hit["_id"]: hit["_score"] for hit in answer["hits"]["hits"]}


def assembled(engine: str) -> Found:
    """Yield the assembled node of an engine; skip if it was not requested, fail if it is required and missing."""
    if not required(engine):
        pytest.skip(f"ST_REQUIRE={engine} asks for this engine, whose node takes half a minute to boot")
    here = {key: value for key, value in os.environ.items() if not key.endswith("_URL")}
    outcome = find(engine, environ=here, no_container=lambda: "only assembled nodes are asked for here")
    if isinstance(outcome, Found):
        return outcome
    pytest.fail(f"ST_REQUIRE names {engine}: {outcome.reason}")


@pytest.fixture(scope="module", autouse=True)
def no_other_nodes(engines: Engines) -> None:
    """Stop the servers of earlier modules, so that there are never more than two."""
    engines.close()


@pytest.fixture(scope="class")
def opensearch() -> Iterator[HTTP]:
    """Yield OpenSearch, stopped before the next engine starts."""
    with assembled("opensearch").open() as url:
        yield HTTP(url)


@pytest.fixture(scope="class", params=["elasticsearch-9", "elasticsearch-8"])
def elasticsearch(request: pytest.FixtureRequest) -> Iterator[tuple[str, HTTP]]:
    """Yield one major version of Elasticsearch after the other: its engine name and the node."""
    with assembled(request.param).open() as url:
        yield request.param, HTTP(url)


SPARSE = {"1": {"a": 2.0, "b": 1.5}, "2": {"b": 4.0}, "3": {"c": 1.0}}
QUERY = {"a": 1.5, "b": 1.5}
SPARSE_SCORES = {"2": 6.0, "1": 5.25}  # 1.5 · 4.0 and 1.5 · 2.0 + 1.5 · 1.5; "3" shares no term

DENSE = {"1": [1.0, 0.0], "2": [0.0, 2.0], "3": [-3.0, 0.0]}
NEAR = [3.0, 4.0]
# Of [3, 4] with each: cosines 0.6, 0.8, -0.6; inner products 3, 8, -9; squared distances 20, 13, 52. All made >= 0.
FOLDED = {
    "cosine": {"2": (1 + 0.8) / 2, "1": (1 + 0.6) / 2, "3": (1 - 0.6) / 2},
    "dot": {"2": 8 + 1, "1": 3 + 1, "3": 1 / (1 + 9)},
    "l2": {"2": 1 / (1 + 13), "1": 1 / (1 + 20), "3": 1 / (1 + 52)},
}


@contextlib.contextmanager
def version_server(number: str) -> Iterator[str]:
    """Yield the address of a server that reports a version and does nothing else."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"version": {"number": number}}).encode())

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with Serving(Answer) as server:
        yield f"http://{server.host}:{server.port}"


def item_errors(items: list[dict]) -> dict[str, str]:
    """Return the reasons of rejected items by id, innermost first."""
    errors = {item["index"]["_id"]: item["index"].get("error") for item in items}
    return {key: error.get("caused_by", error)["reason"] for key, error in errors.items() if error}


def near(scores: dict[str, float]) -> object:
    """Assert that scores are equal within float32 and in the same order."""
    return [(key, pytest.approx(score, rel=1e-6)) for key, score in scores.items()]


@pytest.fixture(scope="class")
def sparse(opensearch) -> Callable[..., dict[str, float]]:
    """Search an index of sparse vectors in OpenSearch."""
    opensearch.create("sparse", {"v": {"type": "rank_features"}})
    opensearch.fill("sparse", {key: {"v": vector} for key, vector in SPARSE.items()})
    return partial(opensearch.scores, "sparse")


class TestOpenSearch:
    """OpenSearch with the three plugins."""

    def test_version_and_plugins(self, opensearch):
        """The node has the pinned version and the plugins neural-search, k-NN and ml-commons."""
        plugins = opensearch("GET", "/_nodes/plugins?filter_path=nodes.*.plugins.name")["nodes"]
        names = {plugin["name"] for node in plugins.values() for plugin in node["plugins"]}

        assert opensearch("GET", "/")["version"]["number"] == VERSIONS["opensearch"]
        assert names == {"opensearch-job-scheduler", "opensearch-knn", "opensearch-ml", "opensearch-neural-search"}

    def test_neural_sparse_is_the_inner_product(self, sparse):
        """``neural_sparse`` over ``rank_features`` scores the inner product of documents that share a term."""
        scores = sparse({"query": {"neural_sparse": {"v": {"query_tokens": QUERY}}}})

        assert list(scores.items()) == list(SPARSE_SCORES.items())

    def test_linear_rank_feature_is_the_inner_product(self, sparse):
        """A ``bool`` of ``rank_feature`` ``linear`` queries, which needs no plugin, returns the same scores."""
        terms = [
            {"rank_feature": {"field": f"v.{key}", "boost": weight, "linear": {}}} for key, weight in QUERY.items()
        ]

        assert list(sparse({"query": {"bool": {"should": terms}}}).items()) == list(SPARSE_SCORES.items())

    def test_query_weight_over_64_is_refused(self, opensearch, sparse):
        """``neural_sparse`` accepts weights up to 64; the error names the limit."""
        body = {"query": {"neural_sparse": {"v": {"query_tokens": {"a": 64.5}}}}}

        answer = opensearch("POST", "/sparse/_search", body)
        assert answer["http"] == 400
        assert "weight must be in (0, 64.0], got: 64.5" in answer["error"]["root_cause"][0]["reason"]

    def test_refused_weight_is_the_items_own_error(self, opensearch):
        """A weight of zero rejects only its own document of the bulk."""
        opensearch.create("refused", {"v": {"type": "rank_features"}})
        items = opensearch.fill("refused", {"good": {"v": {"a": 1.0}}, "zero": {"v": {"a": 0.0}}})

        assert list(item_errors(items)) == ["zero"]
        assert "must be a positive normal float, got: 0.0" in item_errors(items)["zero"]

    @pytest.mark.parametrize(("name", "space"), [("cosine", "cosinesimil"), ("dot", "innerproduct"), ("l2", "l2")])
    def test_knn_folds_as_lucene_does(self, opensearch, name, space):
        """``knn_vector`` on Lucene: (1 + cosine) / 2, dot + 1 or 1 / (1 - dot), 1 / (1 + squared distance)."""
        method = {"name": "hnsw", "engine": "lucene", "space_type": space}
        field = {"type": "knn_vector", "dimension": 2, "method": method}
        opensearch.create(f"dense-{name}", {"v": field}, {"index": {"knn": True}})
        opensearch.fill(f"dense-{name}", {key: {"v": vector} for key, vector in DENSE.items()})

        scores = opensearch.scores(f"dense-{name}", {"query": {"knn": {"v": {"vector": NEAR, "k": 3}}}})
        assert list(scores.items()) == near(FOLDED[name])

    def test_hybrid_fuses_by_rank(self, opensearch):
        """``hybrid`` with an inline rank processor scores the sum of 1 / (k + rank), with k as a parameter."""
        method = {"name": "hnsw", "engine": "lucene", "space_type": "l2"}
        fields = {"d": {"type": "knn_vector", "dimension": 2, "method": method}, "s": {"type": "rank_features"}}
        opensearch.create("hybrid", fields, {"index": {"knn": True}})
        opensearch.fill("hybrid", {key: {"d": DENSE[key], "s": SPARSE[key]} for key in SPARSE})
        legs = [{"knn": {"d": {"vector": NEAR, "k": 3}}}, {"neural_sparse": {"s": {"query_tokens": QUERY}}}]
        ranker = {"combination": {"technique": "rrf", "parameters": {"rank_constant": 10}}}

        pipeline = {"phase_results_processors": [{"score-ranker-processor": ranker}]}
        scores = opensearch.scores("hybrid", {"query": {"hybrid": {"queries": legs}}, "search_pipeline": pipeline})
        assert list(scores.items()) == near({"2": 2 / 11, "1": 2 / 12, "3": 1 / 13})


class TestElasticsearch:
    """Both major versions of Elasticsearch."""

    def test_root_tells_the_version(self, elasticsearch):
        """``GET /`` returns the pinned version in the format that clients read, and ``HEAD`` works too."""
        engine, node = elasticsearch
        answer = node("GET", "/")

        assert answer["version"]["number"] == VERSIONS[engine]
        assert answer["tagline"] == "You Know, for Search"
        with urllib.request.urlopen(urllib.request.Request(node.url, method="HEAD"), timeout=TIMEOUT_S) as head:
            assert head.headers["X-elastic-product"] == "Elasticsearch"

    def test_sparse_vector_is_the_inner_product(self, elasticsearch):
        """The ``sparse_vector`` query without pruning scores the inner product, and so does the ``term`` form."""
        _, node = elasticsearch
        node.create("sparse", {"v": {"type": "sparse_vector", "index_options": {"prune": False}}})
        node.fill("sparse", {key: {"v": vector} for key, vector in SPARSE.items()})
        terms = [{"term": {"v": {"value": key, "boost": weight}}} for key, weight in QUERY.items()]

        for query in ({"sparse_vector": {"field": "v", "query_vector": QUERY}}, {"bool": {"should": terms}}):
            assert list(node.scores("sparse", {"query": query}).items()) == list(SPARSE_SCORES.items())

    @pytest.mark.parametrize(
        ("name", "similarity"), [("cosine", "cosine"), ("dot", "max_inner_product"), ("l2", "l2_norm")]
    )
    def test_knn_folds_as_lucene_does(self, elasticsearch, name, similarity):
        """``dense_vector``: (1 + cosine) / 2, dot + 1 or 1 / (1 - dot), 1 / (1 + squared distance)."""
        _, node = elasticsearch
        field = {"type": "dense_vector", "dims": 2, "similarity": similarity, "index_options": {"type": "hnsw"}}
        node.create(f"dense-{name}", {"v": field})
        node.fill(f"dense-{name}", {key: {"v": vector} for key, vector in DENSE.items()})

        knn = {"field": "v", "query_vector": NEAR, "k": 3, "num_candidates": 3}
        assert list(node.scores(f"dense-{name}", {"knn": knn}).items()) == near(FOLDED[name])

    def test_point_in_time_walks_all_shards_once(self, elasticsearch):
        """A point in time paged by ``_shard_doc`` returns every document once, and none written later."""
        _, node = elasticsearch
        node.create("walk", {"n": {"type": "long"}}, {"index": {"number_of_shards": 3}})
        node.fill("walk", {f"d{n}": {"n": n} for n in range(250)})
        opened = node("POST", "/walk/_pit?keep_alive=1m")["id"]
        node.fill("walk", {"late": {"n": -1}})

        body = {"size": 100, "pit": {"id": opened, "keep_alive": "1m"}, "sort": [{"_shard_doc": "asc"}]}
        seen = []
        while hits := node("POST", "/_search", body)["hits"]["hits"]:
            seen += [hit["_id"] for hit in hits]
            body["search_after"] = hits[-1]["sort"]
        assert sorted(seen) == sorted(f"d{n}" for n in range(250))

    def test_refused_weight_is_the_items_own_error(self, elasticsearch):
        """A weight of zero rejects only its own document of the bulk."""
        _, node = elasticsearch
        node.create("refused", {"v": {"type": "sparse_vector"}})
        items = node.fill("refused", {"good": {"v": {"a": 1.0}}, "zero": {"v": {"a": 0.0}}})

        assert list(item_errors(items)) == ["zero"]
        assert "must be a positive normal float, got: 0.0" in item_errors(items)["zero"]


class TestRunning:
    """Guarantees of every run."""

    @pytest.fixture
    def engine(self):
        """Return the engine that starts fastest."""
        return assembled("elasticsearch-8").engine

    def test_failed_start_shows_the_log(self, engine):
        """A node that does not start raises an error with the last lines of its log."""
        recipe = RECIPES[engine]
        broken = dataclasses.replace(recipe, settings={**recipe.settings, "no.such.setting": "1"})

        with pytest.raises(StartError, match=r"unknown setting \[no\.such\.setting\]"), run(broken):
            pytest.fail("a node started with a setting that does not exist")

    def test_a_killed_node_starts_again_with_its_data(self, engine):
        """What it acknowledged is still there, at the same address."""
        with run(RECIPES[engine]) as node:
            url = node.url
            HTTP(url).fill("again", {"1": {"a": 1}})

            node.kill()
            node.start()

            assert node.url == url
            assert HTTP(url)("GET", "/again/_doc/1")["_source"] == {"a": 1}

    @pytest.mark.skipif(sys.platform != "linux", reason="ending with the parent is a feature of Linux")
    def test_node_ends_with_its_parent(self, engine):
        """A node ends with the process that started it, even if that was killed."""
        command = [sys.executable, "-m", "integration.nodes", engine, "--json"]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
            node = json.loads(parent.stdout.readline())["process"]
            watched = os.pidfd_open(node)
            parent.kill()

        poll = select.poll()
        poll.register(watched, select.POLLIN)
        assert poll.poll(TIMEOUT_S * 1000), f"process {node} still runs"
        os.close(watched)


class TestFind:
    """How an engine is chosen; nothing is started here."""

    NOWHERE: ClassVar = {"PATH": "/nowhere", "ST_NODES_CACHE": "/nowhere"}

    def test_address_comes_first(self):
        """A server at an address in the environment is used and keeps running."""
        found = find("qdrant", environ={"ST_QDRANT_URL": "http://127.0.0.1:1"}, no_container=lambda: None)

        assert isinstance(found, Found)
        assert found.how == "address"
        with found.open() as url:
            assert url == "http://127.0.0.1:1"

    def test_container_comes_second(self):
        """If a Docker engine responds, it is preferred to an assembled node."""
        found = find("opensearch", environ=self.NOWHERE, no_container=lambda: None)

        assert isinstance(found, Found)
        assert found.how == "container"

    def test_missing_names_every_way(self):
        """The reason names the variable, why there is no container, and what the node lacks."""
        missing = find("opensearch", environ=self.NOWHERE, no_container=lambda: "no docker on PATH")

        assert isinstance(missing, Missing)
        assert missing.reason.startswith("ST_OPENSEARCH_URL is not set; no docker on PATH; opensearch-2.19.1")

    def test_unassembled_node_counts_only_where_required(self, tmp_path):
        """Half a gigabyte is downloaded on request only: by ``ST_REQUIRE``, or by the command in the reason."""
        if choose(*RECIPES["elasticsearch-8"].java, installed()) is None or shutil.which("mvn") is None:
            pytest.skip("there is no Maven or no JDK for it here")
        here = {"PATH": os.environ["PATH"], "ST_NODES_CACHE": str(tmp_path)}
        look = partial(find, "elasticsearch-8", no_container=lambda: "unasked")

        assert "python -m integration.nodes assemble elasticsearch-8" in look(environ=here).reason
        assert look(environ={**here, "ST_REQUIRE": "qdrant-edge,elasticsearch"}).how == "node"

    def test_address_of_another_major_is_told(self):
        """A server of the wrong major version is no engine, and the reason names its version."""
        with version_server("8.19.21") as url:
            missing = find(
                "elasticsearch-9", environ={**self.NOWHERE, "ST_ELASTICSEARCH_URL": url}, no_container=lambda: "-"
            )
            found = find("elasticsearch-8", environ={"ST_ELASTICSEARCH_URL": url}, no_container=lambda: "-")

        assert "names a server of version 8.19.21, and 9.x is wanted" in missing.reason
        assert found.how == "address"

    def test_unknown_engine_is_refused(self):
        """A misspelled name is an error, not a skip."""
        with pytest.raises(ValueError, match="no engine is named 'elastic'"):
            find("elastic")

    def test_every_container_has_a_pinned_tag(self):
        """Every image has a tag that names a version."""
        assert [image.name for image in IMAGES.values() if not re.search(r":v?\d+\.\d+\.\d+$", image.name)] == []

    @pytest.mark.parametrize("engine", list(IMAGES))
    def test_compose_says_what_the_recipe_says(self, engine):
        """compose.yaml and the recipes have equal images, environments, commands, ports and health checks."""
        yaml = pytest.importorskip("yaml")
        services = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"]
        image = IMAGES[engine]
        service = services[engine.removesuffix("-9")]

        assert service["image"] == image.name
        assert service.get("environment", {}) == dict(image.environment)
        assert service.get("command") == image.command
        inside = {int(port.rsplit(":", 1)[1]) for port in service["ports"]}
        assert inside == {image.port, *image.more_ports, *([image.health_port] if image.health_port else [])}
        if engine != "qdrant":  # its image has no program for a health check
            asked = f"http://127.0.0.1:{image.health_port or image.port}{image.health}"
            assert service["healthcheck"]["test"] == ["CMD", "curl", "--fail", "--silent", asked]

    def test_compose_has_every_engine_on_ports_of_its_own(self):
        """All servers can run at once, and only this machine reaches them."""
        yaml = pytest.importorskip("yaml")
        services = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"]
        outside = [port.rsplit(":", 1)[0] for service in services.values() for port in service["ports"]]

        assert set(services) == {engine.removesuffix("-9") for engine in IMAGES}
        assert len(set(outside)) == len(outside)
        assert all(port.startswith("127.0.0.1:") for port in outside)
