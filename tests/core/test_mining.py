"""Hard negatives are those of sentence-transformers, and never a positive, a copy of one, or a part of one."""

from __future__ import annotations

import random

import pytest

from st_core.mining import Candidates, Mined, Query, Selection, queries_of, rows_of, select
from st_core.mining.selecting import is_near_duplicate

TEXTS = ("a", "b", "c", "d", "e", "f")
SIX = Candidates(TEXTS, (0.9, 0.8, 0.7, 0.6, 0.5, 0.4))


def chosen(selection, lowest=None, positives=("b",), last_rank=6, seed=0):
    """The texts that are selected of six candidates."""
    places = select(
        SIX, positives, selection, last_rank=last_rank, lowest_positive=lowest, generator=random.Random(seed)
    )
    return "".join(TEXTS[place] for place in places)


@pytest.mark.parametrize(
    ("options", "lowest", "expected"),
    [
        ({"num_negatives": 2}, None, "ac"),
        ({"num_negatives": 9}, None, "acdef"),
        ({"num_negatives": 2, "range_min": 1}, None, "cd"),
        ({"max_score": 0.65}, None, "def"),
        ({"min_score": 0.65}, None, "ac"),
        ({"absolute_margin": 0.15}, 0.8, "def"),
        ({"relative_margin": 0.1}, 0.8, "cde"),
        ({"relative_margin": 0.5}, -0.4, ""),
        ({"max_quantile": 0.5}, None, "def"),
        ({"range_min": 1, "max_score": 0.8}, None, "def"),
    ],
)
def test_bounds_apply_before_ranks(options, lowest, expected):
    """A margin is that of the lowest positive, relative to its magnitude."""
    assert chosen(Selection(**options), lowest) == expected


def test_random_negatives_are_those_of_the_seed():
    """Among the ranks of the window, the highest score first."""
    selection = Selection(num_negatives=2, sampling_strategy="random")
    drawn = {chosen(selection, last_rank=4, seed=seed) for seed in range(50)}

    assert drawn == {"ac", "ad", "ae", "cd", "ce", "de"}
    assert chosen(selection, seed=3) == chosen(selection, seed=3)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The old man goes fishing in the sea every day", True),
        ("the OLD man, goes fishing in the sea - every day!", True),
        ("the old man goes fishing", True),  # a part of the positive
        ("an old man sails home from the sea at night", False),
        ("sea", False),
        ("", False),
    ],
)
def test_a_copy_of_a_positive_is_no_negative(text, expected):
    """By the words that follow each other."""
    positive = "The old man goes fishing in the sea every day"

    assert is_near_duplicate(text, [positive]) is expected
    places = select(Candidates((text,), (1.0,)), [positive], Selection(), last_rank=5)
    assert places == ([] if expected else [0])
    assert select(Candidates((text,), (1.0,)), [positive], Selection(near_duplicates=None), last_rank=5) == (
        [] if text == positive else [0]
    )


REFUSED = [
    ({"num_negatives": 0}, "num_negatives must be at least 1"),
    ({"range_min": 3, "range_max": 3}, "range_max must be above range_min"),
    ({"range_min": 3, "range_max": 5}, "fewer than num_negatives=3 candidates"),
    ({"sampling_strategy": "best"}, "sampling_strategy must be top or random"),
    ({"max_quantile": 0.0}, "max_quantile must be above 0"),
    ({"near_duplicates": 1.5}, "near_duplicates must be above 0"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_a_selection_that_contradicts_itself_is_refused(options, message):
    """Before anything is searched."""
    with pytest.raises(ValueError, match=message):
        Selection(**options)


def test_a_margin_needs_the_score_of_a_positive():
    """Which only a model that scores both can give."""
    with pytest.raises(ValueError, match="a margin needs the score of the positives; pass a cross_encoder"):
        chosen(Selection(absolute_margin=0.1))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "the data set has no rows"),
        ([{"q": "a", "p": None}], "row 0, column 'p': expected text, got None"),
        ([{"q": "a", "p": "b"}, {"p": "b"}], "row 1, column 'q': expected text, got None"),
    ],
)
def test_rows_without_texts_are_refused(rows, message):
    """With the row and the column."""
    with pytest.raises(ValueError, match=message):
        queries_of(rows, "q", "p")


MINED = Mined(Query("q", ("p1", "p2")), (0.9, 0.8), ("n1", "n2"), (0.5, 0.25))


