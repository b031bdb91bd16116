"""``evaluate`` prints and saves the measures of a live collection, and fails below limits."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("qdrant_edge")
pytest.importorskip("ir_measures", reason="computes the measures")


@pytest.fixture
def judged(tmp_path):
    """Write queries and judgements, and return the options that name them."""
    (tmp_path / "queries.tsv").write_text("1\ta man fishing\n2\ta voyage under the ocean\n3\tthe future\n")
    (tmp_path / "qrels.txt").write_text("1 0 sea 2\n2 0 submarine 1\n3 0 time 1\n")
    return ["--queries", tmp_path / "queries.tsv", "--qrels", tmp_path / "qrels.txt"]


def test_the_legs_are_compared_with_the_whole_search(cli, library, judged, tmp_path):
    """As a table, and as JSON that is saved with a plot and the runs."""
    outcome = cli("evaluate", *library, *judged, "--save", tmp_path / "out", "--worst", "1")

    assert (outcome.status, outcome.err) == (0, "")
    lines = outcome.out.splitlines()
    assert lines[0] == "3 queries, 3 judgements (judgements)"
    assert [line.split()[0] for line in lines[2:5]] == ["hybrid", "dense", "sparse"]
    assert any(line.startswith("  wanted sea (grade 2): an ageing fisherman") for line in lines)
    saved = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert [run["name"] for run in saved["runs"]] == ["hybrid", "dense", "sparse"]
    assert saved["runs"][0]["measures"]["ndcg@10"]["value"] > 0.5
    assert (tmp_path / "out" / "plot.svg").read_text().startswith("<svg")
    assert (tmp_path / "out" / "hybrid.trec").read_text().startswith("1 Q0 ")


def test_runs_are_described_by_their_options(cli, library, judged):
    """Modes, fusions and efforts; the values are those of each search."""
    runs = ["--run", "lexical: mode=sparse", "--run", "equal: fusion=weighted:0.5,0.5 depth=10 effort=exact"]

    outcome = cli("evaluate", *library, *judged, *runs, "--measure", "success@1", "--json")

    answer = outcome.json
    assert [run["name"] for run in answer["runs"]] == ["lexical", "equal"]
    assert answer["runs"][0]["queries"]["success@1"] == {"1": 0.0, "2": 1.0, "3": 1.0}
    assert answer["failures"] == []


def test_a_value_below_its_limit_fails(cli, library, judged, tmp_path):
    """Of the first run, as does one that is significantly below that of an earlier evaluation."""
    assert cli("evaluate", *library, *judged, "--fail-under", "ndcg@10=0.1").status == 0
    outcome = cli("evaluate", *library, *judged, "--run", "none: where='year > 2000'", "--fail-under", "ndcg@10=0.1")
    assert outcome.status == 1
    assert outcome.err == "st-connectors: ndcg@10 of none is 0.0000, below 0.1\n"

    cli("evaluate", *library, *judged, "--save", tmp_path / "before")
    again = cli("evaluate", *library, *judged, "--baseline", tmp_path / "before" / "evaluation.json")
    assert again.status == 0
    assert "hybrid ndcg@10: " in again.out
    assert "p 1.000, not significant" in again.out


def test_synthetic_queries_are_labelled(cli, library):
    """In the table and in the JSON."""
    outcome = cli("evaluate", *library, "--synthetic", "first-sentence", "--measure", "rr@10")

    assert outcome.status == 0
    origin = "synthetic known-item queries derived from first sentences"
    assert outcome.out.splitlines()[0] == f"3 queries, 3 judgements ({origin})"
    assert "note: synthetic queries: the values say how well documents are found again" in outcome.out


def test_a_sweep_prints_the_selected_fusion(cli, library, judged):
    """And measures it beside the other runs, on the other half."""
    outcome = cli("evaluate", *library, *judged, "--sweep", "--measure", "ndcg@10", "--json")

    assert [run["name"] for run in outcome.json["runs"]] == ["hybrid", "dense", "sparse", "swept"]
    assert outcome.json["queries"] == 2
    assert outcome.json["swept"]["fusion"]["method"] in {"rrf", "weighted"}


BAD = [
    ([], "pass --queries and --qrels, or --data FOLDER, or --synthetic KIND"),
    (["--queries", "q.tsv"], "--queries and --qrels belong together"),
    (["--synthetic", "title", "--data", "x"], "and only one of them"),
    (["--data", "."], "expected queries.jsonl, and qrels/test.tsv or qrels.tsv"),
    (["--synthetic", "title"], "no document of 'books' gives a query"),
    (["--synthetic", "first-sentence", "--fail-under", "ndcg@10"], "such as ndcg@10=0.42"),
    (["--synthetic", "first-sentence", "--measure", "best"], "unknown measure 'best'"),
    (["--synthetic", "first-sentence", "--run", "mode=dense"], "expected NAME: key=value"),
    (["--synthetic", "first-sentence", "--run", "a: colour=red"], "expected each of mode, fusion"),
    (
        ["--synthetic", "first-sentence", "--run", "a: effort=most"],
        "effort=most: expected exact, default or candidates",
    ),
    (["--synthetic", "first-sentence", "--run", "a: depth=deep"], "--run a: depth=deep"),
    (["--synthetic", "first-sentence", "--baseline", "none.json"], "none.json"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_options_that_contradict_each_other_are_one_line(cli, library, tmp_path, monkeypatch, options, message):
    """Without a traceback."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "q.tsv").write_text("1\ta\n")

    outcome = cli("evaluate", *library, *options)

    assert outcome.status in {2, 3}
    assert message in outcome.error_line()


