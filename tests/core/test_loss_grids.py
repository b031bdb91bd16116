"""Losses, samplers, schedules and batches of random sizes and values equal those of sentence-transformers."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("sentence_transformers", reason="everything is compared with it")
pytest.importorskip("accelerate", reason="the trainers need it")
datasets = pytest.importorskip("datasets", reason="the samplers of sentence-transformers read its data sets")

import sentence_transformers.base.sampler as their_samplers  # noqa: E402 - after the guard
import sentence_transformers.cross_encoder.losses as their_pairs  # noqa: E402 - after the guard
import sentence_transformers.sentence_transformer.losses as their_dense  # noqa: E402 - after the guard
import sentence_transformers.sparse_encoder.losses as their_sparse  # noqa: E402 - after the guard
import sentence_transformers.util as their_util  # noqa: E402 - after the guard
from hypothesis import HealthCheck, assume, given, settings  # noqa: E402 - after the guard
from hypothesis import strategies as st  # noqa: E402 - after the guard
from sentence_transformers.sparse_encoder.callbacks.splade_callbacks import (  # noqa: E402 - after the guard
    SpladeRegularizerWeightSchedulerCallback as TheirSchedule,
)

from st_core import util  # noqa: E402 - after the guard
from st_core.training import samplers  # noqa: E402 - after the guard
from st_core.training.callbacks import SpladeRegularizerWeightSchedulerCallback  # noqa: E402 - after the guard
from st_core.training.form import form_of  # noqa: E402 - after the guard
from st_core.training.losses import dense, reranking, sparse  # noqa: E402 - after the guard

pytestmark = [
    pytest.mark.torch,
    pytest.mark.long,
    pytest.mark.filterwarnings("ignore:.*symmetric.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*deprecated.*"),
]

GRID = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-5}
SCALES = st.sampled_from([0.05, 1.0, 20.0])
DTYPES = st.sampled_from([torch.float32, torch.float64])


@st.composite
def batches(draw, least=2, most=5, *, is_sparse=False):
    """Columns of vectors, some of which are equal, in a type of number."""
    columns, rows = draw(st.integers(least, most)), draw(st.integers(1, 7))
    width = 2 * draw(st.integers(1, 6))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    vectors = torch.randn((columns, rows, width), generator=generator, dtype=torch.float64) * draw(SCALES)
    if rows > 1 and draw(st.booleans()):
        vectors[:, 1] = vectors[:, 0]
    if is_sparse:
        vectors = vectors.relu()
    return vectors.to(draw(DTYPES))


def labels(draw, form, vectors):
    """Labels of a form; numbers and scores may be equal."""
    columns, rows, width = vectors.shape
    if form is None:
        return None
    if form == "binary":
        return torch.tensor(draw(st.lists(st.integers(0, 1), min_size=rows, max_size=rows)))
    if form == "number":
        values = st.sampled_from([0.0, 0.25, 0.5, 1.0, -0.5])
        return torch.tensor(draw(st.lists(values, min_size=rows, max_size=rows)), dtype=vectors.dtype)
    shape = {"margins": (rows, columns - 2), "scores": (rows, columns - 1), "vector": (rows, width)}[form]
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    drawn = torch.randn(shape, generator=generator, dtype=torch.float64) * draw(st.sampled_from([0.5, 4.0]))
    return (drawn[:, 0] if form == "margins" and columns == 3 else drawn).to(vectors.dtype)


def assert_same(ours, theirs, leaf, their_leaf):
    """The values and the gradients are equal, relative to the largest gradient."""
    tolerance = TOLERANCE[leaf.dtype]
    ours, theirs = (sum(each.values()) if isinstance(each, dict) else each for each in (ours, theirs))
    assume(bool(torch.isfinite(theirs)))
    assert ours.item() == pytest.approx(theirs.item(), rel=tolerance, abs=tolerance)
    ours.backward()
    theirs.backward()
    wanted = torch.zeros_like(leaf) if their_leaf.grad is None else their_leaf.grad
    found = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
    assume(bool(torch.isfinite(wanted).all()))
    assert (found - wanted).abs().max() <= tolerance * max(1.0, float(wanted.abs().max()))


def compare(ours, theirs, vectors, target):
    """Compute a loss of vectors by both, and compare."""
    mine, other = vectors.clone().requires_grad_(), vectors.clone().requires_grad_()
    value = ours.compute_loss_from_embeddings(list(mine), target)
    wanted = theirs.compute_loss_from_embeddings(list(other), target)
    assert_same(value, wanted, mine, other)


@pytest.fixture(scope="module")
def models(checkpoints):
    """The dense model of both."""
    return checkpoints.own_pair("SentenceTransformer", "bert-mean")


@pytest.fixture(scope="module")
def sparse_models(checkpoints):
    """The sparse model of both."""
    return checkpoints.own_pair("SparseEncoder", "splade-max")


@pytest.fixture(scope="module")
def rerankers(checkpoints):
    """The cross-encoder of both, without dropout."""
    theirs, ours = checkpoints.own_pair("CrossEncoder", "rerank-bert")
    theirs.eval()
    return theirs, ours


DIRECTIONS = ["query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc"]


@GRID
@given(
    vectors=batches(),
    scale=st.sampled_from([1.0, 20.0]),
    others=st.sets(st.sampled_from(DIRECTIONS[1:])),
    similarity=st.sampled_from(["cos_sim", "dot_score"]),
)
def test_ranking_with_any_directions(models, vectors, scale, others, similarity):
    """Negatives of the batch, for every number of columns and set of directions."""
    theirs, ours = models
    directions = ("query_to_doc", *sorted(others))
    assume(similarity == "cos_sim" or vectors.abs().max() < 10)  # larger products overflow the exponential in both

    compare(
        dense.MultipleNegativesRankingLoss(ours, scale, getattr(util, similarity), directions=directions),
        their_dense.MultipleNegativesRankingLoss(theirs, scale, getattr(their_util, similarity), directions=directions),
        vectors,
        None,
    )


@GRID
@given(
    vectors=batches(),
    mode=st.sampled_from(["in_batch_negatives", "hard_negatives", "all_negatives"]),
    strength=st.sampled_from([0.0, 1.0, 9.0]),
)
def test_ranking_with_hardness(models, vectors, mode, strength):
    """Every mode and strength."""
    theirs, ours = models
    options = {"hardness_mode": mode, "hardness_strength": strength}

    compare(
        dense.MultipleNegativesRankingLoss(ours, **options),
        their_dense.MultipleNegativesRankingLoss(theirs, **options),
        vectors,
        None,
    )


ON_VECTORS = [
    ("CoSENTLoss", (2, 2), "number"),
    ("AnglELoss", (2, 2), "number"),
    ("AnglELoss", (3, 5), None),
    ("CosineSimilarityLoss", (2, 2), "number"),
    ("TripletLoss", (3, 3), None),
    ("ContrastiveLoss", (2, 2), "binary"),
    ("OnlineContrastiveLoss", (2, 2), "binary"),
    ("MarginMSELoss", (3, 5), "margins"),
    ("MarginMSELoss", (3, 5), "scores"),
    ("DistillKLDivLoss", (3, 5), "scores"),
]


@pytest.mark.parametrize(("name", "columns", "form"), ON_VECTORS)
@GRID
@given(data=st.data())
def test_a_dense_loss(models, name, columns, form, data):
    """Every loss of vectors, with equal labels and equal rows among them."""
    theirs, ours = models
    vectors = data.draw(batches(*columns))
    target = labels(data.draw, form, vectors)

    compare(getattr(dense, name)(ours), getattr(their_dense, name)(theirs), vectors, target)


@pytest.mark.parametrize(
    ("name", "columns", "form"),
    [
        ("SparseMultipleNegativesRankingLoss", (2, 5), None),
        ("SparseMarginMSELoss", (3, 5), "margins"),
        ("SparseDistillKLDivLoss", (3, 5), "scores"),
        ("SparseCoSENTLoss", (2, 2), "number"),
        ("SparseTripletLoss", (3, 3), None),
    ],
)
@GRID
@given(data=st.data())
def test_a_sparse_loss(sparse_models, name, columns, form, data):
    """Every loss of sparse vectors, with its regularizers at random weights and thresholds."""
    theirs, ours = sparse_models
    vectors = data.draw(batches(*columns, is_sparse=True))
    assume(vectors.max() < 10)
    target = labels(data.draw, form, vectors)
    weights = data.draw(st.tuples(st.sampled_from([0.0, 0.1, 3.0]), st.sampled_from([None, 0.0, 0.2])))
    threshold = data.draw(st.sampled_from([None, 0, 3]))
    options = {"document_regularizer_weight": weights[0], "document_regularizer_threshold": threshold}
    mine, other = vectors.clone().requires_grad_(), vectors.clone().requires_grad_()
    inner, their_inner = getattr(sparse, name)(ours), getattr(their_sparse, name)(theirs)
    loss = sparse.SpladeLoss(ours, inner, query_regularizer_weight=weights[1], **options)
    wanted_loss = their_sparse.SpladeLoss(theirs, their_inner, query_regularizer_weight=weights[1], **options)

    value = loss.compute_loss_from_embeddings(list(mine), target)
    wanted = their_inner.compute_loss_from_embeddings(list(other), target)
    wanted = wanted + weights[0] * wanted_loss.document_regularizer.compute_loss_from_embeddings(
        torch.cat(list(other[1:]))
    )
    if weights[1] is not None:
        wanted = wanted + weights[1] * wanted_loss.query_regularizer.compute_loss_from_embeddings(other[0])

    assert_same(value, wanted, mine, other)


WORDS = ["copy", "tree", "parse", "date", "sort", "list", "fox", "dog", "garden", "a"]
TEXTS = st.lists(st.sampled_from(WORDS), min_size=1, max_size=9).map(" ".join)
LISTS = st.lists(st.tuples(TEXTS, st.integers(0, 4)), min_size=1, max_size=5, unique_by=lambda pair: pair[0])
"""Texts of a list differ, because rounding would order equal scores."""


@pytest.mark.parametrize("name", ["ListNetLoss", "ListMLELoss", "PListMLELoss", "RankNetLoss", "LambdaLoss"])
@settings(GRID, max_examples=8)
@given(queries=st.lists(st.tuples(TEXTS, LISTS), min_size=1, max_size=4))
def test_a_loss_of_lists(rerankers, name, queries):
    """Lists of different lengths, of one document, and of equal grades."""
    theirs, ours = rerankers
    columns = [[query for query, _ in queries], [[text for text, _ in listed] for _, listed in queries]]
    target = [torch.tensor([float(grade) for _, grade in listed]) for _, listed in queries]

    value = getattr(reranking, name)(ours)([list(each) for each in columns], target)
    wanted = getattr(their_pairs, name)(theirs)([list(each) for each in columns], target)

    assume(bool(torch.isfinite(wanted)))
    assert value.item() == pytest.approx(wanted.item(), rel=1e-5, abs=1e-6)
    form = form_of(ours)
    for module, loss in ((form, value), (theirs, wanted)):
        module.zero_grad()
        if loss.requires_grad:
            loss.backward()
    head, their_head = (
        max((each for each in module.parameters() if each.shape == (1, 32)), key=lambda each: each.abs().sum()).grad
        for module in (form, theirs)
    )
    if their_head is not None:
        assert head is not None
        assert (head - their_head).abs().max() <= 1e-5 * max(1.0, float(their_head.abs().max()))


ROWS = st.lists(
    st.fixed_dictionaries(
        {"question": st.sampled_from("abcdefgh"), "answer": st.sampled_from("efghijkl"), "label": st.integers(0, 3)}
    ),
    min_size=4,
    max_size=40,
)


@pytest.mark.parametrize("name", ["NoDuplicatesBatchSampler", "GroupByLabelBatchSampler"])
@GRID
@given(
    rows=ROWS, size=st.sampled_from([4, 6, 8]), drop_last=st.booleans(), seed=st.integers(0, 9), epoch=st.integers(0, 4)
)
def test_batches_are_theirs(name, rows, size, drop_last, seed, epoch):
    """Rows of few different texts and labels, and every seed and epoch."""

    def drawn(package, table):
        sampler = getattr(package, name)(
            table,
            batch_size=size,
            drop_last=drop_last,
            valid_label_columns=["label"],
            generator=torch.Generator(),
            seed=seed,
        )
        sampler.set_epoch(epoch)
        return list(sampler), len(sampler)

    if name.startswith("Group"):
        counts = [sum(row["label"] == value for row in rows) for value in range(4)]
        assume(sum(count >= 2 for count in counts) >= 2)
    assert drawn(samplers, rows) == drawn(their_samplers, datasets.Dataset.from_list(rows))


@GRID
@given(
    steps=st.integers(1, 200),
    ratio=st.floats(0.01, 1.0),
    kind=st.sampled_from(["linear", "quadratic"]),
    place=st.floats(0, 1),
)
def test_a_schedule_is_theirs(sparse_models, steps, ratio, kind, place):
    """The weights of both regularizers at any step."""
    theirs, ours = sparse_models
    found = []
    for package, model, schedule in (
        (sparse, ours, SpladeRegularizerWeightSchedulerCallback),
        (their_sparse, theirs, TheirSchedule),
    ):
        loss = package.SpladeLoss(model, package.SparseMultipleNegativesRankingLoss(model), 0.3, 0.7)
        callback, state = schedule(loss, kind, ratio), SimpleNamespace(max_steps=steps, global_step=0)
        callback.on_train_begin(None, state, None)
        state.global_step = int(place * steps)
        callback.on_step_begin(None, state, None)
        found.append((loss.document_regularizer_weight, loss.query_regularizer_weight))

    assert found[0] == pytest.approx(found[1])


@GRID
@given(texts=st.lists(TEXTS, min_size=1, max_size=6), prompt=st.sampled_from([None, "query: ", "the "]))
def test_a_batch_has_their_tokens(models, texts, prompt):
    """The tokens of each text and the length of the prompt."""
    theirs, ours = models

    found = form_of(ours).preprocess(list(texts), prompt=prompt)
    wanted = theirs.preprocess(list(texts), prompt=prompt)

    assert found["attention_mask"].sum(1).tolist() == wanted["attention_mask"].sum(1).tolist()
    for name in ("input_ids", "attention_mask"):
        assert torch.equal(torch.as_tensor(found[name]), torch.as_tensor(wanted[name])), name
    assert found.get("prompt_length") == wanted.get("prompt_length")
