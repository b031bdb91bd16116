"""Activations that are computed again leave gradients as they are, and take less memory."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch", reason="needs torch")
transformers = pytest.importorskip("transformers", reason="the models are its own")

from st_core.backends.torch.recomputed import recompute_activations  # noqa: E402 - after the guard

pytestmark = pytest.mark.torch

INNER = 24
BERT = {
    "vocab_size": 60,
    "hidden_size": 16,
    "intermediate_size": INNER,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 24,
}
DISTILBERT = {"vocab_size": 60, "dim": 16, "hidden_dim": INNER, "n_layers": 2, "n_heads": 2}
MODELS = {
    "bert": lambda: transformers.BertModel(transformers.BertConfig(**BERT)),
    "bert-silu": lambda: transformers.BertModel(transformers.BertConfig(**BERT, hidden_act="silu")),
    "distilbert": lambda: transformers.DistilBertForMaskedLM(transformers.DistilBertConfig(**DISTILBERT)),
    "mpnet": lambda: transformers.MPNetModel(transformers.MPNetConfig(**BERT)),
}
IDS = torch.arange(5, 17).view(3, 4)


def pair(name):
    """A model as it is, and changed."""
    torch.manual_seed(1)
    plain = MODELS[name]().eval()
    changed = copy.deepcopy(plain)
    recompute_activations(changed)
    return plain, changed


def gradients(model):
    """The gradients of a function of the states, and the number of values of ``INNER`` columns stored for them."""
    stored = {}

    def note(tensor):
        if tensor.shape[-1:] == (INNER,) and tensor.numel() == IDS.numel() * INNER:
            stored[tensor.data_ptr()] = tensor.numel()
        return tensor

    model.zero_grad()
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        value = (model(input_ids=IDS)[0] ** 3).sum()
    value.backward()
    found = {name: each.grad for name, each in model.named_parameters() if each.grad is not None}
    return found, sum(stored.values())


@pytest.mark.parametrize("name", MODELS)
def test_gradients_stay_and_half_of_the_activations_is_stored(name):
    """Of two layers, whose activation is stored once in place of twice."""
    (wanted, before), (found, after) = (gradients(model) for model in pair(name))

    assert before == 2 * 2 * IDS.numel() * INNER
    assert after == before // 2
    assert found.keys() == wanted.keys()
    for key, gradient in wanted.items():
        assert torch.allclose(found[key], gradient, rtol=1e-5, atol=1e-7)


def test_matrices_without_gradients_get_none():
    """As in the training of an adapter."""
    plain, changed = pair("bert")
    for model in (plain, changed):
        model.requires_grad_(requires_grad=False)
        model.embeddings.requires_grad_(requires_grad=True)

    (wanted, _), (found, _) = gradients(plain), gradients(changed)

    assert found.keys() == wanted.keys()
    assert all(key.startswith("embeddings.") for key in found)
    for key, gradient in wanted.items():
        assert torch.allclose(found[key], gradient, rtol=1e-5, atol=1e-7)


def test_names_and_values_of_parameters_stay(tmp_path):
    """So that the model is saved as before."""
    plain, changed = pair("distilbert")

    assert list(changed.state_dict()) == list(plain.state_dict())
    changed.save_pretrained(tmp_path)
    loaded = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path).eval()
    assert torch.equal(loaded(input_ids=IDS)[0], plain(input_ids=IDS)[0])


@pytest.mark.parametrize("context", [torch.no_grad, lambda: torch.autocast("cpu", torch.bfloat16)])
def test_outputs_stay_without_gradients_and_in_bfloat16(context):
    """Where nothing is stored, and where products convert their input."""
    plain, changed = pair("bert")

    with context():
        assert torch.equal(changed(input_ids=IDS)[0], plain(input_ids=IDS)[0])


def test_a_result_that_is_changed_in_place_is_stored():
    """Because it is not what would be computed again."""
    plain, changed = pair("bert")

    class InPlace(torch.nn.Module):
        def __init__(self, act):
            super().__init__()
            self.act = act

        def forward(self, states):
            return self.act(states).mul_(2)

    for model in (plain, changed):
        for layer in model.encoder.layer:
            layer.intermediate.intermediate_act_fn = InPlace(layer.intermediate.intermediate_act_fn)
    (wanted, _), (found, _) = gradients(plain), gradients(changed)

    for key, gradient in wanted.items():
        assert torch.allclose(found[key], gradient, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "make",
    [
        lambda: transformers.GPT2Model(transformers.GPT2Config(vocab_size=60, n_embd=16, n_layer=1, n_head=2)),
        lambda: transformers.BertModel(transformers.BertConfig(**BERT, hidden_act="relu")),
    ],
)
def test_other_models_stay(make):
    """Whose layers have other names, or whose activation function stores its result, which the product shares."""
    model = make()
    kinds = [type(each) for each in model.modules()]

    recompute_activations(model)

    assert [type(each) for each in model.modules()] == kinds
