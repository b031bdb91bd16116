"""``search --queries``, ``--offset`` and ``--min-score``: many queries, and which part of each ranking is printed."""

from __future__ import annotations

import io
import json

import pytest

pytest.importorskip("qdrant_edge")

QUERIES = {"q1": "a voyage under the ocean", "2": "a giant fish", "leer": "zebra"}


@pytest.fixture(params=["jsonl", "tsv", "tsv-crlf"])
def queries(request, tmp_path):
    """The same three queries in both forms; one id of the JSON form is a number."""
    path = tmp_path / "queries"
    if request.param == "jsonl":
        rows = [{"id": int(key) if key.isdigit() else key, "text": text} for key, text in QUERIES.items()]
        path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    else:
        end = "\r\n" if request.param == "tsv-crlf" else "\n"
        path.write_bytes("".join(f"{key}\t{text}{end}" for key, text in QUERIES.items()).encode())
    return path


def hits_of(cli, library, text, *options):
    return [(hit["id"], hit["score"]) for hit in cli("search", text, *library, *options, "--json").json["hits"]]


def test_queries_give_a_trec_run(cli, library, queries):
    """Each line has query, Q0, document, rank, score and tag; the scores are those of single searches."""
    outcome = cli("search", "--queries", queries, *library, "--mode", "sparse")

    expected = [
        f"{key} Q0 {document} {rank} {score!r} st-connectors"
        for key, text in QUERIES.items()
        for rank, (document, score) in enumerate(hits_of(cli, library, text, "--mode", "sparse"), 1)
    ]
    assert (outcome.status, outcome.err) == (0, "")
    assert outcome.out.splitlines() == expected
    assert {line.split()[0] for line in expected} == {"q1", "2"}


@pytest.mark.parametrize("option", [("--json",), ("--output", "jsonl")])
def test_queries_give_json_lines(cli, library, queries, option):
    """One object per query, also for a query without hits, with the id beside what a single search prints."""
    lines = cli("search", "--queries", queries, *library, *option, "--limit", "2").out.splitlines()

    for line, (key, text) in zip(lines, QUERIES.items(), strict=True):
        assert json.loads(line) == {"id": key, **cli("search", text, *library, "--limit", "2", "--json").json}


def test_queries_from_standard_input(cli, library, monkeypatch):
    """``-`` reads standard input."""
    monkeypatch.setattr("sys.stdin", io.StringIO("q\tocean\n"))

    assert cli("search", "--queries", "-", *library, "--mode", "sparse").out.startswith("q Q0 submarine 1 ")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("q1 no tab\n", "line 1: expected a JSON object, or an id and a text separated by a tab"),
        ('{"id": "a", "text": "x"}\n{"id": "b"}\n', "line 2: expected a text"),
        ('{"id": "a"\n', "line 1: Expecting"),
        ('{"text": "x"}\n', "line 1: expected an id"),
        ("a\tx\n\na\ty\n", "line 3: repeats the id 'a'"),
        ("\n", "there is no query"),
        ("two words\tocean\n", "contains white space"),
    ],
)
def test_a_file_of_queries_that_cannot_be_read(cli, library, tmp_path, content, says):
    """One line says which line and what was expected."""
    (tmp_path / "q").write_text(content)

    outcome = cli("search", "--queries", tmp_path / "q", *library)

    assert outcome.status == 2
    assert says in outcome.error_line()


def test_a_query_or_a_file_of_queries(cli, library, tmp_path):
    """Neither, both, and an output form for one query are usage errors."""
    (tmp_path / "q").write_text("a\tocean\n")
    assert "pass a query" in cli("search", *library).error_line()
    assert "pass a query" in cli("search", "x", "--queries", tmp_path / "q", *library).error_line()
    assert "cannot read" in cli("search", "--queries", tmp_path / "none", *library).error_line()
    for arguments in (("x", "--output", "trec"), ("--queries", tmp_path / "q", "--output", "trec", "--json")):
        assert "pass only one of them" in cli("search", *arguments, *library).error_line()


def test_offset_continues_the_ranking_and_its_numbers(cli, library, tmp_path):
    """The second page starts where the first ends, also in the numbers that are printed and in a run."""
    text = "a voyage under the ocean"
    whole = hits_of(cli, library, text)

    assert hits_of(cli, library, text, "--offset", "1") == whole[1:]
    shown = cli("search", text, *library, "--offset", "1", "--limit", "1").out
    assert shown.startswith(f"  2. {whole[1][1]:8.4f}  {whole[1][0]}")
    (tmp_path / "q").write_text(f"q\t{text}\n")
    run = cli("search", "--queries", tmp_path / "q", *library, "--offset", "1").out.splitlines()
    assert [line.split()[2:4] for line in run] == [[whole[1][0], "2"], [whole[2][0], "3"]]


def test_min_score_omits_weaker_hits(cli, library):
    """A hit with exactly that score stays; the rest of the ranking is as without it."""
    text = "a voyage under the ocean"
    whole = hits_of(cli, library, text, "--mode", "dense")
    least = whole[1][1]

    assert hits_of(cli, library, text, "--mode", "dense", "--min-score", repr(least)) == whole[:2]
    assert cli("search", text, *library, "--mode", "dense", "--min-score", "1.5").out == "no hits\n"
    assert cli("search", text, *library, "--min-score", "nan").status == 2
