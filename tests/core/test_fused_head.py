"""The vocabulary product and the maximum as one operation have the values and gradients of both."""

from __future__ import annotations

import math
from contextlib import nullcontext

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="needs torch")

import st_core  # noqa: E402 - after the guard
from st_core.backends.torch import fused_head as heads  # noqa: E402
from st_core.backends.torch.fused_head import (  # noqa: E402
    Screen,
    fused_head,
    max_product,
)
from st_core.backends.torch.trainable import trainable  # noqa: E402
from st_core.modules.splade_pooling import SpladePooling  # noqa: E402

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("terms", [7, 5000])
@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_the_maximum_of_a_product_has_its_gradients(terms, share):
    """For a vocabulary of several blocks, and for gradients of no, some and all terms."""
    random = torch.Generator().manual_seed(1)
    states = torch.randn(3, 6, 4, generator=random)
    weight = torch.randn(terms, 4, generator=random)
    upstream = torch.randn(3, terms, generator=random) * (torch.rand(3, terms, generator=random) < share)
    ours = [each.clone().requires_grad_() for each in (states, weight)]
    exact = [each.double().requires_grad_() for each in (states, weight)]

    found = max_product(*ours)
    wanted = torch.matmul(exact[0], exact[1].T).amax(dim=1)
    found.backward(upstream)
    wanted.backward(upstream.double())

    assert torch.allclose(found.double(), wanted, atol=1e-6)
    for mine, their in zip(ours, exact, strict=True):
        assert (mine.grad - their.grad).abs().max() <= 1e-6 * their.grad.abs().max()


LENGTHS = (1, 4, 2)


def arrays(random, terms, dims, scale=1.0):
    """Return states of all texts, a matrix, and a bias with which few terms have a logit above zero."""
    states = torch.randn(sum(LENGTHS), dims, generator=random)
    weight = torch.randn(terms, dims, generator=random) * scale
    return states, weight, torch.full((terms,), -2.5 * scale * dims**0.5)


def maxima_of(states, weight):
    """Return the maxima in the type of the arguments."""
    return torch.stack([torch.matmul(each, weight.T).amax(dim=0) for each in states.split(LENGTHS)])


@pytest.mark.parametrize("terms", [300, 9000])
@pytest.mark.parametrize("is_screened", [False, True])
def test_texts_without_padding_have_the_same_values_and_gradients(terms, is_screened):
    """With a screen, the terms without a logit above zero have none, as the activation after it has none for them."""
    states, weight, bias = arrays(torch.Generator().manual_seed(2), terms, 16)
    ours = [each.clone().requires_grad_() for each in (states, weight)]
    exact = [each.double().requires_grad_() for each in (states, weight)]
    screen = Screen.of(weight, bias) if is_screened else None

    found = (max_product(*ours, LENGTHS, screen=screen) + bias).relu()
    wanted = (maxima_of(*exact) + bias).relu()
    (found**2).sum().backward()
    (wanted**2).sum().backward()

    assert 0 < (wanted > 0).float().mean() < 0.1
    assert torch.allclose(found.double(), wanted, atol=1e-5)
    for mine, their in zip(ours, exact, strict=True):
        assert (mine.grad - their.grad).abs().max() <= 1e-5 * their.grad.abs().max()


def test_a_screen_leaves_out_most_terms():
    """Otherwise it would save nothing."""
    states, weight, bias = arrays(torch.Generator().manual_seed(2), 9000, 64)

    terms = Screen.of(weight, bias).terms(states)

    needed = int((maxima_of(states, weight) + bias > 0).any(dim=0).sum())
    assert needed <= len(terms) < 1.3 * needed < 900


@pytest.mark.parametrize("bias", [0.0, 9.0])
def test_a_screen_is_not_used_where_most_terms_are_needed(bias):
    """All of them are computed at once then."""
    states, weight, _ = arrays(torch.Generator().manual_seed(2), 9000, 16)

    assert Screen.of(weight, torch.full((9000,), bias)).terms(states) is None


@given(
    seed=st.integers(0, 2**32 - 1),
    dims=st.sampled_from([1, 2, 64, 700]),
    scale=st.sampled_from([2.0**-60, 1.0, 2.0**50]),
    offset=st.floats(-1.0, 1.0),
)
def test_a_screen_finds_every_term_with_a_logit_above_zero(seed, dims, scale, offset):
    """Numbers are where bfloat16 rounds most, and 15 terms have a bias of about minus their maximum."""
    random = np.random.default_rng(seed)
    halves = 1 + (2 * random.integers(0, 48, (sum(LENGTHS) + 50, dims)) + 1) * 2.0**-8
    signed = halves * (1 + 2**-20 * random.choice([-1, 1], halves.shape)) * random.choice([-1, 1], halves.shape)
    states, weight = torch.from_numpy(signed).float().split((sum(LENGTHS), 50))
    weight = weight * scale
    exact = maxima_of(states.double(), weight.double()).amax(dim=0)
    bias = (-exact + offset * 1e-3 * dims**0.5 * scale).float()
    bias[15:] = -100.0 * dims * scale
    needed = (exact + bias.double() > 0).nonzero()[:, 0]

    terms = Screen.of(weight, bias).terms(states)

    assert terms is not None
    assert set(needed.tolist()) <= set(terms.tolist()) <= set(range(15))


