"""Settings on ``model.tokenizer``: the numbers of sentence-transformers with the same setting, or an error."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch")
oracle = pytest.importorskip("sentence_transformers", reason="needs sentence-transformers")

import st_core  # noqa: E402 - after the guard

pytestmark = pytest.mark.torch

TEXTS = ["How do I copy a directory tree?", "a", "Parse a DATE string with qqtree"]
PAIRS = [("where is heat", text) for text in TEXTS]
DENSE, SPARSE, CROSS = "SentenceTransformer", "SparseEncoder", "CrossEncoder"


def both(checkpoints, kind, name, **options):
    """A model of each library that no other test uses."""
    folder = str(checkpoints.folder(name))
    return getattr(oracle, kind)(folder, device="cpu"), getattr(st_core, kind)(folder, **options)


def set_attribute(name, value):
    """A change that sets an attribute."""
    return lambda tokenizer: setattr(tokenizer, name, value)


def lowercased(tokenizer):
    """A change of a step."""
    from tokenizers.normalizers import Lowercase

    tokenizer.backend_tokenizer.normalizer = Lowercase()


def with_known_words(tokenizer):
    """Words of the vocabulary become tokens wherever they occur."""
    known = [word for word in sorted(tokenizer.get_vocab()) if word.isalpha() and len(word) < 3][:9]
    tokenizer.add_tokens(known)
    tokenizer.add_special_tokens({"additional_special_tokens": known[:2]})


CHANGES = {
    "model_max_length": set_attribute("model_max_length", 5),
    "truncation_side": lambda tokenizer: [setattr(tokenizer, *each) for each in SHORT_LEFT],
    "add_tokens": with_known_words,
    "normalizer": lowercased,
    "model_input_names": set_attribute("model_input_names", ["input_ids", "attention_mask"]),
}
SHORT_LEFT = (("truncation_side", "left"), ("model_max_length", 5))


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(
    ("kind", "name"), [(DENSE, "bert-mean"), (DENSE, "roberta-six"), (SPARSE, "splade-max"), (CROSS, "rerank-bert")]
)
def test_a_setting_has_the_effect_that_it_has_there(checkpoints, agree, kind, name, change):
    """On the next call, also after earlier ones."""
    theirs, ours = both(checkpoints, kind, name, device="cpu")
    inputs = PAIRS if kind == CROSS else TEXTS

    def results(model):
        if kind == CROSS:
            return model.predict(inputs)
        return model.encode(inputs, **({"convert_to_tensor": True} if kind == SPARSE else {}))

    agree(results(ours), results(theirs))
    tokenizer = ours.tokenizer
    for model in (theirs, ours):
        CHANGES[change](model.tokenizer)
    agree(results(ours), results(theirs))
    assert ours.max_seq_length == theirs.max_seq_length
    assert ours.tokenizer is tokenizer


def test_the_chat_template_is_that_of_the_tokenizer(checkpoints, agree):
    """A template that is set takes the place of the one in the files; a model of plain texts refuses one."""
    theirs, ours = both(checkpoints, DENSE, "chat-parts", device="cpu")
    for model in (theirs, ours):
        model.tokenizer.chat_template = "{{ messages[-1].content[0].text }} it is"
    agree(ours.encode(TEXTS), theirs.encode(TEXTS))

    _, plain = both(checkpoints, DENSE, "bert-mean", device="cpu")
    plain.tokenizer.chat_template = "{{ messages }}"
    with pytest.raises(ValueError, match=r"chat_template was set for a model that reads plain texts.*processor_kwargs"):
        plain.encode(TEXTS)
    plain.tokenizer.chat_template = None
    agree(plain.encode(TEXTS), checkpoints.load(st_core, DENSE, "bert-mean").encode(TEXTS))


def test_the_side_of_padding_changes_preprocess_and_no_result(checkpoints, agree):
    """Each text has the numbers that it has alone there."""
    theirs, ours = both(checkpoints, DENSE, "bert-mean", device="cpu")
    wanted = ours.encode(TEXTS)
    for model in (theirs, ours):
        model.tokenizer.padding_side = "left"

    np.testing.assert_array_equal(ours.preprocess(TEXTS)["input_ids"], theirs.preprocess(TEXTS)["input_ids"])
    np.testing.assert_array_equal(ours.encode(TEXTS), wanted)
    agree(ours.encode(TEXTS), np.stack([theirs.encode(text) for text in TEXTS]))


def test_both_names_of_the_maximum_length_are_one(checkpoints, agree):
    """Whichever is set last."""
    _, ours = both(checkpoints, DENSE, "bert-mean", device="cpu")
    ours.max_seq_length = 9
    assert ours.tokenizer.model_max_length == 9
    ours.tokenizer.model_max_length = 5
    assert ours.max_seq_length == ours[0].max_seq_length == 5
    ours[0].max_seq_length = 7
    assert ours.tokenizer.model_max_length == 7
    ours.tokenizer.model_max_length = "long"
    with pytest.raises(ValueError, match="model_max_length must be a positive whole number, got 'long'"):
        ours.encode(TEXTS)


def test_tokens_without_weights_are_refused(checkpoints):
    """A new token needs a row of the embeddings, which a loaded model does not get."""
    _, ours = both(checkpoints, DENSE, "bert-mean", device="cpu")
    ours.tokenizer.add_tokens(["qqtree"])
    ours.encode(TEXTS[:2])
    with pytest.raises(st_core.ModelError, match="token"):
        ours.encode(TEXTS)


@pytest.mark.parametrize("way", ["deepcopy", "pickle", "saved"])
def test_a_setting_reaches_copies_pickles_and_files(checkpoints, agree, tmp_path, way):
    """And copies have their own tokenizer afterwards."""
    theirs, ours = both(checkpoints, DENSE, "bert-mean", device="cpu")
    for model in (theirs, ours):
        with_known_words(model.tokenizer)
        for name, value in SHORT_LEFT:
            setattr(model.tokenizer, name, value)
    wanted = theirs.encode(TEXTS)
    if way == "saved":
        ours.save_pretrained(tmp_path)
        agree(oracle.SentenceTransformer(str(tmp_path), device="cpu").encode(TEXTS), wanted)
        copied = st_core.SentenceTransformer(str(tmp_path), device="cpu")
    else:
        copied = copy.deepcopy(ours) if way == "deepcopy" else pickle.loads(pickle.dumps(ours))
    agree(copied.encode(TEXTS), wanted)
    assert copied.max_seq_length == 5

    copied.tokenizer.model_max_length = 4
    assert copied.max_seq_length == 4
    agree(ours.encode(TEXTS), wanted)


def test_another_tokenizer_can_be_set(checkpoints, agree):
    """An object of the same library; others are refused."""
    theirs, ours = both(checkpoints, DENSE, "bert-mean", device="cpu")
    other = copy.deepcopy(ours.tokenizer)
    other.model_max_length = 6
    with_known_words(other)
    theirs[0].processor = copy.deepcopy(other)
    ours.tokenizer = other

    assert ours.tokenizer is other
    agree(ours.encode(TEXTS), theirs.encode(TEXTS))
    with pytest.raises(TypeError, match="the tokenizer is a int; expected one of transformers"):
        ours.tokenizer = 8


def test_lower_case_is_a_setting_of_the_transformer(checkpoints, agree):
    """The numbers of texts in lower case, and back, unless the files of the tokenizer lowercase texts too."""
    theirs, ours = both(checkpoints, DENSE, "roberta-six", device="cpu")
    ours[0].do_lower_case = True
    agree(ours.encode(TEXTS), theirs.encode([text.lower() for text in TEXTS]))
    ours[0].do_lower_case = False
    agree(ours.encode(TEXTS), theirs.encode(TEXTS))

    ours[0].do_lower_case = True
    lowercased(ours.tokenizer)
    with pytest.raises(ValueError, match="the tokenizer lowercases texts itself"):
        ours[0].do_lower_case = False


def test_the_tokenizer_of_a_static_model(checkpoints, agree):
    """Truncation has its effect, padding is refused; models with equal files do not share it."""
    theirs, ours = both(checkpoints, DENSE, "static")
    other = st_core.SentenceTransformer(str(checkpoints.folder("static")))
    before = other.encode(TEXTS)
    for model in (theirs, ours):
        model.tokenizer.enable_truncation(3)
    agree(ours.encode(TEXTS), theirs.encode(TEXTS))
    for model in (theirs, ours):
        model.tokenizer.no_truncation()
    agree(ours.encode(TEXTS), theirs.encode(TEXTS))
    ours.tokenizer.enable_padding()
    with pytest.raises(ValueError, match=r"padding was enabled.*no_padding"):
        ours.encode(TEXTS)
    np.testing.assert_array_equal(other.encode(TEXTS), before)


def test_the_tokenizer_that_computes_tokens_is_shared_and_follows_settings(checkpoints):
    """One object for models with equal files, which never cuts texts, and another once a setting changes tokens."""
    normalizers = pytest.importorskip("tokenizers").normalizers
    first, second = (st_core.SentenceTransformer(str(checkpoints.folder("static"))) for _ in range(2))
    shared = first.backend_tokenizer
    assert second.backend_tokenizer is shared
    first.tokenizer.enable_truncation(3)
    assert len(first.backend_tokenizer.encode(TEXTS[0], add_special_tokens=False)) > 3
    first.tokenizer.normalizer = normalizers.Lowercase()
    assert first.backend_tokenizer.normalizer.normalize_str("ABC") == "abc"
    assert second.backend_tokenizer is shared
    assert shared.normalizer is None


@pytest.mark.long
def test_the_tokenizer_of_a_graph(checkpoints, agree):
    """The same settings on another backend."""
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    theirs, ours = both(checkpoints, DENSE, "bert-mean", backend="onnx")
    for model in (theirs, ours):
        CHANGES["truncation_side"](model.tokenizer) if hasattr(model.tokenizer, "truncation_side") else (
            model.tokenizer.enable_truncation(5, direction="left")
        )
    agree(ours.encode(TEXTS), theirs.encode(TEXTS))
