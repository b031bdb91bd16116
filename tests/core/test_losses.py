"""Every loss equals that of sentence-transformers, in value and in gradient, on the same batch."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs torch")
oracle = pytest.importorskip("sentence_transformers", reason="the losses are compared with its losses")
pytest.importorskip("accelerate", reason="the trainers need it")

import sentence_transformers.cross_encoder.losses as their_pairs  # noqa: E402 - after the guard
import sentence_transformers.sentence_transformer.losses as their_dense  # noqa: E402 - after the guard
import sentence_transformers.sparse_encoder.losses as their_sparse  # noqa: E402 - after the guard
import sentence_transformers.util as their_util  # noqa: E402 - after the guard

import st_core  # noqa: E402 - after the guard
from st_core import util  # noqa: E402 - after the guard
from st_core.training.form import form_of  # noqa: E402 - after the guard
from st_core.training.losses import dense, reranking, sparse, splade  # noqa: E402 - after the guard

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore:.*symmetric.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*deprecated.*"),
]

WIDTH = 32
ROWS = 6
TEXTS = [
    "How do I copy a directory tree?",
    "a",
    "Parse a date string the way that others do, in one call",
    "The quick brown fox jumps over the lazy dog.",
    "where is a tree",
    "sort a list of numbers in place",
]
OTHERS = [
    "copy files",
    "one two three four five six seven",
    "dates",
    "a fox",
    "the tree is in the garden behind the house",
    "sorting numbers",
]
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-5}


def drawn(shape, dtype, seed=0):
    """A tensor of a normal distribution."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def labels_of(form, columns, dtype):
    """Labels of a form for ROWS rows."""
    if form == "number":
        return torch.tensor([0.0, 0.5, 0.5, 1.0, -0.2, 0.9], dtype=dtype)
    if form == "binary":
        return torch.tensor([0, 1, 1, 0, 1, 0])
    if form == "margin":
        return drawn(ROWS, dtype, 3) * 3
    if form == "margins":
        return drawn((ROWS, columns - 2), dtype, 3) * 3
    if form == "scores":
        return drawn((ROWS, columns - 1), dtype, 4) * 3
    if form == "vector":
        return drawn((ROWS, WIDTH), dtype, 5)
    return drawn((ROWS, columns, WIDTH), dtype, 6) if form == "vectors" else None


