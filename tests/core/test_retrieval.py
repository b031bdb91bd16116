"""Search, paraphrases and communities against plain numpy, and against sentence-transformers."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from st_core import retrieval, sparse_rows
from st_core.retrieval import community_detection, paraphrase_mining, paraphrase_mining_embeddings, semantic_search
from st_core.similarity import cos_sim, dot_score, euclidean_sim, manhattan_sim
from st_core.vectors import SparseMatrix

RANDOM = np.random.default_rng(0)
CORPUS = RANDOM.normal(size=(400, 16)).astype(np.float32)
QUERIES = RANDOM.normal(size=(23, 16)).astype(np.float32)
CLUSTERED = np.concatenate(
    [
        *(RANDOM.normal(size=(1, 16)) + 0.25 * RANDOM.normal(size=(size, 16)) for size in (30, 12, 45, 9)),
        RANDOM.normal(size=(80, 16)),
    ]
).astype(np.float32)


def ranked(scores, count):
    """The best of each row by brute force: positions and scores, equal scores by position."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    return order.tolist(), np.take_along_axis(scores, order, axis=1)


def same_hits(hits, order, scores):
    """Whether a search's answer has these positions and scores."""
    assert [[hit["corpus_id"] for hit in row] for row in hits] == order
    np.testing.assert_allclose([[hit["score"] for hit in row] for row in hits], scores, atol=1e-5)


@pytest.mark.parametrize("score", [cos_sim, dot_score, euclidean_sim, manhattan_sim], ids=lambda score: score.__name__)
@pytest.mark.parametrize("top_k", [1, 10, 400, 1000])
def test_the_nearest_are_found(score, top_k):
    """Positions and scores of the brute force, for any number of hits up to more than there are."""
    hits = semantic_search(QUERIES, CORPUS, top_k=top_k, score_function=score)

    same_hits(hits, *ranked(score(QUERIES, CORPUS), top_k))
    assert {type(hit["corpus_id"]) for row in hits for hit in row} == {int}
    assert {type(hit["score"]) for row in hits for hit in row} == {float}


@pytest.mark.parametrize("score", [cos_sim, dot_score, euclidean_sim], ids=lambda score: score.__name__)
def test_sparse_vectors_are_searched(score):
    """The answer of the same vectors held densely."""
    corpus, queries = (np.abs(side) * (np.abs(side) > 0.8) for side in (CORPUS, QUERIES))

    hits = semantic_search(
        SparseMatrix.from_dense(queries), SparseMatrix.from_dense(corpus), top_k=7, score_function=score
    )

    wanted = score(queries.astype(np.float64), corpus.astype(np.float64))
    np.testing.assert_allclose([[hit["score"] for hit in row] for row in hits], ranked(wanted, 7)[1], atol=1e-5)
    for row, hit in ((row, hit) for row, found in enumerate(hits) for hit in found):
        assert hit["score"] == pytest.approx(wanted[row, hit["corpus_id"]], abs=1e-5)


@pytest.mark.parametrize("chunks", [(1, 1), (3, 7), (100, 399)])
def test_chunks_and_blocks_change_nothing(monkeypatch, chunks):
    """Neither the sizes asked for nor the size of a block."""
    wanted = ranked(cos_sim(QUERIES, CORPUS), 5)

    same_hits(semantic_search(QUERIES, CORPUS, *chunks, top_k=5), *wanted)
    for module in (retrieval, sparse_rows):
        monkeypatch.setattr(module, "BLOCK", 50)
    same_hits(semantic_search(QUERIES, CORPUS, *chunks, top_k=5), *wanted)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.integers(1, 12), st.integers(1, 9))
@settings(deadline=None, max_examples=80)
def test_equal_scores_come_by_position(values, top_k, chunk):
    """Of many equal scores the lowest positions are kept, wherever the chunks end."""
    corpus = np.array(values, np.float32)[:, None]

    hits = semantic_search(np.ones((1, 1)), corpus, corpus_chunk_size=chunk, top_k=top_k, score_function=dot_score)

    same_hits(hits, *ranked(corpus.T, top_k))


