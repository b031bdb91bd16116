"""Values, intervals and tests of an evaluation are those of their definitions."""

from __future__ import annotations

from functools import partial
from itertools import product

import numpy as np
import pytest

pytest.importorskip("ir_measures", reason="computes the measures")

from st_connectors.evaluation import Judged, Run, parse_measure, read_folder, read_judged, read_run, write_run
from st_connectors.evaluation.evaluating import evaluate_runs
from st_connectors.evaluation.gate import changes, failures, parse_limits, read_baseline
from st_connectors.evaluation.measures import measured
from st_connectors.evaluation.report import bars, plot, table
from st_connectors.evaluation.resampling import interval, paired_p

JUDGED = Judged(
    {"q1": "one", "q2": "two", "q3": "three"},
    {"q1": {"a": 3, "b": 1, "c": 0}, "q2": {"d": 1}, "q3": {"a": 2}},
)
RUN = Run("first", {"q1": [("x", 2.0), ("b", 2.0), ("a", 1.0)], "q2": [("d", 0.1)], "q3": []})


def test_measures_read_the_places_of_a_ranking():
    """Grades are gains, equal scores keep their order, and a query without results has 0."""
    names = ["ndcg@3", "rr@10", "recall@2", "map@10", "success@1", "precision@2"]

    values = measured(RUN, JUDGED, [parse_measure(name) for name in names])

    gain = (1 / np.log2(3) + 3 / np.log2(4)) / (3 / np.log2(2) + 1 / np.log2(3))
    assert values["ndcg@3"].tolist() == pytest.approx([gain, 1, 0])
    assert values["rr@10"].tolist() == pytest.approx([1 / 2, 1, 0])
    assert values["recall@2"].tolist() == pytest.approx([1 / 2, 1, 0])
    assert values["map@10"].tolist() == pytest.approx([(1 / 2 + 2 / 3) / 2, 1, 0])
    assert values["success@1"].tolist() == [0, 1, 0]
    assert values["precision@2"].tolist() == [0.5, 0.5, 0]


@pytest.mark.parametrize("name", ["ndcg", "ndcg@0", "ncdg@10", "ndcg@ten", ""])
def test_an_unknown_measure_is_refused(name):
    """With the names that exist."""
    with pytest.raises(ValueError, match=r"unknown measure .*; expected one of ndcg, recall, .*such as ndcg@10"):
        parse_measure(name)


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution():
    """For many values, to within its own error; and the same for the same seed."""
    values = np.random.default_rng(3).random(400)
    mean = partial(np.mean, axis=1)

    low, high = interval(values, mean, seed=1)

    half = 1.96 * values.std() / np.sqrt(values.size)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=half / 10)
    assert interval(values, mean, seed=1) == (low, high)
    assert all(np.isnan(interval(values[:1], mean)))


def test_the_paired_test_is_that_of_all_signs():
    """Compared with all 256 of them."""
    differences = np.array([0.3, 0.1, -0.05, 0.2, 0.4, 0.0, 0.15, -0.1])
    means = [abs((np.array(signs) * differences).mean()) for signs in product((-1, 1), repeat=8)]
    exact = np.mean([mean >= abs(differences.mean()) - 1e-12 for mean in means])

    assert paired_p(differences, np.zeros(8)) == pytest.approx(exact, abs=0.01)
    assert paired_p(np.zeros(8), differences) == pytest.approx(exact, abs=0.01)
    assert paired_p(differences, differences) == 1.0


def test_a_run_is_the_same_after_writing_and_reading(tmp_path):
    """In the format of TREC, with documents in their order."""
    write_run(Run("a run", RUN.rankings), tmp_path / "run.trec")
    run = read_run(tmp_path / "run.trec")

    assert (tmp_path / "run.trec").read_text().splitlines()[1] == "q1 Q0 b 2 2.0 a_run"
    assert run.name == "a_run"
    assert run.rankings == {query: list(ranking) for query, ranking in RUN.rankings.items() if ranking}
    with pytest.raises(ValueError, match="the id 'a b' contains white space"):
        write_run(Run("x", {"q": [("a b", 1.0)]}), tmp_path / "x.trec")
    (tmp_path / "bad.trec").write_text("q1 Q0 a first 1.0 x\n")
    with pytest.raises(ValueError, match=r"bad.trec line 1: expected query, Q0"):
        read_run(tmp_path / "bad.trec")


def folder(path, queries, judgements):
    """A folder in the format of BEIR."""
    (path / "qrels").mkdir()
    (path / "queries.jsonl").write_text("".join(f'{{"_id": "{each}", "text": "text of {each}"}}\n' for each in queries))
    lines = ["query-id\tcorpus-id\tscore", *("\t".join(map(str, each)) for each in judgements)]
    (path / "qrels" / "test.tsv").write_text("\n".join(lines) + "\n")
    return path


def test_queries_without_relevant_documents_are_left_out(tmp_path):
    """And counted in a note, as are a few judgements for unknown queries."""
    rows = [("q1", f"d{place}", 1) for place in range(20)] + [("q2", "d1", 0), ("other", "d1", 1)]

    judged = read_folder(folder(tmp_path, ["q1", "q2", "q3"], rows))

    assert list(judged.queries) == ["q1"]
    assert judged.notes == (
        f"1 of 22 judgements of {tmp_path}/qrels/test.tsv are for unknown queries: other",
        "2 of 3 queries have no relevant document and are left out",
    )