RANKING = [
    {},
    {"scale": 7.0},
    {"directions": ("query_to_doc", "doc_to_query"), "partition_mode": "per_direction"},
    {"directions": ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc")},
    {"directions": ("query_to_doc", "doc_to_doc")},
    {"hardness_mode": "in_batch_negatives", "hardness_strength": 9.0},
    {"hardness_mode": "hard_negatives", "hardness_strength": 5.0},
    {"hardness_mode": "all_negatives", "hardness_strength": 2.0},
]
ON_EMBEDDINGS = [
    *[("MultipleNegativesRankingLoss", columns, None, options) for options in RANKING for columns in (2, 4)],
    ("MultipleNegativesRankingLoss", 3, None, {"similarity_fct": "dot_score", "scale": 1.0}),
    ("MultipleNegativesSymmetricRankingLoss", 2, None, {}),
    ("CoSENTLoss", 2, "number", {}),
    ("CoSENTLoss", 2, "binary", {"scale": 3.0, "similarity_fct": "pairwise_dot_score"}),
    ("AnglELoss", 2, "number", {}),
    ("AnglELoss", 4, None, {}),
    ("AnglELoss", 3, "binary", {}),
    ("CosineSimilarityLoss", 2, "number", {}),
    ("CosineSimilarityLoss", 2, "number", {"loss_fct": torch.nn.L1Loss(), "cos_score_transformation": torch.nn.Tanh()}),
    *[("TripletLoss", 3, None, {"distance_metric": name}) for name in ("COSINE", "EUCLIDEAN", "MANHATTAN")],
    *[
        (loss, 2, "binary", {"distance_metric": name, "margin": 0.7})
        for loss in ("ContrastiveLoss", "OnlineContrastiveLoss")
        for name in ("COSINE_DISTANCE", "EUCLIDEAN", "MANHATTAN")
    ],
    ("ContrastiveLoss", 2, "binary", {"size_average": False}),
    ("MarginMSELoss", 3, "margin", {}),
    ("MarginMSELoss", 5, "margins", {}),
    ("MarginMSELoss", 4, "scores", {"similarity_fct": "pairwise_cos_sim"}),
    ("DistillKLDivLoss", 4, "scores", {}),
    ("DistillKLDivLoss", 3, "scores", {"student_temperature": 2.0, "teacher_temperature": 0.5}),
]


def made(package, functions, name, model, options):
    """A loss of a package, with functions and distances by their names."""
    options = dict(options)
    if "similarity_fct" in options:
        options["similarity_fct"] = getattr(functions, options["similarity_fct"])
    if "distance_metric" in options and name != "EmbedDistillLoss":
        group = "TripletDistanceMetric" if "Triplet" in name else "SiameseDistanceMetric"
        home = package if hasattr(package, group) else {sparse: dense, their_sparse: their_dense}[package]
        options["distance_metric"] = getattr(getattr(home, group), options["distance_metric"])
    return getattr(package, name)(model, **options)


def assert_same(ours, theirs, leaves, their_leaves, tolerance):
    """The value and the gradient of every leaf are equal."""
    ours, theirs = (sum(each.values()) if isinstance(each, dict) else each for each in (ours, theirs))
    assert ours.item() == pytest.approx(theirs.item(), rel=tolerance, abs=tolerance)
    ours.backward()
    theirs.backward()
    largest = max(float(each.grad.abs().max()) for each in their_leaves if each.grad is not None)
    for mine, wanted in zip(leaves, their_leaves, strict=True):
        zeros = torch.zeros_like(mine)
        difference = (zeros if mine.grad is None else mine.grad) - (zeros if wanted.grad is None else wanted.grad)
        assert difference.abs().max() <= tolerance * max(1.0, largest)


@pytest.fixture(scope="module")
def models(checkpoints):
    """The dense model of both."""
    return checkpoints.own_pair("SentenceTransformer", "bert-mean")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("name", "columns", "labels", "options"), ON_EMBEDDINGS)
def test_a_dense_loss_of_embeddings_is_theirs(models, name, columns, labels, options, dtype):
    """Of the same embeddings and labels."""
    theirs, ours = models
    embeddings = [drawn((ROWS, WIDTH), dtype, seed) for seed in range(columns)]
    mine = [each.clone().requires_grad_() for each in embeddings]
    their = [each.clone().requires_grad_() for each in embeddings]
    target = labels_of(labels, columns, dtype)

    value = made(dense, util, name, ours, options).compute_loss_from_embeddings(mine, target)
    wanted = made(their_dense, their_util, name, theirs, options).compute_loss_from_embeddings(their, target)

    assert_same(value, wanted, mine, their, TOLERANCE[dtype])


SPARSE = [
    ("SparseMultipleNegativesRankingLoss", 3, None, {}),
    ("SparseMarginMSELoss", 3, "margin", {}),
    ("SparseDistillKLDivLoss", 4, "scores", {}),
    ("SparseTripletLoss", 3, None, {}),
    ("SparseCoSENTLoss", 2, "number", {}),
    ("SparseAnglELoss", 2, "number", {}),
    ("SparseCosineSimilarityLoss", 2, "number", {}),
]
REGULARIZERS = [
    {"query_regularizer_weight": 0.3},
    {"query_regularizer_weight": 0.3, "document_regularizer_threshold": 15, "query_regularizer_threshold": 14},
    {"use_document_regularizer_only": True},
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("name", "columns", "labels", "options"), SPARSE)
@pytest.mark.parametrize("regularizers", REGULARIZERS)
def test_a_sparse_loss_of_embeddings_is_theirs(checkpoints, name, columns, labels, options, regularizers, dtype):
    """Within SpladeLoss, with each of its parts."""
    theirs, ours = checkpoints.own_pair("SparseEncoder", "splade-max")
    embeddings = [drawn((ROWS, WIDTH), dtype, seed).relu() for seed in range(columns)]
    mine = [each.clone().requires_grad_() for each in embeddings]
    their = [each.clone().requires_grad_() for each in embeddings]
    target = labels_of(labels, columns, dtype)
    inner = made(sparse, util, name, ours, options)
    loss = sparse.SpladeLoss(ours, inner, 0.1, **regularizers)
    their_inner = made(their_sparse, their_util, name, theirs, options)
    their_loss = their_sparse.SpladeLoss(theirs, their_inner, 0.1, **regularizers)

    parts = loss.compute_loss_from_embeddings(mine, target)
    wanted = {"base_loss": their_inner.compute_loss_from_embeddings(their, target)}
    alone = regularizers.get("use_document_regularizer_only", False)
    documents = torch.cat(their if alone else their[1:])
    wanted["document_regularizer_loss"] = their_loss.document_regularizer.compute_loss_from_embeddings(documents) * 0.1
    if not alone:
        query = their_loss.query_regularizer.compute_loss_from_embeddings(their[0])
        wanted["query_regularizer_loss"] = query * 0.3

    assert parts.keys() == wanted.keys()
    for part, value in parts.items():
        assert value.item() == pytest.approx(wanted[part].item(), rel=TOLERANCE[dtype], abs=1e-9)
    assert_same(parts, wanted, mine, their, TOLERANCE[dtype])


