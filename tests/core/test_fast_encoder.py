"""The engine's own forward pass: which models use it, and that padding and packing change nothing."""

from __future__ import annotations

import logging

import pytest
from sweeps import sweep

torch = pytest.importorskip("torch")
pytest.importorskip("sentence_transformers")
pytestmark = pytest.mark.torch

from st_core.backends.torch.encoder import FastEncoder, _probe_length, accelerate  # noqa: E402 - after the guard
from st_core.backends.torch.products import Linear  # noqa: E402 - after the guard

INPUTS = ("input_ids", "attention_mask")
FAMILIES = ["bert", "distilbert", "roberta", "mpnet", "xlm-roberta"]


def library_model(checkpoints, kind, head="Model"):
    """The library's own model of a tiny checkpoint."""
    import transformers

    automatic = {
        "Model": transformers.AutoModel,
        "ForSequenceClassification": transformers.AutoModelForSequenceClassification,
    }[head]
    return automatic.from_pretrained(checkpoints.transformer(kind, head)).eval()


def batch(rows, width, seed):
    """Random ids of rows of random lengths, the longest as wide as the batch.

    1 pads, which is no text of any family.
    """
    random = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, width + 1, (rows,), generator=random)
    lengths[0] = width
    mask = (torch.arange(width)[None, :] < lengths[:, None]).long()
    ids = torch.randint(6, 300, (rows, width), generator=random)
    return {"input_ids": ids.masked_fill(mask == 0, 1), "attention_mask": mask}


@pytest.mark.parametrize("pack", [False, True])
@pytest.mark.parametrize("kind", FAMILIES)
def test_every_family_runs_with_it_and_gives_the_librarys_numbers(checkpoints, kind, pack):
    """States of real tokens are the library's within 1e-5: with much padding, with little, and with none."""
    model = library_model(checkpoints, kind)
    fast = accelerate(model, INPUTS, 1, first_only=False, pack=pack)

    assert isinstance(fast, FastEncoder)
    for rows, width, seed in ((4, 20, 0), (2, 30, 1), (1, 9, 2), (12, 40, 3)):
        given = batch(rows, width, seed)
        real = given["attention_mask"][:, :, None]
        with torch.inference_mode():
            wanted, found = model(**given)[0] * real, fast(**given)[0] * real
        assert (wanted - found).abs().max() <= 1e-5


@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta"])
def test_a_classifier_computes_its_last_layer_for_one_position(checkpoints, kind):
    """The scores are the library's within 1e-5, and the encoder below gives one state per row."""
    model = library_model(checkpoints, kind, "ForSequenceClassification")
    fast = accelerate(model, INPUTS, 1, first_only=True, pack=True)
    given = batch(5, 24, 4)

    assert fast.base_model.first_only
    with torch.inference_mode():
        assert fast.base_model(**given)[0].shape[1] == 1
        assert (model(**given)[0] - fast(**given)[0]).abs().max() <= 1e-5


def test_a_head_that_reads_all_positions_gets_them(checkpoints):
    """Where the first position is not enough, the whole last layer is computed."""
    model = library_model(checkpoints, "bert", "ForSequenceClassification")
    model.bert.pooler.forward = lambda states: model.bert.pooler.activation(model.bert.pooler.dense(states[:, -1]))
    fast = accelerate(model, INPUTS, 0, first_only=True, pack=True)
    given = batch(1, 12, 5)

    assert not getattr(fast.base_model, "first_only", False)
    with torch.inference_mode():
        assert (model(**given)[0] - fast(**given)[0]).abs().max() <= 1e-5


def test_another_arithmetic_keeps_the_librarys_pass(checkpoints, caplog):
    """A model of a known form that computes something else is not taken for it, and that is said."""
    model = library_model(checkpoints, "bert")
    inner = model.encoder.layer[0].attention.output
    inner.forward = lambda states, residual: inner.LayerNorm(inner.dense(states) + 2 * residual)

    with caplog.at_level(logging.INFO, "st_core"):
        assert accelerate(model, INPUTS, 0, first_only=False, pack=True) is model
    assert "forward pass of the transformers library" in caplog.text


@pytest.mark.parametrize("activation", [None, torch.nn.GELU(), torch.nn.GELU("tanh"), torch.nn.ReLU(), torch.nn.SiLU()])
def test_a_packed_product_is_the_product(activation):
    """With every activation, fused or not, the numbers are those of torch's own functions."""
    random = torch.Generator().manual_seed(1)
    states, weight, bias = (torch.randn(*shape, generator=random) for shape in ((3, 5, 16), (24, 16), (24,)))
    wanted = torch.nn.functional.linear(states, weight, bias)
    wanted = wanted if activation is None else activation(wanted)

    with torch.inference_mode():
        packed = Linear(weight, bias, activation, pack=True)
        assert packed.packed is not None
        assert torch.allclose(packed(states), wanted, atol=1e-5)
        assert torch.allclose(Linear(weight, bias, activation, pack=False)(states), wanted, atol=1e-5)


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("error", sweep([RuntimeError, ValueError, MemoryError, KeyError], [RuntimeError]))
def test_any_failure_of_the_fast_pass_leaves_the_model_to_the_library(checkpoints, monkeypatch, agree, kind, error):
    """Whatever building the pass raises, the model loads and has sentence-transformers' vectors."""
    from sentence_transformers import SentenceTransformer as Theirs

    import st_core
    from st_core.backends.torch import encoder, known

    def fail(*_arguments, **_options):
        raise error("no such pass")

    monkeypatch.setattr(encoder, "make_layer", fail)
    monkeypatch.setattr(known, "make_layer", fail)
    folder, texts = str(checkpoints.transformer(kind, "Model")), ["copy a tree", "a"]

    agree(st_core.SentenceTransformer(folder, device="cpu").encode(texts), Theirs(folder, device="cpu").encode(texts))


@pytest.mark.parametrize(
    ("settings", "least"),
    [
        ({"model_type": "bert"}, 7),
        ({"model_type": "mpnet", "relative_attention_num_buckets": 32}, 33),
        ({"model_type": "roberta", "max_relative_positions": [-1, 40]}, 41),
        ({"model_type": "another", "max_position_embeddings": 4098}, 1024),
        ({"model_type": "another", "max_position_embeddings": 130}, 128),
    ],
)
def test_the_comparison_reaches_beyond_every_limit(settings, least):
    """Models that are not known to compute alike at every length are compared on as many tokens as they have places."""
    from types import SimpleNamespace

    assert _probe_length(SimpleNamespace(**settings), 1) == least
