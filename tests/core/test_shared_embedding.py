"""Gradients of a word table that several batches share are those of each batch alone, added up."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("sentence_transformers", reason="the checkpoints are made with it")

import st_core  # noqa: E402 - after the guard
from st_core.backends.torch.shared_embedding import SharedEmbedding, accepting_sparse_gradients, make_shareable  # noqa: E402 - after the guard
from st_core.backends.torch.trainable import trainable  # noqa: E402 - after the guard

pytestmark = pytest.mark.torch


class Model(torch.nn.Module):
    """A model with a word table."""

    def __init__(self, **options):
        super().__init__()
        torch.manual_seed(1)
        self.words = torch.nn.Embedding(9, 4, **options)

    def get_input_embeddings(self):
        return self.words


def test_rows_of_several_uses_are_added_up():
    """Of words that occur in both uses and more than once; padding has no gradient, and the table none in rows."""
    plain, shared = Model(padding_idx=0).words, Model(padding_idx=0)
    table = make_shareable(shared)
    uses = torch.tensor([[1, 2, 2, 0]]), torch.tensor([[2, 3]])
    factors = torch.randn(9, 4, generator=torch.Generator().manual_seed(2))

    table.shared = accepting_sparse_gradients(table.weight)
    sum((table(ids) * factors[ids]).sum() for ids in uses).backward()
    sum((plain(ids) * factors[ids]).sum() for ids in uses).backward()

    assert not table.weight.grad.is_sparse
    assert torch.allclose(table.weight.grad, plain.weight.grad)
    assert not table.weight.grad[0].any()
    assert table.weight.grad[2].any()


def test_a_use_as_a_matrix_is_added_to_the_rows():
    """A product with the whole table has a gradient for every row."""
    plain, shared = Model().words, Model()
    table = make_shareable(shared)
    ids = torch.tensor([[1, 2, 2]])

    table.shared = accepting_sparse_gradients(table.weight)
    (table(ids).sum() + (table.shared**2).sum()).backward()
    (plain(ids).sum() + (plain.weight**2).sum()).backward()

    assert torch.allclose(table.weight.grad, plain.weight.grad)


@pytest.mark.parametrize("options", [{"max_norm": 1.0}, {"scale_grad_by_freq": True}])
def test_tables_with_other_gradients_are_not_shared(options):
    """Their rows are not independent of each other."""
    model = Model(**options)

    assert make_shareable(model) is None
    assert type(model.words) is torch.nn.Embedding


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("SentenceTransformer", "bert-mean"),
        ("SparseEncoder", "splade-max"),
        ("SparseEncoder", "splade-roberta"),
        ("CrossEncoder", "rerank-bert"),
    ],
)
def test_models_have_the_same_gradients_in_shared_tables(checkpoints, kind, name):
    """For tables that are the vocabulary matrix too, and for others; after the block nothing is shared."""
    form = trainable(checkpoints.load(st_core, kind, name)._engine.modules)
    random = torch.Generator().manual_seed(3)
    batches = [torch.randint(5, 30, shape, generator=random) for shape in ((2, 7), (3, 4))]

    def gradients():
        form.zero_grad()
        total = 0.0
        for ids in batches:
            result = form({"input_ids": ids, "attention_mask": torch.ones_like(ids)})
            value = result["scores"] if "scores" in result else result["sentence_embedding"]
            total = total + (value**3).sum()
        total.backward()
        return {key: each.grad.clone() for key, each in form.named_parameters() if each.grad is not None}

    alone = gradients()
    with form.shared_embeddings():
        together = gradients()

    assert any(isinstance(each, SharedEmbedding) for each in form.modules())
    assert all(each.shared is None for each in form.modules() if isinstance(each, SharedEmbedding))
    assert alone.keys() == together.keys()
    for key, wanted in alone.items():
        assert torch.allclose(together[key], wanted, atol=1e-6 * float(wanted.abs().max())), key