def gradients(module):
    """The gradient of each parameter by its values, since names differ between libraries."""
    return {
        parameter.detach().numpy().tobytes(): parameter.grad
        for parameter in module.parameters()
        if parameter.grad is not None and parameter.grad.any()
    }


def assert_same_gradients(ours, theirs, value, wanted):
    """The values, and the gradients of all parameters, are equal in float64."""
    value, wanted = (sum(each.values()) if isinstance(each, dict) else each for each in (value, wanted))
    assert value.item() == pytest.approx(wanted.item(), rel=1e-6, abs=1e-7)
    for module, loss in ((ours, value), (theirs, wanted)):
        module.zero_grad()
        loss.backward()
    mine, expected = gradients(ours), gradients(theirs)
    largest = max(float(each.abs().max()) for each in expected.values())
    assert mine
    for key in mine.keys() | expected.keys():  # a gradient of zero may be noise in one of them
        assert torch.as_tensor(mine.get(key, 0) - expected.get(key, 0)).abs().max() <= 1e-6 * max(1.0, largest)


def in_float64(theirs, ours):
    """Both models without dropout and in float64, whose rounding is far below every difference that matters."""
    form_of(ours).double()
    theirs.double().eval()
    return theirs, ours


def their_features(model, columns):
    """The tokens of columns of texts, as theirs."""
    return [model.preprocess(list(texts)) for texts in columns]


@pytest.fixture
def quiet(models):
    """Both dense models."""
    return in_float64(*models)


COLUMNS = [TEXTS, OTHERS, OTHERS[2:] + OTHERS[:2]]
WHOLE = [
    ("MultipleNegativesRankingLoss", 3, None, {}),
    ("CachedMultipleNegativesRankingLoss", 3, None, {"mini_batch_size": 4}),
    ("CachedMultipleNegativesRankingLoss", 2, None, {"mini_batch_num_tokens": 20}),
    ("EmbedDistillLoss", 2, "vector", {}),
    ("EmbedDistillLoss", 2, "vectors", {"distance_metric": "l2"}),
    ("MSELoss", 3, "vector", {}),
    ("MarginMSELoss", 3, "margin", {}),
]


@pytest.mark.parametrize(("name", "columns", "labels", "options"), WHOLE)
def test_a_dense_loss_of_texts_has_their_gradients(quiet, name, columns, labels, options):
    """By every parameter of the model."""
    theirs, ours = quiet
    form, target = form_of(ours), labels_of(labels, columns, torch.float64)
    features = [form.preprocess(texts) for texts in COLUMNS[:columns]]

    value = made(dense, util, name, ours, options)(features, target)
    wanted = made(their_dense, their_util, name, theirs, options)(their_features(theirs, COLUMNS[:columns]), target)

    assert_same_gradients(form, theirs, value, wanted)


@pytest.mark.parametrize("inner", ["MultipleNegativesRankingLoss", "CachedMultipleNegativesRankingLoss", "MSELoss"])
def test_matryoshka_loss_is_theirs(quiet, inner):
    """Around a plain loss, one with cached gradients, and one whose labels are truncated too."""
    theirs, ours = quiet
    form, target = form_of(ours), labels_of("vector", 2, torch.float64) if inner == "MSELoss" else None
    options = {"matryoshka_dims": [8, WIDTH, 16], "matryoshka_weights": [1.0, 0.5, 2.0]}
    features = [form.preprocess(texts) for texts in COLUMNS[:2]]

    value = dense.MatryoshkaLoss(ours, getattr(dense, inner)(ours), **options)(features, target)
    their_loss = their_dense.MatryoshkaLoss(theirs, getattr(their_dense, inner)(theirs), **options)
    wanted = their_loss(their_features(theirs, COLUMNS[:2]), target)

    assert_same_gradients(form, theirs, value, wanted)