REFUSED = [
    (["q1"], [("q1", "d1", 1), ("q9", "d1", 1)], r"1 of 2 judgements of .* are for unknown queries: q9; pass the"),
    (["q1"], [("q1", "d1", 0)], r"no query has a relevant document in .*test.tsv"),
    (["q1", "q1"], [("q1", "d1", 1)], r"queries.jsonl line 2: the query id 'q1' is repeated"),
]


@pytest.mark.parametrize(("queries", "judgements", "message"), REFUSED)
def test_judgements_of_other_queries_are_refused(tmp_path, queries, judgements, message):
    """With the ids, and what to pass."""
    with pytest.raises(ValueError, match=message):
        read_folder(folder(tmp_path, queries, judgements))


def test_a_folder_without_the_files_is_refused(tmp_path):
    """The message names them."""
    with pytest.raises(ValueError, match=r"expected queries.jsonl, and qrels/dev.tsv or qrels.tsv"):
        read_folder(tmp_path, "dev")
    with pytest.raises(OSError, match=r"absent"):
        read_judged(tmp_path / "absent", tmp_path / "absent")


SECOND = Run("second", {"q1": [("a", 1.0)], "q2": [("d", 1.0)], "q3": [("a", 1.0)]}, {"q1": 0.1, "q2": 0.2, "q3": 0.3})


def test_an_evaluation_compares_runs_with_the_first():
    """The mean, the interval and the test of each measure, and quantiles of the seconds."""
    evaluation = evaluate_runs([RUN, SECOND], JUDGED, measures=["rr@10"])
    first, second = evaluation.results

    assert first.measures["rr@10"].value == pytest.approx(0.5)
    assert first.measures["rr@10"].difference is None
    assert second.measures["rr@10"].value == pytest.approx(1.0)
    apart = second.measures["rr@10"].difference
    assert apart is not None
    assert (apart.value, apart.low, apart.high) == pytest.approx((0.5, 0, 1))  # of 27 samples one is all 0, one all 1
    assert apart.p == pytest.approx(0.5, abs=0.05)  # two differences of the same sign
    assert second.to_json(list(JUDGED.queries))["measures"]["rr@10"]["difference"]["low"] == 0
    assert second.seconds["p50"].value == pytest.approx(0.2)
    assert not first.seconds
    lines = table(evaluation)
    assert lines[0] == "3 queries, 5 judgements (judgements)"
    assert lines[2].split()[:2] == ["first", "0.500"]
    assert "200.0 ms" in lines[3]
    assert bars(evaluation, "rr@10")[1].endswith(f"{'█' * 40}  1.000  +0.500 [+0.000, +1.000]")
    drawing = plot(evaluation)
    assert drawing.count("<rect") == 3
    assert 'width="210.0"' in drawing


def test_an_evaluation_is_compared_with_an_earlier_one(tmp_path):
    """Over the queries of both; a lower value is worse where it is significant."""
    import json

    many = Judged({f"q{n}": "x" for n in range(20)}, {f"q{n}": {"a": 1} for n in range(20)})
    good = Run("run", {query: [("a", 1.0)] for query in many.queries})
    bad = Run("run", {query: [("x", 2.0), ("a", 1.0)] for query in many.queries})
    (tmp_path / "before.json").write_text(json.dumps(evaluate_runs([good], many, measures=["rr@10"]).to_json()))
    baseline = read_baseline(tmp_path / "before.json")

    [change] = changes(evaluate_runs([bad], many, measures=["rr@10"]), baseline)
    [same] = changes(evaluate_runs([good], many, measures=["rr@10", "ndcg@3"]), baseline)

    assert (change.before, change.now, change.queries, change.is_worse) == (1.0, 0.5, 20, True)
    assert (same.p, same.is_worse) == (1.0, False)
    with pytest.raises(ValueError, match="no run, measure and query in common"):
        changes(evaluate_runs([Run("other", good.rankings)], many, measures=["rr@10"]), baseline)
    with pytest.raises(ValueError, match="the baseline is of judgements, and this evaluation of synthetic"):
        changes(evaluate_runs([good], Judged(many.queries, many.grades, "synthetic"), measures=["rr@10"]), baseline)
    (tmp_path / "other.json").write_text("[1]")
    with pytest.raises(ValueError, match="expected the JSON of an evaluation"):
        read_baseline(tmp_path / "other.json")


def test_limits_are_of_the_first_run():
    """A line for each value below its limit."""
    result = evaluate_runs([RUN], JUDGED, measures=["rr@10", "ndcg@3"]).results[0]

    assert failures(result, parse_limits(["rr@10=0.5"])) == []
    assert failures(result, parse_limits(["rr@10=0.51"])) == ["rr@10 of first is 0.5000, below 0.51"]


@pytest.mark.parametrize("text", ["ndcg@10", "ndcg@10=high", "best=0.5", "ndcg@10=42", "ndcg@10=nan"])
def test_a_limit_of_another_form_is_refused(text):
    """With an example."""
    with pytest.raises(ValueError, match=r"such as ndcg@10=0.42"):
        parse_limits([text])


def test_grades_that_are_no_whole_numbers_are_refused():
    """Measures of TREC read whole grades."""
    judged = Judged({"q": "x"}, {"q": {"a": 0.5}})

    with pytest.raises(ValueError, match=r"document 'a' of query 'q' has the grade 0\.5; expected a whole number"):
        measured(RUN, judged, [parse_measure("ndcg@10")])