def test_a_score_of_ones_own_is_used():
    """It meets batches of the kind that was given, and its NaN sinks to the bottom."""

    def odd(queries, corpus):
        scores = -np.abs(queries[:, :1] - corpus[:, 0])
        scores[:, 0] = np.nan
        return scores

    hits = semantic_search(QUERIES, CORPUS[:5], score_function=odd, top_k=5)

    assert [row[-1] for row in hits] == [{"corpus_id": 0, "score": -np.inf}] * len(QUERIES)


def test_nothing_is_found_in_nothing():
    """No corpus gives no hits, no queries no rows, and none at all may not be asked for."""
    assert semantic_search(QUERIES, np.empty((0, 16))) == [[]] * len(QUERIES)
    assert semantic_search(np.empty((0, 16)), CORPUS) == []
    assert len(semantic_search(QUERIES[0], CORPUS)) == 1
    with pytest.raises(ValueError, match="top_k"):
        semantic_search(QUERIES, CORPUS, top_k=0)


def test_memory_is_bounded_by_a_block(monkeypatch):
    """Scores of 200 queries and 20,000 vectors are 16 MB; with small blocks the search takes a fraction of that."""
    for module in (retrieval, sparse_rows):
        monkeypatch.setattr(module, "BLOCK", 1 << 16)
    corpus = np.random.default_rng(1).normal(size=(20_000, 4)).astype(np.float32)

    tracemalloc.start()
    semantic_search(corpus[:200], corpus, score_function=dot_score)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 4_000_000


@pytest.mark.parametrize("score", [cos_sim, dot_score], ids=lambda score: score.__name__)
def test_pairs_are_the_nearest_of_each_vector(score):
    """Each pair once, the lower position first, by falling score: the union of every vector's nearest others.

    By inner product many a vector is not among its own nearest.
    """
    scores = score(CORPUS, CORPUS)
    np.fill_diagonal(scores, -np.inf)
    order, _ = ranked(scores, 3)
    wanted = {(min(i, j), max(i, j)) for i, row in enumerate(order) for j in row}

    pairs = paraphrase_mining_embeddings(CORPUS, top_k=3, score_function=score)

    assert {(i, j) for _, i, j in pairs} == wanted
    assert len(pairs) == len(wanted)
    assert [score for score, _, _ in pairs] == sorted((score for score, _, _ in pairs), reverse=True)
    for value, i, j in pairs[:50]:
        assert i < j
        assert value == pytest.approx(scores[i, j], abs=1e-5)


def test_the_best_pairs_stay_and_chunks_change_nothing():
    """max_pairs keeps the highest scores over all chunks."""
    every = paraphrase_mining_embeddings(CORPUS, top_k=20)

    for sizes in ({}, {"query_chunk_size": 30, "corpus_chunk_size": 50}):
        some = paraphrase_mining_embeddings(CORPUS, top_k=20, max_pairs=77, **sizes)
        assert [pair[1:] for pair in some] == [pair[1:] for pair in every[:77]]


def test_paraphrases_are_mined_from_a_models_texts():
    """The model is asked with the options that were given, and only those."""

    class Model:
        asked = None

        def encode(self, sentences, **options):
            self.asked = options
            return CORPUS[: len(sentences)]

    model = Model()

    pairs = paraphrase_mining(model, ["text"] * 10, batch_size=4, prompt_name="query", top_k=2)

    assert pairs == paraphrase_mining_embeddings(CORPUS[:10], top_k=2)
    assert model.asked == {"show_progress_bar": False, "batch_size": 4, "prompt_name": "query"}