GUIDED = [
    ("GISTEmbedLoss", 3, {}),
    ("GISTEmbedLoss", 2, {"margin_strategy": "relative", "margin": 0.05}),
    ("GISTEmbedLoss", 2, {"margin": -0.2, "contrast_anchors": False, "contrast_positives": False}),
    ("CachedGISTEmbedLoss", 3, {"mini_batch_size": 4}),
]


@pytest.mark.parametrize(("name", "columns", "options"), GUIDED)
def test_a_guided_loss_is_theirs(quiet, checkpoints, name, columns, options):
    """With a guide that has the same tokenizer, which theirs reads the tokens with.

    No negative is the positive of a row: rounding would decide whether theirs leaves out a candidate of equal score.
    """
    theirs, ours = quiet
    their_guide, guide = checkpoints.own_pair("SentenceTransformer", "bert-two-modes")
    their_guide.eval()
    form = form_of(ours)
    texts = [TEXTS, OTHERS, [f"no {text}" for text in OTHERS]][:columns]
    features = [form.preprocess(each) for each in texts]

    value = getattr(dense, name)(ours, guide, **options)(features)
    loss = getattr(their_dense, name)(theirs, their_guide, **options)
    wanted = loss(their_features(theirs, texts), None)

    assert_same_gradients(form, theirs, value, wanted)


def test_cached_splade_loss_is_the_plain_one(checkpoints):
    """And both are theirs, by every parameter of the model."""
    theirs, ours = in_float64(*checkpoints.own_pair("SparseEncoder", "splade-max"))
    next(each for each in theirs if type(each).__name__ == "SpladePooling").train()
    form = form_of(ours)
    features = [form.preprocess(texts) for texts in COLUMNS]
    options = {"document_regularizer_weight": 0.1, "query_regularizer_weight": 0.2}
    their_loss = their_sparse.SpladeLoss(theirs, their_sparse.SparseMultipleNegativesRankingLoss(theirs), **options)
    wanted = their_loss(their_features(theirs, COLUMNS), None)
    plain = sparse.SpladeLoss(ours, sparse.SparseMultipleNegativesRankingLoss(ours), **options)
    cached = sparse.CachedSpladeLoss(
        ours, sparse.SparseMultipleNegativesRankingLoss(ours), mini_batch_size=4, **options
    )

    assert_same_gradients(form, theirs, plain(features), wanted)
    first = gradients(form)
    form.zero_grad()
    parts = cached(features)
    sum(parts.values()).backward()
    again = gradients(form)

    assert parts.keys() == wanted.keys()
    for name, value in parts.items():
        assert value.item() == pytest.approx(wanted[name].item(), rel=1e-6)
    assert again.keys() == first.keys()
    for key, gradient in again.items():
        assert (gradient - first[key]).abs().max() <= 1e-6 * max(1.0, float(first[key].abs().max()))


@pytest.mark.parametrize(("name", "options"), [("csr", {}), ("csr-normalized", {"beta": 0.7, "gamma": 0.5})])
def test_the_loss_of_an_auto_encoder_is_theirs(checkpoints, name, options):
    """By every part and parameter, in a batch in which some concepts have not been used for long."""
    theirs, ours = in_float64(*checkpoints.own_pair("SparseEncoder", name))
    coder = next(each for each in theirs if type(each).__name__ == "SparseAutoEncoder")
    long_unused = torch.arange(coder.hidden_dim) % 3 * 100
    coder.stats_last_nonzero.copy_(long_unused)
    coder.train()
    form = form_of(ours)
    loss = sparse.CSRLoss(ours, **options)
    loss.reconstruction_loss.unused.copy_(long_unused)
    form.eval()

    parts = loss([form.preprocess(texts) for texts in COLUMNS])
    wanted = their_sparse.CSRLoss(theirs, **options)(their_features(theirs, COLUMNS))

    assert parts.keys() == wanted.keys()
    for part, value in parts.items():
        assert value.item() == pytest.approx(wanted[part].item(), rel=1e-6)
    assert wanted["reconstruction_loss_aux"] > 0
    assert torch.equal(loss.reconstruction_loss.unused, coder.stats_last_nonzero)
    assert_same_gradients(form, theirs, parts, wanted)


