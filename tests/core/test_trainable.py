"""The trainable form of every kind of model has sentence-transformers' gradients; weights come back."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from sweeps import sweep

torch = pytest.importorskip("torch", reason="needs torch")
oracle = pytest.importorskip("sentence_transformers", reason="the checkpoints are made with it")

from catalogue import BUILDERS  # noqa: E402 - after the guard

import st_core  # noqa: E402 - after the guard
from st_core.backends.torch.modules import NumpyStep  # noqa: E402 - after the guard
from st_core.backends.torch.trainable import trainable  # noqa: E402 - after the guard
from st_core.text.tokens import pad  # noqa: E402 - after the guard

pytestmark = pytest.mark.torch

WITHOUT_PARAMETERS = {"bow": "a bag of words has no parameters, there or here"}
OTHER_PARAMETERS = {
    **dict.fromkeys(
        ("lora", "lora-ranked", "lora-alone"), "an adapter is merged, so gradients are the merged weights'"
    ),
    "model2vec-int8": "a table that tokens share is expanded to a row for each token",
}
REFUSED = {"dora": "the adapter would be loaded in part"}
ONE_TEXT = {
    "gpt2-last": "sentence-transformers counts positions through the padding on the left",
    "words-cnn": "sentence-transformers convolves padding",
}
TEXTS = ["How do I copy a directory tree?", "Parse a date string the way that others do"]
NAMES = [name for name in BUILDERS if name not in WITHOUT_PARAMETERS | OTHER_PARAMETERS | REFUSED]


def kind_of(name):
    """The class of a checkpoint of the catalogue."""
    if name.startswith("rerank"):
        return "CrossEncoder"
    return "SparseEncoder" if name.startswith(("splade", "sparse", "csr", "idf")) else "SentenceTransformer"


def inputs_of(name):
    """Two texts or pairs of different lengths, or one where padding means something else to sentence-transformers."""
    texts = TEXTS[:1] if name in ONE_TEXT else TEXTS
    return [("where is a tree", text) for text in texts] if name.startswith("rerank") else texts


def tokens_of(ours, inputs, task):
    """The engine's tokens."""
    outline = ours._engine.outline(task)
    return outline.tokenizer.tokenize(inputs, outline.max_length)


def batch_of(ours, inputs, task):
    """The engine's tokens as tensors."""
    tokenizer, tokens = ours._engine.outline(task).tokenizer, tokens_of(ours, inputs, task)
    ids, mask = pad(tokens.ids, tokenizer.pad_id, left=tokenizer.pad_left)
    batch = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
    if tokenizer.wants_types:
        types = tokens.types if tokens.types is not None else [row * 0 for row in tokens.ids]
        batch["token_type_ids"] = torch.from_numpy(pad(types, tokenizer.pad_type, left=tokenizer.pad_left)[0])
    return batch


def result_of(features):
    """The scores or vectors of a batch, as float32."""
    value = features["scores"] if "scores" in features else features["sentence_embedding"]
    value = value.to_dense() if hasattr(value, "to_dense") else value
    return torch.as_tensor(np.asarray(value) if isinstance(value, np.ndarray) else value).float()


def scalar(outputs):
    """A loss with another derivative for every output."""
    random = torch.Generator().manual_seed(4)
    return (outputs * torch.randn(outputs.shape, generator=random)).sum()


def gradients_of(model):
    """Return each parameter's gradient, None as zeros, keyed by value: names differ between libraries."""
    found = {}
    for parameter in model.parameters():
        values = parameter.detach().reshape(-1)
        gradient = torch.zeros_like(values) if parameter.grad is None else parameter.grad.reshape(-1)
        key = values.numpy().tobytes()
        assert key not in found, "two parameters with equal values cannot be told apart"
        found[key] = gradient
    return found


@pytest.mark.parametrize("name", sweep(NAMES, ["bert-mean", "splade-max", "rerank-bert"]))
def test_gradients_are_sentence_transformers(checkpoints, name):
    """Of a scalar of the output, for one batch, by every parameter; the outputs are the runner's."""
    kind, inputs = kind_of(name), inputs_of(name)
    source = "sparse-static" if name == "idf" else name  # its twin: theirs looks for idf.json in the working directory
    theirs = getattr(oracle, kind)(str(checkpoints.folder(source)), device="cpu").eval()
    theirs.requires_grad_(requires_grad=True)  # word vectors are frozen there unless their configuration says otherwise
    for module in theirs.modules():
        module.train(type(module).__name__ == "SpladePooling")  # which in evaluation overwrites what gradients need
    ours = checkpoints.load(st_core, kind, name)
    model = trainable(ours._engine.modules)

    for task in ours._engine.tasks():
        model.zero_grad()
        theirs.zero_grad()
        routed = {} if task is None else {"task": task}
        expected = result_of(theirs(theirs.preprocess(inputs, **routed), **routed))
        outputs = result_of(model(batch_of(ours, inputs, task), task))
        run = result_of(ours._engine.runner(task).run(tokens_of(ours, inputs, task)))
        assert (outputs - run).abs().max() <= 1e-5 * max(1.0, run.abs().max())
        assert (outputs - expected).abs().max() <= 1e-5 * max(1.0, expected.abs().max())
        scalar(expected).backward()
        scalar(outputs).backward()
        wanted, found = gradients_of(theirs), gradients_of(model)

        assert any(gradient.any() for gradient in found.values())
        largest = max(float(gradient.abs().max()) for gradient in wanted.values())
        for values, gradient in found.items():
            assert (gradient - wanted[values]).abs().max() <= 1e-5 * max(1.0, largest)
        assert not any(wanted[values].any() for values in wanted.keys() - found.keys())