def test_needed_terms_may_be_next_to_each_other():
    """The frequent words of a vocabulary have the lowest ids."""
    states, weight, _ = arrays(torch.Generator().manual_seed(2), 9000, 16)
    bias = torch.full((9000,), -1e3)
    bias[:4000] = 1e3

    assert Screen.of(weight, bias).terms(states).tolist() == list(range(4000))


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("place", ["states", "weight"])
def test_a_screen_hides_no_value_that_is_not_finite(value, place):
    """A training must stop at it."""
    states, weight, bias = arrays(torch.Generator().manual_seed(2), 9000, 16)
    {"states": states, "weight": weight}[place][3, 0] = value

    found = max_product(states, weight, LENGTHS, screen=Screen.of(weight, bias)) + bias

    wanted = maxima_of(states, weight) + bias
    assert torch.equal(found.relu().isfinite(), wanted.relu().isfinite())
    assert torch.equal(found.isnan(), wanted.isnan())


class Model(torch.nn.Module):
    """A model whose logits are a product, and with a factor more than one."""

    device = "cpu"

    def __init__(self, factor):
        super().__init__()
        self.embeddings = torch.nn.Embedding(9, 4)
        self.decoder = torch.nn.Linear(4, 9)
        self.factor = factor

    def get_output_embeddings(self):
        return self.decoder

    def forward(self, input_ids):
        return (self.decoder(self.embeddings(input_ids)) * self.factor,)


@pytest.mark.parametrize(("factor", "is_fused"), [(1.0, True), (2.0, False)])
def test_only_a_head_of_one_product_is_fused(factor, is_fused):
    """Any other keeps its decoder; names of parameters stay in either case."""
    model = Model(factor)
    names = list(model.state_dict())
    logits = model(torch.tensor([[1, 2]]))[0]

    head = fused_head(model)

    assert (head is not None) == is_fused
    assert list(model.state_dict()) == names
    assert torch.equal(model(torch.tensor([[1, 2]]))[0], logits)
    assert isinstance(model.decoder, torch.nn.Linear)


@pytest.mark.parametrize("is_fast", [False, True])
def test_only_tokens_have_terms(monkeypatch, is_fast):
    """With and without a screen, for texts with padding at either end, and for one without tokens."""
    monkeypatch.setattr(heads, "has_matrix_unit", lambda: is_fast)
    random = torch.Generator().manual_seed(4)
    model = Model(1.0)
    head = fused_head(model)
    head.prepare()
    states = torch.randn(3, 3, 4, generator=random)
    mask = torch.tensor([[1, 1, 0], [0, 0, 1], [0, 0, 0]])

    found = head.pooled(SpladePooling(), states, mask)

    logits = model.decoder(states).relu().log1p() * mask[:, :, None]
    assert (model.decoder.screen is not None) == is_fast
    assert torch.allclose(found, logits.amax(dim=1), atol=1e-6)
    assert found[2].count_nonzero() == 0 < found[:2].count_nonzero()


@pytest.mark.parametrize("is_fast", [False, True])
def test_a_head_has_a_screen_during_a_step(monkeypatch, checkpoints, is_fast):
    """On a CPU with AMX; the weights may change afterwards."""
    monkeypatch.setattr(heads, "has_matrix_unit", lambda: is_fast)
    form = trainable(checkpoints.load(st_core, "SparseEncoder", "splade-max")._engine.modules)
    decoder = next(each for each in form.modules() if isinstance(each, heads._Decoder))

    with form.shared_embeddings():
        assert (decoder.screen is not None) == is_fast
    assert decoder.screen is None


def test_a_model_in_bfloat16_has_the_same_gradients_in_shared_tables(checkpoints):
    """Up to the rounding of their sums: torch cannot convert a sparse gradient to bfloat16."""
    form = trainable(checkpoints.load(st_core, "SparseEncoder", "splade-max")._engine.modules, dtype=torch.bfloat16)
    decoder = next(each for each in form.modules() if isinstance(each, heads._Decoder))
    ids = torch.tensor([[5, 6, 7]])
    gradients = []
    for context in (nullcontext, form.shared_embeddings):
        form.zero_grad()
        with context():
            result = form({"input_ids": ids, "attention_mask": torch.ones_like(ids)})["sentence_embedding"]
        result.float().square().sum().backward()
        gradients.append(decoder.weight.grad.float())

    wanted, found = gradients
    assert wanted.count_nonzero() > 0
    assert torch.allclose(found, wanted, atol=2**-6 * float(wanted.abs().max()))