def test_csr_needs_an_auto_encoder(checkpoints):
    """The message says what is missing."""
    ours = checkpoints.load(st_core, "SparseEncoder", "splade-max")

    with pytest.raises(ValueError, match="needs a model with one SparseAutoEncoder, got 0"):
        sparse.CSRLoss(ours)


LISTS = [OTHERS[:3], OTHERS[3:5], OTHERS[5:], [*OTHERS[1:4], OTHERS[0]], OTHERS[2:4], OTHERS[4:6]]
GRADES = [[2, 0, 1], [1, 1], [1], [0, 3, 3, 1], [0, 1], [2, 0]]
PAIRS = [
    ("BinaryCrossEntropyLoss", 2, [1, 0, 1.0, 0.5, 0, 1], {}),
    ("BinaryCrossEntropyLoss", 2, [1, 0, 1, 0, 0, 1], {"pos_weight": torch.tensor(3.0)}),
    ("MSELoss", 2, [1.5, -2, 0.1, 3, 7, -1], {}),
    ("MarginMSELoss", 3, [1.5, -2, 0.1, 3, 7, -1], {}),
    ("MultipleNegativesRankingLoss", 3, None, {}),
    ("MultipleNegativesRankingLoss", 2, None, {"num_negatives": None, "scale": 3.0}),
    ("CachedMultipleNegativesRankingLoss", 3, None, {"mini_batch_size": 5}),
    ("ListNetLoss", "lists", GRADES, {}),
    ("ListNetLoss", "lists", GRADES, {"mini_batch_size": 3}),
    ("ListMLELoss", "lists", GRADES, {}),
    ("ListMLELoss", "lists", GRADES, {"respect_input_order": False}),
    ("PListMLELoss", "lists", GRADES, {}),
    ("RankNetLoss", "lists", GRADES, {}),
    ("ADRMSELoss", "lists", GRADES, {"alpha": 2.0}),
    ("LambdaLoss", "lists", GRADES, {}),
    ("LambdaLoss", "lists", GRADES, {"k": 2, "reduction_log": "natural", "sigma": 0.5}),
    *[
        ("LambdaLoss", "lists", GRADES, {"weighting_scheme": name})
        for name in ("NoWeightingScheme", "NDCGLoss1Scheme", "NDCGLoss2Scheme", "LambdaRankScheme")
    ],
]


def pair_loss(package, name, model, options):
    """A loss of a cross-encoder, with the weighting scheme by its name."""
    options = dict(options)
    if "weighting_scheme" in options:
        options["weighting_scheme"] = getattr(package, options["weighting_scheme"])()
    return getattr(package, name)(model, **options)


@pytest.mark.parametrize(("name", "columns", "labels", "options"), PAIRS)
def test_a_loss_of_pairs_is_theirs(checkpoints, name, columns, labels, options):
    """By every parameter of the model; negatives are those that the same random numbers draw."""
    theirs, ours = in_float64(*checkpoints.own_pair("CrossEncoder", "rerank-bert"))
    has_lists = columns == "lists"
    inputs = [TEXTS, LISTS] if has_lists else COLUMNS[:columns]
    target = None if labels is None else [torch.tensor(each) for each in labels] if has_lists else torch.tensor(labels)

    torch.manual_seed(3)
    value = pair_loss(reranking, name, ours, options)([list(each) for each in inputs], target)
    torch.manual_seed(3)
    wanted = pair_loss(their_pairs, name, theirs, options)([list(each) for each in inputs], target)

    assert_same_gradients(form_of(ours), theirs, value, wanted)


KNOWN = torch.zeros(ROWS, 2 * ROWS, dtype=torch.bool)
KNOWN[0, 3] = KNOWN[0, ROWS + 4] = KNOWN[5, 1] = True
"""Documents of two columns that are known positives of queries in other rows."""


