"""An evaluation searches the live collection, and says which leg lost what."""

from __future__ import annotations

import pytest

pytest.importorskip("ir_measures", reason="computes the measures")

from st_connectors.evaluation import Judged, Variant, evaluate, known_items, worst_queries
from st_connectors.evaluation.evaluating import search_run
from st_connectors.evaluation.sweep import fusions, sweep
from st_connectors.evaluation.worst import _reason, leg_variants
from st_connectors.index import Index, Split
from st_connectors.schema import Rrf, Weighted

TEXTS = {
    "sea": ("The old man", "An ageing fisherman struggles with a giant marlin. He is alone."),
    "submarine": ("Twenty thousand leagues", "A voyage in a submarine under the ocean. It is long."),
    "time": ("The time machine", "A traveller visits the far future. Nobody believes him."),
    "moon": ("To the moon", "Members of a club shoot a capsule to the moon. It misses."),
    "war": ("The war of the worlds", "Martians land in England with machines. They die of germs."),
    "island": ("The island", "A sailor is alone on an island for many years. He meets a man."),
}
JUDGED = Judged(
    {
        "q1": "a fisherman and a big fish",
        "q2": "aquatic vessels",
        "q3": "future",
        "q4": "Martians",
        "q5": "alone",
        "q6": "capsule",
    },
    {
        "q1": {"sea": 2, "submarine": 1},
        "q2": {"submarine": 1},
        "q3": {"time": 1},
        "q4": {"war": 1},
        "q5": {"island": 2, "sea": 1},
        "q6": {"moon": 1},
    },
)


@pytest.fixture(scope="module")
def index():
    """A collection in memory with a dense and a sparse leg."""
    with Index.create("memory:evaluated", collection="books", dense="builtin:dense", sparse="builtin:sparse") as opened:
        opened.ingest({"id": key, "title": title, "text": text} for key, (title, text) in TEXTS.items())
        yield opened
        opened.store.drop()


def test_grades_are_checked_before_the_first_search(index, monkeypatch):
    """As is the library that computes the measures: a search of many queries takes long."""
    monkeypatch.setattr(Index, "search", lambda *_, **__: pytest.fail("searched"))
    judged = Judged({"q": "fish"}, {"q": {"sea": 0.5}})

    with pytest.raises(ValueError, match=r"document 'sea' of query 'q' has the grade 0\.5; expected a whole number"):
        evaluate([Variant("both", index)], judged)


def test_a_run_is_what_the_index_returns(index):
    """With the seconds of each query."""
    run = search_run(Variant("sparse", index, {"mode": "sparse"}), JUDGED.queries, 3)

    for query, text in JUDGED.queries.items():
        hits = index.search(text, mode="sparse", limit=3)
        assert list(run.rankings[query]) == [(hit.id, hit.score) for hit in hits]
        assert run.seconds[query] > 0


def test_variants_are_measured_side_by_side(index):
    """The first one is what the others are compared with; unknown documents are noted or refused."""
    variants = [Variant("both", index), *leg_variants(index)]

    evaluation = evaluate(variants, JUDGED, measures=["ndcg@3", "success@1"])

    assert [each.name for each in evaluation.results] == ["both", "dense", "sparse"]
    sparse = evaluation.results[2].per_query["success@1"]
    assert sparse.tolist() == [1, 0, 1, 1, 1, 1]
    few = Judged(JUDGED.queries, JUDGED.grades | {"q6": {"moon": 1, "absent": 1}})
    with pytest.raises(ValueError, match="1 of 9 judgements are for documents that the collection lacks: absent; pass"):
        evaluate(variants, few, measures=["ndcg@3"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"measures": []}, "nothing to evaluate"),
        ({"measures": ["ndcg@10"], "limit": 5}, "a limit of 5 is below the depth 10"),
        ({"measures": ["ndcg"]}, "unknown measure"),
    ],
)
def test_arguments_that_contradict_each_other_are_refused(index, options, message):
    """Before a search."""
    with pytest.raises(ValueError, match=message):
        evaluate([Variant("a", index)], JUDGED, **options)
    with pytest.raises(ValueError, match="the names of runs must differ, got a, a"):
        evaluate([Variant("a", index), Variant("a", index)], JUDGED)