def communities_by_definition(vectors, threshold, least):
    """Greedy communities, largest first, from the whole matrix of cosines in float64."""
    scores = np.asarray(cos_sim(vectors.astype(np.float64), vectors.astype(np.float64)))
    near = [np.flatnonzero(row >= threshold) for row in scores]
    order = sorted((i for i in range(len(vectors)) if len(near[i]) >= least), key=lambda i: -len(near[i]))
    taken: set[int] = set()
    found = []
    for centre in order:
        free = [int(j) for j in near[centre] if j not in taken]
        if centre not in taken and len(free) >= least:
            others = sorted((j for j in free if j != centre), key=lambda j: -scores[centre, j])
            found.append([centre, *others])
            taken.update(found[-1])
    return sorted(found, key=len, reverse=True)


@pytest.mark.parametrize(("threshold", "least"), [(0.75, 10), (0.6, 3), (0.3, 5), (0.95, 2)])
def test_communities_are_the_greedy_ones(monkeypatch, threshold, least):
    """The largest first, the centre first in each, nothing in two of them; blocks change nothing."""
    wanted = communities_by_definition(CLUSTERED, threshold, least)

    assert community_detection(CLUSTERED, threshold, least) == wanted
    assert wanted
    monkeypatch.setattr(retrieval, "BLOCK", 300)
    assert community_detection(CLUSTERED, threshold, least, batch_size=7) == wanted


def test_communities_of_sparse_vectors_are_those_of_the_dense():
    """Cosines of sparse rows, and a progress bar that stays off standard output."""
    vectors = np.abs(CLUSTERED) * (np.abs(CLUSTERED) > 0.3)

    found = community_detection(SparseMatrix.from_dense(vectors), 0.8, 5)

    assert [sorted(group) for group in found] == [sorted(group) for group in community_detection(vectors, 0.8, 5)]


def test_too_few_vectors_have_no_community(capsys):
    """Fewer than the least size, or none; a bar goes to standard error."""
    assert community_detection(CLUSTERED[:4], min_community_size=5) == []
    assert community_detection(np.empty((0, 16))) == []
    community_detection(CLUSTERED, show_progress_bar=True)
    assert capsys.readouterr().out == ""


@pytest.mark.filterwarnings(
    "ignore:Sparse invariant checks:UserWarning"
)  # the oracle's tensors; torch says it once a process
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support:UserWarning")
@pytest.mark.torch
@pytest.mark.parametrize("name", ["cos_sim", "dot_score", "euclidean_sim"])
@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
def test_the_oracle_finds_the_same(name, sparse):
    """With tensors, and with its own score function handed to ours."""
    import torch
    from sentence_transformers import util

    corpus, queries = (torch.from_numpy(np.abs(side) * (np.abs(side) > 0.5)) for side in (CORPUS, QUERIES))
    if sparse:
        corpus, queries = corpus.to_sparse(), queries.to_sparse()
    wanted = util.semantic_search(queries, corpus, score_function=getattr(util, name))
    ids, scores = ([[hit[key] for hit in row] for row in wanted] for key in ("corpus_id", "score"))

    same_hits(semantic_search(queries, corpus, score_function=globals()[name]), ids, scores)
    same_hits(semantic_search(queries, corpus, score_function=getattr(util, name), corpus_chunk_size=90), ids, scores)


@pytest.mark.torch
def test_the_oracle_mines_and_groups_the_same():
    """Pairs with their scores, and communities member by member."""
    import torch
    from sentence_transformers import util

    for options in ({"top_k": 4}, {"top_k": 4, "max_pairs": 100}):
        wanted = util.paraphrase_mining_embeddings(torch.from_numpy(CORPUS), **options)
        found = paraphrase_mining_embeddings(torch.from_numpy(CORPUS), **options)
        assert [pair[1:] for pair in found] == [pair[1:] for pair in wanted]
        np.testing.assert_allclose([pair[0] for pair in found], [pair[0] for pair in wanted], atol=1e-6)
    for threshold, least in ((0.75, 10), (0.5, 4)):
        assert community_detection(CLUSTERED, threshold, least) == util.community_detection(
            torch.from_numpy(CLUSTERED), threshold, least
        )