@pytest.mark.parametrize(
    ("form", "scored", "expected"),
    [
        ("triplet", False, [{"a": "q", "b": "p1", "negative": "n1"}, {"a": "q", "b": "p1", "negative": "n2"}]),
        ("n-tuple", True, [{"a": "q", "b": "p1", "negative_1": "n1", "negative_2": "n2", "scores": [0.9, 0.5, 0.25]}]),
        ("labeled-pair", False, [{"a": "q", "b": "p1", "label": 1}, {"a": "q", "b": "p2", "label": 1}]),
        ("labeled-list", False, [{"a": "q", "b": ["p1", "n1", "n2"], "labels": [1, 0, 0]}]),
    ],
)
def test_rows_have_the_form_that_a_loss_reads(form, scored, expected):
    """The first rows of a query with two positives."""
    rows = list(rows_of(MINED, form, 2, "a", "b", has_scores=scored))

    assert rows[: len(expected)] == expected
    assert list(rows_of(MINED, "n-tuple", 3, "a", "b", has_scores=False)) == []


ROWS = [
    {"question": f"where is the {thing}", "answer": f"the {thing} is {place}", "other": "x"}
    for thing, place in [
        ("fox", "in the forest"),
        ("tree", "in the garden"),
        ("fox", "behind the house"),
        ("file", "in a directory"),
        ("moon", "far away from here"),
        ("number", "one of many"),
        ("list", "sorted in place"),
    ]
]
CORPUS = ["copy a tree of files", "the quick brown fox jumps", "numbers and lists", "a", "the house in the garden"]
OPTIONS = [
    {},
    {"num_negatives": 2, "output_format": "n-tuple", "output_scores": True},
    {"output_format": "labeled-pair", "output_scores": True, "corpus": CORPUS},
    {"output_format": "labeled-list", "range_min": 2, "range_max": 6},
    {"output_format": "labeled-list", "output_scores": True, "absolute_margin": -0.05},
    {"relative_margin": 0.02, "max_score": 0.97, "min_score": 0.1, "corpus": CORPUS},
    {"num_negatives": 20},
    {"include_positives": True, "num_negatives": 4},
    {"query_prompt": "find: ", "corpus_prompt": "text: "},
    {"faiss_batch_size": 2, "num_negatives": 1},
    {"max_score": 0.6, "cross_encoder": True, "output_scores": True},
    {"absolute_margin": 0.001, "cross_encoder": True, "output_format": "labeled-list", "output_scores": True},
]


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore:.*")
@pytest.mark.parametrize("options", OPTIONS)
def test_negatives_are_theirs(checkpoints, options, capsys):
    """With every argument; a query has two positives."""
    pytest.importorskip("torch", reason="needs torch")
    util = pytest.importorskip("sentence_transformers.util", reason="mines the same negatives")
    datasets = pytest.importorskip("datasets", reason="their data set")
    from st_core.util import mine_hard_negatives

    theirs, ours = checkpoints.pair("SentenceTransformer", "bert-mean")
    models = [{}, {}]
    if options.get("cross_encoder"):
        models = [{"cross_encoder": each} for each in checkpoints.pair("CrossEncoder", "rerank-bert")]
    common = {name: value for name, value in options.items() if name != "cross_encoder"}
    data = datasets.Dataset.from_list(ROWS)

    wanted = util.mine_hard_negatives(data, theirs, verbose=False, **common, **models[0])
    found = mine_hard_negatives(data, ours, near_duplicates=None, **common, **models[1])

    assert found.column_names == wanted.column_names
    for row, other in zip(found, wanted, strict=True):
        for name, value in row.items():
            is_score = name in {"score", "scores"}
            assert value == (pytest.approx(other[name], abs=1e-5) if is_score else other[name])


@pytest.mark.torch
def test_vectors_are_kept_by_the_model(checkpoints, tmp_path, monkeypatch):
    """A second model has vectors of its own; the same model does not encode again."""
    pytest.importorskip("torch", reason="needs torch")
    pytest.importorskip("sentence_transformers", reason="the checkpoints are made with it")
    import st_core

    first, second = (checkpoints.load(st_core, "SentenceTransformer", name) for name in ("bert-mean", "bert-two-modes"))
    mine = st_core.mine_hard_negatives
    rows = mine(ROWS, first, output_scores=True, cache_folder=tmp_path)
    others = mine(ROWS, second, output_scores=True, cache_folder=tmp_path)
    monkeypatch.setattr(type(first), "encode_query", lambda *_, **__: pytest.fail("encodes again"))

    assert mine(ROWS, first, output_scores=True, cache_folder=tmp_path) == rows
    assert others != rows
    assert len(list(tmp_path.iterdir())) == 4
