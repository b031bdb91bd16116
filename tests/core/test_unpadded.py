"""Layers that leave out padding have the states and the gradients of layers that compute it."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch", reason="needs torch")
transformers = pytest.importorskip("transformers", reason="the models are its own")
pytest.importorskip("sentence_transformers", reason="the checkpoints are made with it")

from hypothesis import given, settings  # noqa: E402 - after the guard
from hypothesis import strategies as st  # noqa: E402 - after the guard

import st_core  # noqa: E402 - after the guard
from st_core.backends.torch import unpadded  # noqa: E402 - after the guard
from st_core.backends.torch.trainable import trainable  # noqa: E402 - after the guard
from st_core.backends.torch.unpadded import leave_out_padding  # noqa: E402 - after the guard

pytestmark = pytest.mark.torch

SIZES = {
    "vocab_size": 60,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 24,
    "attn_implementation": "sdpa",
}
DISTILBERT = {"vocab_size": 60, "dim": 16, "hidden_dim": 24, "n_layers": 2, "n_heads": 2, "attn_implementation": "sdpa"}
MODELS = {
    "bert": lambda: transformers.BertModel(transformers.BertConfig(**SIZES)),
    "camembert": lambda: transformers.CamembertModel(transformers.CamembertConfig(**SIZES)),
    "distilbert": lambda: transformers.DistilBertForMaskedLM(transformers.DistilBertConfig(**DISTILBERT)),
    "electra": lambda: transformers.ElectraModel(transformers.ElectraConfig(**SIZES, embedding_size=8)),
    "roberta": lambda: transformers.RobertaForSequenceClassification(transformers.RobertaConfig(**SIZES)),
    "xlm-roberta": lambda: transformers.XLMRobertaForMaskedLM(transformers.XLMRobertaConfig(**SIZES)),
}


@pytest.fixture(scope="module")
def pairs():
    """Each model as it is, and changed, in float64."""
    made = {}
    for name, make in MODELS.items():
        torch.manual_seed(1)
        plain = make().double().eval()
        changed = copy.deepcopy(plain)
        assert leave_out_padding(changed)
        made[name] = plain, changed
    return made


@pytest.fixture(autouse=True)
def always(monkeypatch):
    """Padding is left out however little it is."""
    monkeypatch.setattr(unpadded, "OVERHEAD", 0)


def outputs_and_gradients(model, ids, mask):
    """The first output, of tokens alone if it has states of each, and the gradients of a function of it."""
    model.zero_grad()
    output = model(input_ids=ids, attention_mask=mask)[0]
    if output.ndim == 3:
        output = output[mask.bool()]
    (output**3).sum().backward()
    return output.detach(), {name: each.grad for name, each in model.named_parameters() if each.grad is not None}


def assert_same(pair, ids, mask):
    """Both models of a pair have the same output and gradients."""
    (wanted, gradients), (found, own) = (outputs_and_gradients(model, ids, mask) for model in pair)
    assert torch.allclose(found, wanted, rtol=1e-9, atol=1e-12)
    assert own.keys() == gradients.keys()
    for name, gradient in gradients.items():
        assert torch.allclose(own[name], gradient, rtol=1e-9, atol=1e-9 * max(1.0, float(gradient.abs().max())))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("is_left", [False, True])
@settings(deadline=None, max_examples=8)
@given(lengths=st.lists(st.integers(1, 12), min_size=1, max_size=5), seed=st.integers(0, 99))
def test_states_and_gradients_are_those_of_padded_batches(pairs, name, is_left, lengths, seed):
    """For texts of any lengths; batches with padding on the left stay as they are."""
    width = max(lengths)
    mask = torch.tensor([[1] * length + [0] * (width - length) for length in lengths])
    mask = mask.flip(1) if is_left else mask
    ids = torch.randint(5, 60, mask.shape, generator=torch.Generator().manual_seed(seed))

    assert_same(pairs[name], torch.where(mask.bool(), ids, 1), mask)


def test_gradients_are_the_same_with_gradient_checkpointing(pairs):
    """Layers are computed again from the states of tokens."""
    plain, changed = (copy.deepcopy(each).train() for each in pairs["bert"])
    for model in (plain, changed):
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0

    assert_same((plain, changed), torch.tensor([[5, 6, 7], [8, 1, 1]]), torch.tensor([[1, 1, 1], [1, 0, 0]]))


def products(model, monkeypatch, *, overhead):
    """The number of tokens whose products the layers compute, for a batch of two rows of three, with four tokens."""
    monkeypatch.setattr(unpadded, "OVERHEAD", overhead)
    seen = set()
    hooks = [
        each.register_forward_hook(lambda _module, inputs, _output: seen.add(inputs[0].shape[:2].numel()))
        for name, each in model.named_modules()
        if name.endswith("intermediate.dense")
    ]
    model(input_ids=torch.tensor([[5, 6, 7], [8, 1, 1]]), attention_mask=torch.tensor([[1, 1, 1], [1, 0, 0]]))
    for hook in hooks:
        hook.remove()
    return seen


def test_padding_is_left_out_where_that_saves_more_than_it_costs(pairs, monkeypatch):
    """Two positions are saved, whose width is 16: 512, for two texts."""
    plain, changed = pairs["bert"]

    assert products(plain, monkeypatch, overhead=0) == {6}
    assert products(changed, monkeypatch, overhead=256) == {4}
    assert products(changed, monkeypatch, overhead=257) == {6}


def test_a_batch_without_padding_stays(pairs):
    """It has nothing to leave out."""
    ids = torch.tensor([[5, 6, 7], [8, 9, 10]])

    assert_same(pairs["bert"], ids, torch.ones_like(ids))


@pytest.mark.parametrize(
    "make",
    [
        lambda: transformers.BertModel(transformers.BertConfig(**SIZES | {"attn_implementation": "eager"})),
        lambda: transformers.BertModel(transformers.BertConfig(**SIZES, output_hidden_states=True)),
        lambda: transformers.BertLMHeadModel(transformers.BertConfig(**SIZES, is_decoder=True)),
        lambda: transformers.MPNetModel(transformers.MPNetConfig(**SIZES | {"attn_implementation": None})),
    ],
)
def test_other_models_stay(make):
    """Another attention, states of every layer, attention to earlier tokens alone, and a bias of positions."""
    model = make()
    attention = model.config._attn_implementation

    assert not leave_out_padding(model)
    assert model.config._attn_implementation == attention
    assert not any(each._forward_pre_hooks or each._forward_hooks for each in model.modules())


@pytest.mark.parametrize("fault", [lambda *_, **__: 1 / 0, lambda *_, **__: (torch.zeros(1, 6, 2, 8), None)])
def test_a_model_whose_states_would_change_stays(monkeypatch, fault):
    """Or which fails, as another version of transformers might; also where so little padding is not left out later."""
    model = MODELS["bert"]().eval()
    ids, mask = torch.tensor([[5, 6, 7], [8, 1, 1]]), torch.tensor([[1, 1, 1], [1, 0, 0]])
    wanted = model(input_ids=ids, attention_mask=mask)[0]
    monkeypatch.setattr(unpadded, "OVERHEAD", 1 << 40)
    monkeypatch.setitem(transformers.AttentionInterface._global_mapping, unpadded.ATTENTION, fault)

    assert not leave_out_padding(model)
    assert torch.equal(model(input_ids=ids, attention_mask=mask)[0], wanted)


def test_a_change_of_the_configuration_is_obeyed(pairs):
    """Another attention does not know where texts end, and states of all layers are of padded batches."""
    plain, changed = (copy.deepcopy(each) for each in pairs["bert"])
    ids, mask = torch.tensor([[5, 6, 7], [8, 1, 1]]), torch.tensor([[1, 1, 1], [1, 0, 0]])

    changed.config.output_hidden_states = True
    assert [each.shape for each in changed(input_ids=ids, attention_mask=mask).hidden_states] == [(2, 3, 16)] * 3
    changed.config.output_hidden_states = False
    changed.set_attn_implementation("sdpa")
    assert_same((plain, changed), ids, mask)


def test_a_pickled_model_computes_in_another_process(pairs, tmp_path):
    """Which has not changed any model."""
    torch.save(pairs["bert"][1], tmp_path / "model.pt")
    code = (
        "import sys, torch; model = torch.load(sys.argv[1], weights_only=False);"
        "ids, mask = torch.tensor([[5, 6, 7], [8, 1, 1]]), torch.tensor([[1, 1, 1], [1, 0, 0]]);"
        "print(model(input_ids=ids, attention_mask=mask)[0][0, 0, 0].item())"
    )

    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "model.pt")], capture_output=True, text=True, check=True
    )

    ids, mask = torch.tensor([[5, 6, 7], [8, 1, 1]]), torch.tensor([[1, 1, 1], [1, 0, 0]])
    wanted = pairs["bert"][0](input_ids=ids, attention_mask=mask)[0][0, 0, 0].item()
    assert float(result.stdout) == pytest.approx(wanted, rel=1e-6)


def test_saved_models_have_the_configuration_of_others(pairs, tmp_path):
    """The attention is not written."""
    for name, model in zip(("plain", "changed"), pairs["bert"], strict=True):
        model.save_pretrained(tmp_path / name)

    assert (tmp_path / "plain" / "config.json").read_text() == (tmp_path / "changed" / "config.json").read_text()
    assert transformers.AutoModel.from_pretrained(tmp_path / "changed").config._attn_implementation == "sdpa"


@pytest.mark.parametrize(
    ("kind", "name"),
    [("SentenceTransformer", "bert-mean"), ("SparseEncoder", "splade-max"), ("CrossEncoder", "rerank-bert")],
)
def test_trainable_models_have_the_same_gradients(checkpoints, monkeypatch, kind, name):
    """Of vectors, of term weights and of scores."""
    form = trainable(checkpoints.load(st_core, kind, name)._engine.modules).double()
    ids = torch.randint(5, 30, (3, 7), generator=torch.Generator().manual_seed(3))
    mask = torch.tensor([[1] * length + [0] * (7 - length) for length in (7, 2, 4)])
    results = []
    for overhead in (0, 1 << 40):
        monkeypatch.setattr(unpadded, "OVERHEAD", overhead)
        form.zero_grad()
        features = form({"input_ids": torch.where(mask.bool(), ids, 0), "attention_mask": mask})
        value = features["scores"] if "scores" in features else features["sentence_embedding"]
        (value**3).sum().backward()
        results.append((value, {key: each.grad for key, each in form.named_parameters() if each.grad is not None}))
    (found, own), (wanted, gradients) = results

    assert torch.allclose(found, wanted, rtol=1e-6, atol=1e-9)
    assert own.keys() == gradients.keys()
    largest = max(float(each.abs().max()) for each in gradients.values())
    for key, gradient in gradients.items():  # a gradient of zero is noise
        assert torch.allclose(own[key], gradient, rtol=1e-6, atol=1e-9 * largest)
