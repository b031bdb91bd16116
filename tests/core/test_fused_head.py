"""The vocabulary product and the maximum as one operation have the values and gradients of both."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs torch")

from st_core.backends.torch.fused_head import fused_head, max_product  # noqa: E402 - after the guard

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
