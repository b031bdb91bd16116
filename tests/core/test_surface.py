"""Attributes of sentence-transformers' models: each is there, or refused with what to use in its place."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import ModelCard

torch = pytest.importorskip("torch", reason="needs torch")
oracle = pytest.importorskip("sentence_transformers", reason="needs sentence-transformers")

import st_core  # noqa: E402 - after the guard

pytestmark = pytest.mark.torch

TEXTS = ["How do I copy a directory tree?", "a", "Parse a DATE string"]
PAIRS = [("where is heat", text) for text in TEXTS]
DENSE, SPARSE, CROSS = "SentenceTransformer", "SparseEncoder", "CrossEncoder"
MODELS = [
    (DENSE, "bert-mean"),
    (DENSE, "bert-residual"),
    (DENSE, "static"),
    (DENSE, "router"),
    (DENSE, "router-shared"),
    (DENSE, "words-lstm"),
    (DENSE, "layers"),
    (DENSE, "chat-parts"),
    (SPARSE, "splade-max"),
    (SPARSE, "csr"),
    (CROSS, "rerank-bert"),
]


@pytest.mark.filterwarnings("ignore:default_activation_function:DeprecationWarning")
@pytest.mark.parametrize(("kind", "name"), [(DENSE, "bert-mean"), (SPARSE, "splade-max"), (CROSS, "rerank-bert")])
def test_every_public_attribute_is_there_or_refused_in_words(checkpoints, kind, name):
    """Walk what their model of the same checkpoint has."""
    theirs, ours = checkpoints.pair(kind, name)
    public = [each for each in dir(theirs) if not each.startswith("_") and not each.isdigit()]
    bare = []
    for each in public:
        try:
            getattr(ours, each)
        except AttributeError as error:
            if f"a {kind} has no attribute {each!r}: " not in str(error):
                bare.append(each)
            assert not hasattr(ours, each)

    assert len(public) > 100
    assert not bare
    with pytest.raises(AttributeError, match=f"^a {kind} has no attribute 'no_such_name'$"):
        _ = ours.no_such_name


@pytest.mark.parametrize(("kind", "name"), MODELS)
def test_a_model_prints_as_a_tree(checkpoints, kind, name):
    """The text that theirs prints before its first use, module by module."""
    theirs, ours = (getattr(each, kind)(str(checkpoints.folder(name)), device="cpu") for each in (oracle, st_core))

    assert repr(ours).splitlines()[0] == f"{kind}("
    assert repr(ours).replace("'dropout': 0.0", "'dropout': 0") == repr(theirs)


@pytest.mark.parametrize(("kind", "name"), MODELS)
def test_weights_have_their_names_and_values(checkpoints, kind, name):
    """In ``state_dict``, ``named_parameters`` and ``named_buffers``; a shared weight counts once as a parameter."""
    theirs, ours = checkpoints.pair(kind, name)
    wanted, state = theirs.state_dict(), ours.state_dict()

    assert state.keys() == wanted.keys()
    assert all(torch.equal(state[key], wanted[key]) for key in wanted)
    for each in ("named_parameters", "named_buffers"):
        mine, others = dict(getattr(ours, each)()), dict(getattr(theirs, each)())
        assert mine.keys() == others.keys()
        assert all(torch.equal(mine[key], others[key]) for key in others)
    assert sum(each.numel() for each in ours.parameters()) == sum(each.numel() for each in theirs.parameters())
    first = next(iter(wanted))
    torch.testing.assert_close(ours.get_parameter(first), theirs.get_parameter(first))
    with pytest.raises(AttributeError, match=r"no parameter '0\.none'"):
        ours.get_parameter("0.none")


@pytest.mark.parametrize("name", ["bert-mean", "static"])
def test_weights_cannot_be_changed(checkpoints, name):
    """A change that could not reach the model is an error of torch."""
    ours = checkpoints.load(st_core, DENSE, name)
    for value in (next(ours.parameters()), next(iter(ours.state_dict().values()))):
        with pytest.raises(RuntimeError, match="inference tensor"):
            value.add_(1)


@pytest.mark.parametrize(("kind", "name"), MODELS)
def test_properties_are_theirs(checkpoints, kind, name):
    """Those that a loaded model has."""
    theirs, ours = checkpoints.pair(kind, name)

    assert ours.get_backend() == theirs.get_backend() == "torch"
    assert ours.dtype == theirs.dtype
    assert ours.training is False
    assert ours.model_type == theirs.model_type
    assert ours.default_huggingface_organization == theirs.default_huggingface_organization
    assert type(ours.config).__name__ == type(theirs.config).__name__
    assert ours.supports("text")
    assert not ours.supports("image")
    assert ours.trust_remote_code is False
    assert ours.processor is ours.tokenizer
    assert [key for key, _ in ours.named_children()] == [key for key, _ in theirs.named_children()]
    assert set(dict(ours.named_modules())) <= set(dict(theirs.named_modules()))
    assert len(list(ours.modules())) >= 1 + len(list(ours.children())) == 1 + len(ours)
    if kind != CROSS:
        assert ours.SUPPORTED_SIMILARITY_FN_NAMES == theirs.SUPPORTED_SIMILARITY_FN_NAMES
        assert ours.is_singular_input("a")
        assert not ours.is_singular_input(["a"])
    else:
        assert ours.is_singular_input(("a", "b"))
        assert not ours.is_singular_input([("a", "b")])
        assert ours.model is ours.transformers_model


def test_the_configuration_is_read_and_not_written(checkpoints):
    """On every backend; a setting without effect is refused."""
    theirs, ours = checkpoints.pair(DENSE, "bert-mean")

    assert ours.config.hidden_size == theirs.config.hidden_size
    assert ours.config.to_dict() == theirs.config.to_dict()
    assert ours.config is ours.config
    with pytest.raises(AttributeError, match=r"hidden_size cannot be set: .*config_kwargs"):
        ours.config.hidden_size = 3
    assert checkpoints.load(st_core, DENSE, "static").config is None
    assert checkpoints.load(st_core, DENSE, "static").transformers_model is None


def test_the_transformer_computes_as_theirs(checkpoints, agree):
    """The object of transformers, with the pooler that the engine leaves out."""
    theirs, ours = checkpoints.pair(DENSE, "bert-mean")
    features = theirs.preprocess(TEXTS)
    inputs = {name: features[name] for name in ("input_ids", "attention_mask", "token_type_ids")}

    assert type(ours.transformers_model) is type(theirs.transformers_model)
    assert ours.transformers_model is ours.transformers_model
    with torch.no_grad():
        wanted = theirs.transformers_model(**inputs)
    results = ours.transformers_model(**inputs)
    agree(results.last_hidden_state, wanted.last_hidden_state)
    agree(results.pooler_output, wanted.pooler_output)


@pytest.mark.parametrize(
    ("kind", "name", "output"),
    [
        (DENSE, "bert-mean", "sentence_embedding"),
        (DENSE, "qwen3-last", "sentence_embedding"),
        (SPARSE, "splade-max", "sentence_embedding"),
        (CROSS, "rerank-bert", "scores"),
    ],
)
def test_a_model_is_called_with_features(checkpoints, agree, kind, name, output):
    """With their tensors and with our arrays."""
    theirs, ours = checkpoints.pair(kind, name)
    inputs = PAIRS if kind == CROSS else TEXTS
    with torch.no_grad():
        wanted = theirs(theirs.preprocess(inputs))[output]

    agree(ours(theirs.preprocess(inputs))[output], wanted)
    agree(ours(ours.preprocess(inputs))[output], wanted)


@pytest.mark.long
@pytest.mark.parametrize("backend", ["onnx", "numpy"])
def test_what_needs_torch_is_refused_on_other_backends(checkpoints, backend):
    """With the backend to use."""
    if backend == "onnx":
        pytest.importorskip("onnxruntime", reason="needs onnxruntime")
        ours = st_core.SentenceTransformer(str(checkpoints.folder("bert-mean")), backend="onnx")
        assert ours.dtype is None
        assert ours.get_backend() == "onnx"
        for name in ("transformers_model", "state_dict", "parameters"):
            with pytest.raises(st_core.ModelUnsupported, match=r"runs as a graph on onnx.*backend='torch'"):
                list(getattr(ours, name)())
        features = ours(ours.preprocess(TEXTS))
        np.testing.assert_allclose(features["sentence_embedding"], ours.encode(TEXTS), atol=1e-6)
    else:
        ours = st_core.SentenceTransformer(str(checkpoints.folder("static")))
    for name in ("half", "bfloat16", "double"):
        with pytest.raises(ValueError, match=f"on {backend} does not change"):
            getattr(ours, name)()


def test_the_dtype_changes_as_theirs(checkpoints, agree):
    """By name and by ``to``; the numbers of the type, and back."""
    theirs = oracle.SentenceTransformer(str(checkpoints.folder("bert-mean")), device="cpu")
    ours = st_core.SentenceTransformer(str(checkpoints.folder("bert-mean")), device="cpu")
    ours.max_seq_length = 5
    theirs.max_seq_length = 5

    for name, dtype in (("bfloat16", torch.bfloat16), ("double", torch.float64), ("float", torch.float32)):
        assert getattr(ours, name)() is ours
        getattr(theirs, name)()
        assert ours.dtype == theirs.dtype == dtype
        agree(ours.encode(TEXTS), theirs.encode(TEXTS), 2e-2 if name != "double" else 1e-2)
    assert ours.to(torch.float16).dtype == torch.float16
    assert ours.to("cpu", torch.float32).dtype == torch.float32
    assert ours.cpu() is ours
    assert ours.max_seq_length == 5


def test_evaluation_and_no_training(checkpoints, tmp_path):
    """A model is always in evaluation mode."""
    ours = checkpoints.load(st_core, DENSE, "bert-mean")
    assert ours.eval() is ours.train(mode=False) is ours.requires_grad_(requires_grad=False) is ours
    for refused in (ours.train, ours.requires_grad_):
        with pytest.raises(ValueError, match="trainable"):
            refused()

    folder = tmp_path / "results"
    assert ours.evaluate(lambda model, path: (model is ours, path), str(folder)) == (True, str(folder))
    assert folder.is_dir()


OLD = [
    ({"model_name": "FOLDER"}, "model_name_or_path"),
    ({"automodel_args": {"attn_implementation": "eager"}}, "model_kwargs"),
    ({"tokenizer_args": {"model_max_length": 7}}, "processor_kwargs"),
    ({"tokenizer_kwargs": {"model_max_length": 7}}, "processor_kwargs"),
    ({"config_args": {"num_labels": 1}}, "config_kwargs"),
    ({"cache_dir": "somewhere"}, "cache_folder"),
    ({"default_activation_function": torch.nn.Identity()}, "activation_fn"),
    ({"classifier_dropout": 0.1}, "config_kwargs={'classifier_dropout': …}"),
]


@pytest.mark.parametrize(("options", "now"), OLD, ids=[next(iter(each)) for each, _ in OLD])
def test_old_names_of_arguments_are_taken_with_a_warning(checkpoints, agree, options, now):
    """The names that their cross-encoder still takes, with their effect."""
    folder = str(checkpoints.folder("rerank-bert"))
    name = () if "model_name" in options else (folder,)
    options = {key: folder if value == "FOLDER" else value for key, value in options.items()}
    theirs = oracle.CrossEncoder(*name, device="cpu", **options)
    with pytest.warns(DeprecationWarning, match=f"the argument {next(iter(options))} is now named {now}"):
        ours = st_core.CrossEncoder(*name, device="cpu", **options)

    assert ours.max_seq_length == theirs.max_seq_length
    agree(ours.predict(PAIRS), theirs.predict(PAIRS))


def test_a_warning_of_an_old_name_shows_the_line_of_the_caller(checkpoints):
    """Not a line of this package."""
    with pytest.warns(DeprecationWarning, match="processor_kwargs") as found:
        st_core.SentenceTransformer(str(checkpoints.folder("static")), tokenizer_kwargs={})
    assert [each.filename for each in found] == [__file__]


def test_old_names_of_calls_are_taken_with_a_warning(checkpoints, agree, tmp_path):
    """Arguments of predict and rank, positional ones of the constructor, and methods."""
    theirs, ours = checkpoints.pair(CROSS, "rerank-bert")
    identity = torch.nn.Identity()
    with pytest.warns(DeprecationWarning, match="activation_fct is now named activation_fn"):
        agree(ours.predict(PAIRS, activation_fct=identity), theirs.predict(PAIRS, activation_fn=identity))
    with pytest.warns(DeprecationWarning, match="num_workers has no effect"):
        agree(ours.predict(PAIRS, num_workers=0), theirs.predict(PAIRS))
    with pytest.warns(DeprecationWarning, match="convert_to_tensor has no effect"):
        assert ours.rank("heat", TEXTS, convert_to_tensor=True) == ours.rank("heat", TEXTS)
    with pytest.warns(DeprecationWarning, match="pass num_labels, max_length as keyword arguments"):
        assert st_core.CrossEncoder(str(checkpoints.folder("rerank-bert")), 1, 9, device="cpu").max_seq_length == 9
    with pytest.raises(TypeError, match="got 5 arguments after the first"):
        st_core.CrossEncoder("a", 1, 9, None, "cpu", "more")
    with pytest.warns(DeprecationWarning, match="activation_fn"):
        assert ours.default_activation_function is ours.activation_fn

    dense = checkpoints.load(st_core, DENSE, "bert-mean")
    with (
        pytest.warns(DeprecationWarning, match="truncate_embeddings"),
        dense.truncate_sentence_embeddings(3),
    ):
        assert dense.encode("a").shape == (3,)
    with pytest.warns(DeprecationWarning, match=r"SentenceTransformer\(path\)"):
        loaded = st_core.SentenceTransformer.load(str(checkpoints.folder("static")))
    agree(loaded.encode(TEXTS), checkpoints.load(st_core, DENSE, "static").encode(TEXTS))


@pytest.mark.parametrize(("kind", "name"), [(DENSE, "static"), (SPARSE, "splade-max"), (CROSS, "rerank-bert")])
def test_metadata_is_taken_and_written_to_a_new_card(checkpoints, tmp_path, kind, name):
    """The argument of theirs, with their class too; a card of the checkpoint's own is copied as it is."""
    from sentence_transformers import SentenceTransformerModelCardData

    folder = Path(shutil.copytree(checkpoints.folder(name), tmp_path / "model"))
    (folder / "README.md").unlink(missing_ok=True)
    data = getattr(st_core, f"{kind}ModelCardData")(language="de", license="mit", model_name="Mine: 1")
    model = getattr(st_core, kind)(str(folder), device="cpu", model_card_data=data)
    model.save_pretrained(tmp_path / "saved")
    card = (tmp_path / "saved" / "README.md").read_text("utf-8")
    theirs = getattr(oracle, kind)(str(tmp_path / "saved"), device="cpu")

    assert model.model_card_data is data
    assert theirs._model_card_text == card
    head = ModelCard(card)
    assert (head.data.language, head.data.license, head.data.library_name) == ("de", "mit", "sentence-transformers")
    assert head.text.strip().startswith("# Mine: 1\n")
    of_theirs = SentenceTransformerModelCardData(license="cc")
    again = getattr(st_core, kind)(str(tmp_path / "saved"), device="cpu", model_card_data=of_theirs)
    again.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "README.md").read_text("utf-8") == card
    assert copy.copy(again).model_card_data is again.model_card_data is of_theirs
    again.model_card_data = data
    assert again.model_card_data is data
    empty: dict[str, str] = {}
    assert getattr(st_core, kind)(str(folder), device="cpu", model_card_data=empty).model_card_data is empty


