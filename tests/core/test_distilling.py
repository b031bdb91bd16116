"""Smaller models agree with their teachers as far as their size allows, and load in sentence-transformers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="needs torch")
oracle = pytest.importorskip("sentence_transformers", reason="the results are loaded with it")

from families import documentation  # noqa: E402 - after the guard

import st_core  # noqa: E402 - after the guard
from st_core.distilling import static  # noqa: E402 - after the guard
from st_core.distilling.dimensions import with_dimensions  # noqa: E402 - after the guard
from st_core.distilling.texts import split_held_out, texts_of_files  # noqa: E402 - after the guard
from st_core.distilling.vectors import principal_axes, similarity_correlation  # noqa: E402 - after the guard

pytestmark = pytest.mark.torch

DENSE = "SentenceTransformer"


@pytest.fixture(scope="session")
def texts():
    """Return lines of documentation, all different."""
    lines = (line.strip() for text in documentation() for line in text.splitlines())
    return [line for line in dict.fromkeys(lines) if len(line.split()) > 4][:300]


def assert_loads_in_both(model, folder, agree, texts):
    """Save a model; both libraries load it with its numbers."""
    model.save_pretrained(folder)
    for package in (oracle, st_core):
        agree(package.SentenceTransformer(str(folder), device="cpu").encode(texts), model.encode(texts))


@settings(max_examples=40)
@given(st.integers(2, 8), st.integers(0, 2**32 - 1))
def test_axes_are_those_of_the_singular_values(dimensions, seed):
    """The projection explains the share of the largest singular values, and its rows are orthonormal."""
    random = np.random.default_rng(seed)
    vectors = (random.normal(size=(30, 8)) * random.gamma(1.0, size=8) + random.normal(size=8)).astype(np.float32)

    axes = principal_axes(vectors, dimensions)

    _, values, rows = np.linalg.svd(vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64))
    assert axes.explained == pytest.approx((values[:dimensions] ** 2).sum() / (values**2).sum(), abs=1e-9)
    np.testing.assert_allclose(axes.directions @ axes.directions.T, np.eye(dimensions), atol=1e-5)
    np.testing.assert_allclose(np.abs(np.diag(axes.directions @ rows[:dimensions].T)), 1, atol=1e-3)


def test_agreement_is_the_correlation_of_scipy():
    """Of the cosines of all pairs, by rank, for vectors of different widths."""
    from scipy.stats import spearmanr

    random = np.random.default_rng(1)
    first, second = random.normal(size=(20, 5)), random.normal(size=(20, 3))

    found = similarity_correlation(first, second)

    def cosines(vectors):
        scaled = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return [scaled[i] @ scaled[j] for i in range(20) for j in range(i + 1, 20)]

    assert found == pytest.approx(spearmanr(cosines(first), cosines(second)).statistic, abs=1e-5)


def test_token_vectors_are_those_of_texts_of_one_token(checkpoints, agree):
    """With the special tokens around them."""
    theirs, model = checkpoints.pair(DENSE, "bert-mean")
    words = [word for word in ("copy", "the", "file", "list") if word in theirs.tokenizer.vocab]

    table = static.token_vectors(model)

    assert len(table) == len(theirs.tokenizer)
    agree(table[[theirs.tokenizer.vocab[word] for word in words]], theirs.encode(words))


def test_a_table_without_texts_is_reduced_and_weighted(checkpoints, agree, tmp_path, texts):
    """By the principal axes of token vectors and the rank of each token."""
    teacher = checkpoints.load(st_core, DENSE, "bert-mean")
    tokens = static.token_vectors(teacher)
    vocabulary = teacher.backend_tokenizer.get_vocab()

    model = st_core.distilling.static_model(teacher, dimensions=12)

    axes = principal_axes(tokens, 12).directions
    shares = static.zipf_shares([teacher.backend_tokenizer.id_to_token(index) for index in range(len(tokens))])
    table = ((tokens - tokens.mean(axis=0)) @ axes.T) * (1e-4 / (1e-4 + shares))[:, None]
    ids = [vocabulary[word] for word in ("copy", "the", "file")]
    wanted = table[ids].mean(axis=0)
    agree(model.encode("copy the file"), wanted / np.linalg.norm(wanted))
    assert_loads_in_both(model, tmp_path / "out", agree, texts[:20])


def test_zipf_ranks_words_after_brackets_and_characters():
    """The first word is the most frequent one; a token in brackets is rarer than any word."""
    shares = static.zipf_shares(["[PAD]", "[unused0]", "a", "##a", "the", "of", "##ing", "<s>"])

    total = (1 / np.arange(1, 9)).sum()
    np.testing.assert_allclose(shares * total, [1 / 8, 1 / 8, 1 / 10, 1 / 10, 1, 1 / 2, 1 / 3, 1 / 8], rtol=1e-6)


def test_texts_bring_a_static_model_closer_to_its_teacher(checkpoints, agree, tmp_path, texts):
    """On texts that it was not fitted to; the map is the ridge regression of the means."""
    teacher = checkpoints.load(st_core, DENSE, "bert-mean")
    train, test = split_held_out(texts, 0.3)
    wanted = teacher.encode(test)

    plain, fitted = (static.static_model(teacher, each, 16) for each in (None, train))

    assert similarity_correlation(wanted, fitted.encode(test)) > similarity_correlation(wanted, plain.encode(test))
    assert_loads_in_both(fitted, tmp_path / "out", agree, test)


def test_ridge_is_the_solution_of_the_augmented_least_squares():
    """With the penalty as further rows."""
    random = np.random.default_rng(2)
    inputs, goals = random.normal(size=(40, 6)), random.normal(size=(40, 3))

    found = static.ridge(inputs, goals)

    penalty = static.RIDGE * np.trace(inputs.T @ inputs) / 6
    rows = np.concatenate([inputs, np.sqrt(penalty) * np.eye(6)])
    wanted = np.linalg.lstsq(rows, np.concatenate([goals, np.zeros((6, 3))]), rcond=None)[0]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["bert-mean", "roberta-six"])
def test_fewer_dimensions_are_the_projection_of_the_vectors(checkpoints, agree, tmp_path, texts, name):
    """Scaled to unit length again if the teacher's are; prompts stay."""
    teacher = checkpoints.load(st_core, DENSE, name)

    result = with_dimensions(teacher, texts, 10)

    vectors = teacher.encode(texts)
    axes = principal_axes(vectors, 10)
    wanted = vectors @ axes.directions.T
    if name == "bert-mean":
        wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    agree(result.model.encode(texts), wanted)
    assert result.explained == axes.explained
    assert result.model.prompts == teacher.prompts
    assert_loads_in_both(result.model, tmp_path / "out", agree, texts[:20])


