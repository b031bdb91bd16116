"""Negatives of a collection are hits of its search that are not relevant, not parts and not copies of what is."""

from __future__ import annotations

import json

import pytest

from st_connectors.evaluation import Judged
from st_connectors.index import Index, Split
from st_connectors.mining import MinedFile, Mining, StoreQuery, judged_queries, mine, mine_to_file, pair_queries
from st_core.mining import Query, Selection

TEXTS = {
    "sea": "a man goes fishing at sea for many days",
    "copy": "A man goes fishing at sea for many days!",
    "boat": "a boat is lost at sea",
    "fish": "how to cook a fish from the sea",
    "moon": "a capsule is shot to the moon",
    "blank": " ",
}
QUERY = StoreQuery(Query("fishing at sea", (TEXTS["sea"],)), frozenset({"sea"}))


class ByLength:
    """A reranker whose score is the length of the document, the longest first."""

    def predict(self, pairs):
        return [float(len(text)) for _, text in pairs]


@pytest.fixture(scope="module")
def index():
    """A collection in memory with a dense and a sparse leg."""
    with Index.create("memory:mined", collection="notes", dense="builtin:dense", sparse="builtin:sparse") as opened:
        opened.ingest({"id": key, "text": text} for key, text in TEXTS.items())
        yield opened
        opened.store.drop()


@pytest.mark.parametrize("mode", ["dense", "sparse", "hybrid"])
def test_negatives_are_hits_that_are_not_relevant(index, mode):
    """In the order of the search, without the copy of the positive; the scores are its scores."""
    hits = [hit for hit in index.search(QUERY.query.text, mode=mode, limit=6) if hit.id not in {"sea", "copy", "blank"}]

    [mined] = mine(index, [QUERY], Mining(Selection(num_negatives=2), mode=mode))

    assert list(mined.negatives) == [TEXTS[hit.id] for hit in hits[:2]]
    assert list(mined.negative_scores) == [hit.score for hit in hits[:2]]


def test_a_reranker_decides_with_its_own_scores(index):
    """Margins are in its units; candidates above the positive are left out."""
    selection = Selection(num_negatives=5, absolute_margin=9.0)

    [mined] = mine(index, [QUERY], Mining(selection), reranker=ByLength())

    assert mined.positive_scores == (39.0,)
    assert mined.negatives == (TEXTS["moon"], TEXTS["boat"])
    assert mined.negative_scores == (29.0, 21.0)
    with pytest.raises(ValueError, match="a margin needs the scores of positives: pass a reranker"):
        list(mine(index, [QUERY], Mining(selection)))


def test_windows_of_a_positive_are_no_negatives():
    """They are parts of a relevant document, whatever they say."""
    with Index.create("memory:mined-windows", collection="long", sparse="builtin:sparse") as index:
        text = " ".join(f"word{place} tree" for place in range(200))
        index.ingest(
            [{"id": "long", "text": text}, {"id": "other", "text": "a tree in the wood"}], split=Split(tokens=30)
        )
        judged = Judged({"q": "tree"}, {"q": {"long": 1}})
        [mined] = mine(index, judged_queries(judged, index), Mining(Selection(num_negatives=5)))
        index.store.drop()

    assert mined.negatives == ("a tree in the wood",)


def test_judged_queries_have_the_texts_of_the_collection(index):
    """Of documents with a grade above 0; a query whose documents are absent is left out."""
    judged = Judged({"1": "sea", "2": "x"}, {"1": {"boat": 2, "moon": 0, "absent": 1}, "2": {"absent": 1}})

    assert judged_queries(judged, index) == [StoreQuery(Query("sea", (TEXTS["boat"],)), frozenset({"boat", "absent"}))]


PAIRS = [{"q": f"sea {place}", "a": TEXTS["boat"]} for place in range(5)]


def mining(**options):
    """Random negatives of two queries at a time."""
    selection = Selection(num_negatives=1, sampling_strategy="random", near_duplicates=None, range_max=4)
    return Mining(selection, batch=2, **options)


def test_an_interrupted_mining_continues(index, tmp_path):
    """Its file is the same as without the interruption, random negatives included."""
    queries, path = pair_queries(PAIRS, "q", "a"), tmp_path / "rows.jsonl"
    numbers = mine_to_file(index, queries, tmp_path / "whole.jsonl", mining())

    def stop(done, _total):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mine_to_file(index, queries, path, mining(), progress=stop)
    with path.open("ab") as file:
        file.write(b'{"half of a row')
    again = mine_to_file(index, queries, path, mining())

    assert again == numbers == MinedFile(5, 5, 5, 0)
    assert path.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["rows.jsonl", "whole.jsonl"]
    row = json.loads(path.read_text().splitlines()[0])
    assert row.keys() == {"query", "positive", "negative"}


def test_another_mining_does_not_continue(index, tmp_path):
    """Nor is a file overwritten that has no state."""
    queries, path = pair_queries(PAIRS, "q", "a"), tmp_path / "rows.jsonl"

    def stop(_done, _total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mine_to_file(index, queries, path, mining(), progress=stop)
    with pytest.raises(ValueError, match="state of a mining with other queries, models or options"):
        mine_to_file(index, queries, path, mining(seed=1))
    (tmp_path / "rows.jsonl.state").write_text("[]")
    with pytest.raises(ValueError, match="not the state of a mining; delete it and"):
        mine_to_file(index, queries, path, mining())
    (tmp_path / "rows.jsonl.state").unlink()
    with pytest.raises(ValueError, match="exists; delete it, or write to another file"):
        mine_to_file(index, queries, path, mining())
    with pytest.raises(ValueError, match="the form must be one of triplet"):
        Mining(form="pairs")