def test_compiling_changes_nothing_and_says_so(checkpoints, agree, caplog):
    """Theirs compiles in place and returns None as well."""
    model = checkpoints.load(st_core, DENSE, "bert-mean")
    before = model.encode(TEXTS)

    assert model.compile(mode="reduce-overhead", dynamic=True) is None

    agree(model.encode(TEXTS), before)
    assert "compile() of a SentenceTransformer has no effect" in caplog.text


@pytest.mark.parametrize(("kind", "name"), [(DENSE, "bert-mean"), (CROSS, "rerank-bert")])
def test_an_evaluator_of_theirs_gives_the_same_metrics_and_records_them(checkpoints, tmp_path, kind, name):
    """In ``model_card_data``, which takes other attributes too."""
    from sentence_transformers.cross_encoder.evaluation import CrossEncoderCorrelationEvaluator
    from sentence_transformers.sentence_transformer.evaluation import EmbeddingSimilarityEvaluator

    first, second, scores = ["heat", "a plate", "wings"], ["a hot plate", "cold", "thin air"], [0.9, 0.1, 0.4]
    if kind == DENSE:
        evaluator = EmbeddingSimilarityEvaluator(first, second, scores, name="mine")
    else:
        pairs = list(zip(first, second, strict=True))
        evaluator = CrossEncoderCorrelationEvaluator(pairs, scores, name="mine")
    theirs, ours = checkpoints.pair(kind, name)
    ours.model_card_data.generate_widget_examples = False
    before = len(ours.model_card_data.evaluations)

    found, wanted = evaluator(ours), evaluator(theirs)

    assert found == pytest.approx(wanted, abs=1e-5)
    (run,) = ours.model_card_data.evaluations[before:]
    assert run.evaluator == "mine"
    assert {key.removeprefix("mine_"): value for key, value in run.metrics.items()} == {
        key.removeprefix("mine_"): value for key, value in found.items()
    }