def test_queries_and_judgements_for_the_workbench(cli, library, judged, tmp_path):
    """Bodies of requests, with the name of the collection."""
    assert cli("evaluate", *library, *judged, "--workbench", tmp_path / "out").status == 0

    queries, ratings = (
        json.loads((tmp_path / "out" / name).read_text()) for name in ("query_set.json", "judgments.json")
    )
    assert queries["name"] == ratings["name"] == "books"
    assert queries["querySetQueries"][0] == {"queryText": "a man fishing"}
    assert ratings["judgmentRatings"][1]["ratings"] == [{"docId": "submarine", "rating": "1.000"}]


def refusal(cli, library, folder, queries, grades, *options):
    """The message for queries and judgements that are refused before the first search."""
    (folder / "q.jsonl").write_text(queries)
    (folder / "r.tsv").write_text(grades)
    outcome = cli("evaluate", *library, "--queries", folder / "q.jsonl", "--qrels", folder / "r.tsv", *options)
    assert outcome.status == 2
    return outcome.error_line()


QUERY = '{"_id": "1", "text": "a man fishing"}\n'


@pytest.mark.parametrize(
    ("queries", "grades", "options", "message"),
    [
        ("", "1 0 sea 1\n", (), "q.jsonl: no queries"),
        (QUERY, "\n", (), "r.tsv: no judgements"),
        (QUERY, "1 0 sea 0\n", (), "no query has a relevant document in "),
        (
            QUERY,
            "1 0 sea 1\n1 0 other 1\n",
            (),
            "1 of 2 judgements are for documents that the collection lacks: other;",
        ),
        (QUERY, "1 0 sea 1\n2 0 sea 1\n", (), "are for unknown queries: 2; pass the queries that they belong to"),
        (QUERY * 2, "1 0 sea 1\n", (), "line 2: the query id '1' is repeated; every query needs its own"),
        ('{"_id": "1", "text": " "}\n', "1 0 sea 1\n", (), "line 1: query '1' has no text; leave it out"),
        (QUERY, "1 0 sea inf\n", (), "line 1: the grade 'inf' is not a finite number"),
        (QUERY, "1 0 sea 0.5\n", (), "has the grade 0.5; expected a whole number"),
        (QUERY, "1 0 sea 1\n", ("--fail-under", "ncdg@10=0.4"), "unknown measure 'ncdg@10'; expected one of ndcg, "),
        (QUERY, "1 0 sea 1\n", ("--save", "FILE"), "--save FILE is a file; pass a folder"),
        (QUERY, "1 0 sea 1\n", ("--workbench", "FILE"), "--workbench FILE is a file; pass a folder"),
        ('{"_id": "q 1", "text": "x y"}\n', "q 1\tsea\t1\n", ("--save", "runs"), "the id 'q 1' contains white space"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_before_the_search(
    cli, library, tmp_path, monkeypatch, queries, grades, options, message
):
    """In one line: hours of searching would be lost."""
    from st_connectors.index import Index

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Index, "search", lambda *_, **__: pytest.fail("searched"))
    (tmp_path / "FILE").touch()

    assert message in refusal(cli, library, tmp_path, queries, grades, *options)


def test_a_baseline_of_other_queries_is_refused(cli, library, judged, tmp_path, monkeypatch):
    """Before the search; one of another collection is noted, as collections may be built anew for each run."""
    from st_connectors.index import Index

    cli("evaluate", *library, *judged, "--save", tmp_path / "before")
    before = tmp_path / "before" / "evaluation.json"

    with monkeypatch.context() as patched:
        patched.setattr(Index, "search", lambda *_, **__: pytest.fail("searched"))
        other = refusal(cli, library, tmp_path, QUERY.replace("man", "dog"), "1 0 sea 1\n", "--baseline", before)
    saved = json.loads(before.read_text())
    for run in saved["runs"]:
        run["collection"] = "films"
    before.write_text(json.dumps(saved))
    elsewhere = cli("evaluate", *library, *judged, "--baseline", before)

    assert (
        other
        == "query '1' of the baseline is 'a man fishing', and here 'a dog fishing'; pass the baseline of these queries"
    )
    assert "note: dense of the baseline searched the collection films, and here books" in elsewhere.out.splitlines()
    assert elsewhere.status == 0


def test_a_run_without_results_is_noted(cli, library, judged):
    """With the filter that excludes all documents, of which no leg then has any."""
    outcome = cli("evaluate", *library, *judged, "--run", "none: where='year > 3000'", "--worst", "1")

    assert outcome.status == 0
    assert "note: none returned no documents for 3 of 3 queries" in outcome.out.splitlines()
    assert outcome.out.splitlines()[-1].endswith("no leg returns it: dense, sparse")


def test_a_store_that_goes_away_ends_the_evaluation(cli, library, judged, tmp_path, monkeypatch):
    """With the store and the operation in one line, and nothing half written."""
    from st_connectors.errors import Unavailable
    from st_connectors.index import Index

    search, calls = Index.search, []

    def until_third(self, *arguments, **options):
        calls.append(arguments)
        if len(calls) > 3:
            raise Unavailable("connection refused", store="qdrant", operation="search")
        return search(self, *arguments, **options)

    monkeypatch.setattr(Index, "search", until_third)
    outcome = cli("evaluate", *library, *judged, "--save", tmp_path / "out")

    assert (outcome.status, outcome.error_line()) == (3, "qdrant search: connection refused")
    assert not (tmp_path / "out").exists()
