"""``mine`` writes rows that the trainers read."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("qdrant_edge")


def test_negatives_of_judged_queries_are_written(cli, library, tmp_path):
    """With a summary, and a note where there are too few documents."""
    (tmp_path / "queries.tsv").write_text("1\ta man fishing\n")
    (tmp_path / "qrels.txt").write_text("1 0 sea 2\n")
    files = ["--queries", tmp_path / "queries.tsv", "--qrels", tmp_path / "qrels.txt"]

    outcome = cli("mine", *library, *files, "--out", tmp_path / "rows.jsonl", "--negatives", "3", "--mode", "dense")

    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert outcome.status == 0
    assert outcome.out == f"2 rows with 2 negatives of 1 queries in {tmp_path}/rows.jsonl\n"
    assert outcome.err == "note: 1 queries have fewer than 3 negatives; raise --range-max\n"
    assert {row["negative"] for row in rows} == {
        "a voyage in a submarine under the ocean",
        "a traveller visits the far future",
    }
    assert {row["query"] for row in rows} == {"a man fishing"}


def test_negatives_of_pairs_are_written(cli, library, tmp_path):
    """Of any columns, in any form, with scores."""
    (tmp_path / "pairs.csv").write_text("answer,question\na voyage in a submarine under the ocean,below the sea\n")
    options = ["--pairs", tmp_path / "pairs.csv", "--columns", "question,answer", "--form", "labeled-list", "--scores"]

    outcome = cli("mine", *library, *options, "--out", tmp_path / "rows.jsonl", "--negatives", "1", "--json")

    [row] = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert outcome.json == {"rows": 1, "queries": 1, "negatives": 1, "short": 0, "file": f"{tmp_path}/rows.jsonl"}
    assert row["query"] == "below the sea"
    assert len(row["positive"]) == len(row["scores"]) == 2


BAD = [
    ([], "pass --queries and --qrels, or --data FOLDER, or --pairs FILE"),
    (["--qrels", "x"], "--queries and --qrels belong together"),
    (["--pairs", "p.csv", "--columns", "q"], "--columns 'q': expected QUERY,POSITIVE"),
    (["--pairs", "p.csv", "--columns", "q,p"], "the data has no column 'q'; its columns are question, answer"),
    (["--pairs", "p.csv", "--form", "pairs"], "the form must be one of triplet"),
    (["--pairs", "p.csv", "--sampling", "best"], "sampling_strategy must be top or random"),
    (["--pairs", "p.csv", "--relative-margin", "0.05"], "pass a reranker, which scores them"),
    (["--pairs", "absent.csv"], "absent.csv"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_options_that_contradict_each_other_are_one_line(cli, library, tmp_path, monkeypatch, options, message):
    """Without a traceback."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.csv").write_text("question,answer\na,b\n")

    outcome = cli("mine", *library, "--out", "rows.jsonl", *options)

    assert outcome.status in {2, 3}
    assert message in outcome.error_line()