def test_dimensions_that_cannot_be_computed_are_refused(checkpoints, texts):
    """Before anything is saved."""
    teacher = checkpoints.load(st_core, DENSE, "bert-mean")
    with pytest.raises(ValueError, match="expected 1 to 32 dimensions, those of the teacher, got 33"):
        with_dimensions(teacher, texts, 33)
    with pytest.raises(ValueError, match="10 dimensions need at least as many texts, got 9"):
        with_dimensions(teacher, texts[:9], 10)


def test_texts_are_read_from_lines_and_rows(tmp_path):
    """Each once, without blanks and labels."""
    (tmp_path / "a.txt").write_text("one\n\n two \none\n")
    (tmp_path / "b.jsonl").write_text('{"query": "one", "texts": ["three", "four"], "label": 1}\n')

    assert texts_of_files([tmp_path / "a.txt", tmp_path / "b.jsonl"]) == ["one", " two ", "three", "four"]
    assert texts_of_files([tmp_path / "b.jsonl"], ["texts"]) == ["three", "four"]
    with pytest.raises(ValueError, match="has no column 'text'; its columns are query, texts, label"):
        texts_of_files([tmp_path / "b.jsonl"], ["text"])


@given(st.integers(2, 50), st.floats(0.01, 0.5), st.integers(0, 99))
def test_held_out_texts_are_a_drawn_share(count, share, seed):
    """Every text is in one part, in order; the seed decides which."""
    texts = [str(number) for number in range(count)]

    train, test = split_held_out(texts, share, seed)

    assert sorted([*train, *test], key=int) == texts
    assert (len(test), train, test) == (
        max(1, round(count * share)),
        sorted(train, key=int),
        sorted(test, key=int),
    )
    assert split_held_out(texts, share, seed) == (train, test)


def test_every_public_name_is_found():
    """The names are imported on first use."""
    import st_core.distilling as package

    for name in package.__all__:
        assert getattr(package, name).__module__.startswith("st_core.distilling."), name