@pytest.mark.parametrize("name", OTHER_PARAMETERS)
def test_other_parameters_have_gradients(checkpoints, name):
    """Where parameters differ from sentence-transformers', each has a gradient."""
    ours = checkpoints.load(st_core, "SentenceTransformer", name)
    model = trainable(ours._engine.modules)

    scalar(result_of(model(batch_of(ours, TEXTS, None)))).backward()

    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("name", WITHOUT_PARAMETERS)
def test_modules_without_parameters_are_passed_through(checkpoints, name):
    """The outputs are the runner's, and there is nothing to train."""
    ours = checkpoints.load(st_core, kind_of(name), name)
    model = trainable(ours._engine.modules)

    outputs = result_of(model(batch_of(ours, TEXTS, None)))

    assert isinstance(model.steps[0], NumpyStep)
    assert not list(model.parameters())
    assert torch.equal(outputs, result_of(ours._engine.runner(None).run(tokens_of(ours, TEXTS, None))))


ROUND_TRIPS = [
    "bert-mean",
    "bert-residual",
    "mpnet-max",
    "layers",
    "lora",
    "static",
    "model2vec-int8",
    "words",
    "words-lstm",
    "words-cnn",
    "router",
    "router-shared",
    "late-routes",
    "csr",
    "splade-max",
    "sparse-static",
    "sparse-router",
    "rerank-roberta",
    "rerank-causal",
    "t5-mean",
]


@pytest.mark.parametrize("name", sweep(ROUND_TRIPS, ["bert-mean", "splade-max", "rerank-roberta"]))
def test_trained_weights_come_back(checkpoints, tmp_path, name):
    """After an optimiser step the written modules give the trainable form's outputs, also after saving."""
    kind, inputs = kind_of(name), inputs_of(name)
    ours = checkpoints.load(st_core, kind, name)
    model = trainable(ours._engine.modules)
    rate = 10 if name == "model2vec-int8" else 1e-3  # its rows are long, and their mean is normalised
    optimiser = torch.optim.SGD(model.parameters(), lr=rate)
    tasks = ours._engine.tasks()
    before = [result_of(model(batch_of(ours, inputs, task), task)) for task in tasks]
    sum(scalar(each) for each in before).backward()
    optimiser.step()

    trained = copy.copy(ours)
    trained._engine = ours._engine.with_modules(model.written(tmp_path / "weights"))
    trained.save_pretrained(str(tmp_path / "saved"))
    loaded = getattr(st_core, kind)(str(tmp_path / "saved"), device="cpu")

    with torch.no_grad():
        after = [result_of(model(batch_of(ours, inputs, task), task)) for task in tasks]
    assert any((one - other).abs().max() > 1e-5 for one, other in zip(before, after, strict=True))
    for task, expected in zip(tasks, after, strict=True):
        for engine in (trained._engine, loaded._engine):
            outputs = result_of(engine.runner(task).run(tokens_of(ours, inputs, task)))
            assert (outputs - expected).abs().max() <= 1e-5 * max(1.0, expected.abs().max())


def test_weights_are_written_into_a_new_folder(checkpoints, tmp_path):
    """Nothing that is there is replaced."""
    model = trainable(checkpoints.load(st_core, "SentenceTransformer", "bert-mean")._engine.modules)
    (first, *_) = model.written(tmp_path)

    assert first.folder.parent == tmp_path
    with pytest.raises(FileExistsError, match="exists already"):
        model.written(tmp_path)


def test_dropout_is_active_in_training_mode_alone(checkpoints):
    """As in the library."""
    ours = checkpoints.load(st_core, "SentenceTransformer", "bert-mean")
    model, batch = trainable(ours._engine.modules), batch_of(ours, TEXTS, None)

    first, second = (result_of(model(batch)) for _ in range(2))
    assert torch.equal(first, second)
    model.train()
    assert not torch.equal(result_of(model(batch)), result_of(model(batch)))


def test_prompts_have_a_length_for_each_text(checkpoints):
    """A pooling that leaves prompts out reads one length for all texts, or one for each."""
    ours = checkpoints.load(st_core, "SentenceTransformer", "bert-no-prompt")
    model, batch = trainable(ours._engine.modules), batch_of(ours, TEXTS, None)

    whole, three = (result_of(model(batch | {"prompt_length": length})) for length in (0, 3))
    mixed = result_of(model(batch | {"prompt_length": torch.tensor([0, 3])}))

    assert torch.equal(whole, result_of(model(batch)))
    assert torch.allclose(mixed, torch.stack([whole[0], three[1]]), atol=1e-6)


def test_half_precision_parameters_are_possible(checkpoints):
    """Of all steps alike."""
    model = trainable(
        checkpoints.load(st_core, "SentenceTransformer", "bert-residual")._engine.modules, "cpu", torch.bfloat16
    )

    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