def test_the_worst_queries_say_which_leg_lost_what(index):
    """The lowest first, with the texts of the first hits and the ranks of relevant documents in each leg."""
    variant = Variant("sparse", index, {"mode": "sparse"})
    evaluation = evaluate([variant], JUDGED, measures=["ndcg@3"])

    [first, second] = worst_queries(variant, evaluation.results[0], JUDGED, measure="ndcg@3", count=2)

    assert (first.id, first.query, first.value, first.found) == ("q2", "aquatic vessels", 0.0, ())
    assert 0 < second.value < 1
    [lost] = first.wanted
    assert (lost.id, lost.text, lost.rank) == ("submarine", TEXTS["submarine"][1], None)
    assert lost.legs["sparse"] is None
    assert lost.reason == f"lost by sparse: dense ranks it {lost.legs['dense']}, the result does not have it"
    assert first.to_json()["wanted"][0]["reason"] == lost.reason


@pytest.mark.parametrize(
    ("rank", "legs", "reason"),
    [
        (None, {"dense": None, "sparse": None}, "no leg returns it: dense, sparse"),
        (12, {"dense": 2, "sparse": None}, "lost by sparse: dense ranks it 2, the result ranks it 12"),
        (None, {"dense": 2, "sparse": 9}, "lost by the fusion: dense ranks it 2, the result does not have it"),
        (9, {"dense": 2}, "lost by what follows the leg: dense ranks it 2, the result ranks it 9"),
        (1, {"dense": 2, "sparse": 1}, "returned"),
        (1, {"dense": 1, "sparse": None}, "returned, but not by sparse"),
    ],
)
def test_the_reason_is_the_part_that_lost_a_document(rank, legs, reason):
    """By its rank in the result and in the legs."""
    assert _reason(rank, legs) == reason


def test_known_items_want_the_document_that_they_are_made_of(index, tmp_path):
    """By title, first sentence or a function; the report says that they are synthetic."""
    (tmp_path / "mine.py").write_text(
        "def query(record):\n    return None if record.id == 'sea' else 'find ' + record.id\n"
    )

    titles = known_items(index, "title")
    sentences = known_items(index, "first-sentence", count=3, seed=5)
    own = known_items(index, str(tmp_path / "mine.py"))

    assert titles.queries["q-moon"] == "To the moon"
    assert titles.grades["q-moon"] == {"moon": 1.0}
    assert len(titles.queries) == 6
    assert len(sentences.queries) == 3
    assert sentences.queries == known_items(index, "first-sentence", count=3, seed=5).queries
    assert all(text == TEXTS[query[2:]][1].split(". ")[0] + "." for query, text in sentences.queries.items())
    assert "q-sea" not in own.queries
    assert own.queries["q-war"] == "find war"
    assert titles.origin == "synthetic known-item queries derived from titles"
    assert titles.notes[0].startswith("synthetic queries: ")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("body", "unknown kind of synthetic queries 'body'; expected title, first-sentence or FILE.py"),
        ("none.py", r"none.py defines no function query\(record\)"),
        ("empty.py", "no document of 'books' gives a query"),
    ],
)
def test_other_synthetic_queries_are_refused(index, tmp_path, monkeypatch, kind, message):
    """With what is expected."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "none.py").write_text("x = 1\n")
    (tmp_path / "empty.py").write_text("def query(record):\n    return None\n")

    with pytest.raises(ValueError, match=message):
        known_items(index, kind)


def test_a_split_document_counts_once():
    """Its windows are one item, and one document of a ranking."""
    with Index.create("memory:windows", collection="long", sparse="builtin:sparse") as index:
        text = " ".join(f"word{place} tree" for place in range(300))
        index.ingest([{"id": "long", "text": text}, {"id": "short", "text": "a tree"}], split=Split(tokens=50))
        run = search_run(Variant("sparse", index), {"q": "tree"}, 10)
        made = known_items(index, "first-sentence")
        index.store.drop()

    assert sorted(document for document, _ in run.rankings["q"]) == ["long", "short"]
    assert set(made.queries) == {"q-long", "q-short"}


def test_a_sweep_selects_on_one_half_and_measures_on_the_other(index):
    """Its fusion is that of the store, and of the highest value of all that were tried."""
    from st_connectors.evaluation import parse_measure

    result = sweep(index, JUDGED, parse_measure("ndcg@3"), limit=100, seed=1)

    values = dict(result.tried)
    assert values[result.best] == result.value == max(values.values())
    assert len(values) == 2 + 11
    assert len(result.rest.queries) == 3
    for query, text in result.rest.queries.items():
        hits = index.search(text, fusion=result.best, limit=100)
        assert [key for key, _ in result.run.rankings[query]] == [hit.id for hit in hits]
    assert Weighted((0.3, 0.7)) in values
    assert Rrf(60) in values


def test_weights_of_one_leg_are_not_swept():
    """There is nothing to weigh."""
    with pytest.raises(ValueError, match="two or three legs, and the collection has 1"):
        list(fusions(1))
    assert len(list(fusions(3))) == 2 + 21