@pytest.mark.parametrize("options", RANKING)
def test_a_known_positive_is_no_negative(models, options):
    """In any direction: its vector has no effect on the row of the query, and gets no gradient from it."""
    _, ours = models
    loss = made(dense, util, "MultipleNegativesRankingLoss", ours, options)
    embeddings = [drawn((ROWS, WIDTH), torch.float64, seed) for seed in range(3)]
    far = [each.clone() for each in embeddings]
    logits = loss._logits(embeddings[0], embeddings[1:], torch.arange(ROWS))
    masked = loss._without(logits, KNOWN, ROWS)

    value = loss.compute_loss_from_embeddings(embeddings, KNOWN)

    assert torch.isneginf(masked[0]).nonzero().tolist() == KNOWN.nonzero().tolist()
    assert value < loss.compute_loss_from_embeddings(embeddings)
    assert loss.compute_loss_from_embeddings(embeddings, torch.ones(ROWS)) == loss.compute_loss_from_embeddings(far)


def test_the_loss_of_rows_without_known_positives_is_that_of_a_smaller_batch(models):
    """Where both documents of another row are masked, the rest is as without it."""
    _, ours = models
    loss = dense.MultipleNegativesRankingLoss(ours)
    embeddings = [drawn((3, WIDTH), torch.float64, seed) for seed in range(2)]
    known = torch.tensor([[False, False, True], [False, False, True], [True, True, False]])

    value = loss.compute_loss_from_embeddings(embeddings, known)

    alone = loss.compute_loss_from_embeddings([each[:2] for each in embeddings])
    assert value.item() == pytest.approx(alone.item() * 2 / 3)


def test_a_reranker_draws_no_known_positive(checkpoints):
    """All rows draw as many documents as the row with most known positives has."""
    ours = checkpoints.load(st_core, "CrossEncoder", "rerank-bert")
    known = torch.tensor([[False, True, True, False], [False] * 4, [False] * 4, [True, False, False, False]])
    loss = reranking.MultipleNegativesRankingLoss(ours, num_negatives=None)
    queries, documents = ["a", "b", "c", "d"], ["A", "B", "C", "D"]

    pairs = list(loss._candidates([queries, documents], known))

    assert pairs[:4] == list(zip(queries, documents, strict=True))
    assert pairs[4] == ("a", "D")
    assert len(pairs) == 8
    assert not {("a", "B"), ("a", "C"), ("d", "A")} & set(pairs)


def test_a_sparse_loss_alone_is_refused(checkpoints):
    """It would leave vectors dense."""
    ours = checkpoints.load(st_core, "SparseEncoder", "splade-max")

    with pytest.raises(ValueError, match=r"pass it to SpladeLoss\(model, SparseMarginMSELoss"):
        sparse.SparseMarginMSELoss(ours)([], None)


@pytest.mark.parametrize("start", [1e-4, 1e4])
def test_the_weight_follows_a_number_of_active_terms(checkpoints, start):
    """It rises while documents have more terms than the target, and falls while they have fewer."""
    ours = checkpoints.load(st_core, "SparseEncoder", "splade-max")
    loss = sparse.SpladeLoss(ours, sparse.SparseMultipleNegativesRankingLoss(ours), start, document_terms=5).train()
    weights = torch.zeros(ROWS, 64)

    weights[:, :20] = 1.0
    loss._measure([weights, weights])
    above = float(loss.steered[0])
    weights[:, 1:] = 0.0
    for _ in range(3):
        loss._measure([weights, weights])

    assert above > 1.0 > float(loss.steered[0])
    assert float(loss.measures["document_active_terms"]) == 1.0


@pytest.mark.parametrize(("value", "reason"), [(0.0, "no active term.*lower"), (1.0, "all terms active.*higher")])
def test_a_training_of_a_collapsed_model_stops(checkpoints, value, reason):
    """After many steps with no term, or with all of them."""
    ours = checkpoints.load(st_core, "SparseEncoder", "splade-max")
    loss = sparse.SpladeLoss(ours, sparse.SparseMultipleNegativesRankingLoss(ours), 0.1).train()
    weights = torch.full((ROWS, 64), value)

    for _ in range(splade.COLLAPSED - 1):
        loss._measure([weights, weights])
    with pytest.raises(RuntimeError, match=reason):
        loss._measure([weights, weights])
