"""``search`` shows the passage that matched, and ``--explain`` says how each kind of leg came to its ranking."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("qdrant_edge")

FILLER = "nothing of interest here and there " * 20


@pytest.fixture
def shelf(cli, tmp_path):
    """Two documents with dense, sparse and text legs; the first is long and is about the ocean in its middle."""
    rows = [
        {"id": "long", "text": f"{FILLER}a voyage in a submarine under the ocean {FILLER}"},
        {"id": "time", "text": "a traveller visits the far future"},
    ]
    source = tmp_path / "shelf.jsonl"
    source.write_text("\n".join(map(json.dumps, rows)))
    target = ["--in", f"qdrant+edge:{tmp_path / 'shelf'}", "--collection", "shelf"]
    assert cli("ingest", source, *target, "--create", "--text").status == 0
    return target


@pytest.mark.parametrize("mode", ["sparse", "text", "hybrid"])
def test_the_snippet_is_the_passage_that_matched(cli, shelf, mode):
    """The matched words are marked; the text continues on both sides."""
    [hit, snippet, *_] = cli("search", "submarine ocean", *shelf, "--mode", mode, "--limit", "1").out.splitlines()

    assert hit.endswith("  long")
    assert "*submarine* under the *ocean*" in snippet
    assert snippet.strip().startswith("…")
    assert snippet.endswith("…")
    assert len(snippet) <= 110


def test_the_snippet_of_a_dense_search_is_the_beginning(cli, shelf):
    """A dense leg matches no words, so that nothing is marked."""
    shown = cli("search", "submarine ocean", *shelf, "--mode", "dense").out

    assert "     nothing of interest" in shown
    assert "*" not in shown


def test_json_has_the_offsets_of_the_matched_words(cli, shelf):
    """They are offsets in the text of the payload."""
    [hit] = cli("search", "submarine ocean", *shelf, "--mode", "text", "--json").json["hits"]

    assert [hit["payload"]["text"][each["start"] : each["end"]] for each in hit["highlights"]] == ["submarine", "ocean"]
    assert {each["field"] for each in hit["highlights"]} == {"text"}


def test_explain_of_a_dense_search(cli, shelf):
    """It names the similarity, the dimension and the model, and each hit's rank and score."""
    lines = cli("search", "submarine", *shelf, "--mode", "dense", "--explain").out.splitlines()

    assert lines[0] == "dense: cosine similarity, 256 dimensions, model builtin:dense"
    score = lines[1].split()[1]
    assert f"     dense #1 {score}" in lines

    explained = cli("search", "submarine", *shelf, "--mode", "dense", "--explain", "--json").json
    assert explained["fusion"] is None
    assert explained["legs"] == [
        {
            "field": "dense",
            "kind": "dense",
            "score": "cosine similarity",
            "model": "builtin:dense",
            "dimension": 256,
            "terms": [],
            "empty": False,
        }
    ]


def test_explain_of_a_sparse_search(cli, shelf):
    """It has the terms of the query with their weights, and the shared ones of each hit."""
    lines = cli("search", "submarine ocean", *shelf, "--mode", "sparse", "--explain", "--limit", "1").out.splitlines()

    assert lines[0].startswith("sparse: inner product of weighted terms, model builtin:sparse; terms of the query: ")
    assert "ocean" in lines[0]
    [matched] = [line for line in lines if line.strip().startswith("matched ")]
    assert "ocean" in matched
    assert "submarine" in matched
    [hit] = cli("search", "submarine ocean", *shelf, "--mode", "sparse", "--explain", "--json").json["hits"]
    assert sum(term["weight"] for term in hit["terms"]) == pytest.approx(hit["score"], rel=1e-4)


def test_explain_of_a_text_search(cli, shelf):
    """It has the words of the query, and those that each hit contains."""
    lines = cli("search", "The giant Ocean", *shelf, "--mode", "text", "--explain").out.splitlines()

    assert lines[0] == "text: BM25 of the store; words of the query: the, giant, ocean"
    assert "     matched words of text: the, ocean" in lines
    assert "     matched words of text: the" in lines


def test_explain_of_a_hybrid_search_has_every_leg(cli, shelf):
    """It names the fusion, and a hit that a leg did not match says so."""
    lines = cli("search", "submarine ocean", *shelf, "--explain").out.splitlines()

    assert [line.partition(":")[0] for line in lines[:4]] == ["dense", "sparse", "text", "fusion"]
    assert lines[3] == "fusion: rrf, k 60"
    assert any("not among the candidates of text" in line for line in lines)


def test_explain_of_a_query_without_terms(cli, shelf):
    """An empty leg is named as one, and the others are searched."""
    lines = cli("search", "?!", *shelf, "--mode", "text", "--explain").out.splitlines()

    assert lines == ["text: BM25 of the store; the query has nothing to compare in this leg", "no hits"]
