"""Dense models of every kind and layout give sentence-transformers' token ids and numbers."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from sweeps import sweep

torch = pytest.importorskip("torch", reason="needs torch")
oracle = pytest.importorskip("sentence_transformers", reason="needs sentence-transformers")

import st_core  # noqa: E402 -- after the guard
from st_core.backends import RunOptions  # noqa: E402

pytestmark = pytest.mark.torch

TRANSFORMERS = [
    "bert-mean",
    "distilbert-cls",
    "roberta-six",
    "mpnet-max",
    "xlm-roberta-weighted",
    "bert-two-modes",
    "bert-residual",
    "cased-lower",
    "bert-token-dense",
    "bert-no-prompt",
    "plain-bert",
    "plain-masked",
    "late-routes",
    "qwen3-last",
    "mistral-weighted",
    "modernbert-cls",
    "t5-mean",
    "plain-qwen2",
    "plain-llama",
    "plain-t5",
    "plain-mt5",
    "plain-umt5",
    "plain-modernbert",
    "layers",
]
ADAPTED = ["lora", "lora-ranked", "lora-alone"]
WORDS = ["words", "words-lstm", "words-lstm-forward", "bow", "bow-once"]
CHAT = ["chat-flat", "chat-parts"]
STATIC = ["static", "model2vec", "model2vec-int8"]
ROUTED = ["router", "router-shared", "late-routes"]
KINDS = [*TRANSFORMERS, *STATIC, *WORDS]
DENSE = "SentenceTransformer"
SHORT = [
    "bert-mean",
    "roberta-six",
    "mpnet-max",
    "modernbert-cls",
    "t5-mean",
    "plain-qwen2",
    "layers",
    "static",
    "words",
    "model2vec",
]
"""The checkpoints of ``make test``; the others and the oldest layouts run in ``make test-long``."""
UNRESTORED = {"processing_kwargs": {"text": {"max_length": 20}, "chat_template": {"restore_suffix": False}}}


def layouts(names):
    """Each checkpoint in today's layout and in the oldest."""
    return across([name + layout for name in names for layout in ("", "-old")])


def across(names):
    """Each checkpoint, of which a few run in ``make test``."""
    return pytest.mark.parametrize("name", sweep(names, [name for name in names if name in SHORT]))


def ids(model, text, **options):
    """The token ids of one text as a plain list."""
    return np.asarray(model.preprocess([text], **options)["input_ids"]).ravel().tolist()


@layouts([*TRANSFORMERS, *STATIC])
def test_token_ids_are_equal(checkpoints, texts, name):
    """Every text becomes the same tokens, cut at the same place, alone and with a prompt."""
    theirs, ours = checkpoints.pair(DENSE, name)

    for text in texts:
        assert ids(ours, text) == ids(theirs, text), repr(text[:40])
        if len(text) < 1000:
            assert ids(ours, text, prompt="Group: ") == ids(theirs, text, prompt="Group: "), repr(text[:40])


@layouts(KINDS)
def test_vectors_agree(checkpoints, texts, agree, name):
    """A call without further wishes, and the two roles, give the same vectors."""
    theirs, ours = checkpoints.pair(DENSE, name)
    some = [text for text in texts if len(text) < 1000]

    agree(ours.encode_query(texts), theirs.encode_query(texts))
    agree(ours.encode_document(some), theirs.encode_document(some))
    agree(ours.encode(some), theirs.encode(some))


@pytest.mark.parametrize("name", ADAPTED)
def test_adapters_are_merged_into_their_model(checkpoints, texts, agree, name):
    """The numbers are those of the adapter beside its model, which sentence-transformers computes.

    Nothing of the adapter is left to run.
    """
    theirs, ours = checkpoints.pair(DENSE, name)
    some = [text for text in texts if text]

    for text in some:
        assert ids(ours, text) == ids(theirs, text), repr(text[:40])
    agree(ours.encode_query(some), theirs.encode_query(some))
    agree(np.stack([ours.encode(text) for text in some]), ours.encode(some))
    bare = st_core.SentenceTransformer(str(ours[0].base), device="cpu")
    assert np.abs(ours.encode(some) - bare.encode(some)).max() > 0.1
    loaded = ours._engine.factory.torch.transformer(ours._engine.modules[0]).ready()
    assert not any("lora" in key for key in loaded.model.state_dict())


def test_an_adapter_that_would_be_loaded_in_part_is_refused(checkpoints):
    """Transformers 5.23 renames DoRA's magnitudes and leaves them at their first values.

    Sentence-transformers computes with these.
    """
    with pytest.raises(st_core.ModelBroken, match=r"dora: the adapter does not fit its model: .*magnitude"):
        st_core.SentenceTransformer(str(checkpoints.folder("dora")), device="cpu")


@pytest.mark.parametrize("damage", ["missing", "cut", "no model", "unnamed"])
def test_broken_adapters_are_named(checkpoints, tmp_path, damage):
    """The message names the folder or its file."""
    folder = tmp_path / "broken"
    shutil.copytree(checkpoints.folder("lora"), folder)
    weights, config = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    value = json.loads(config.read_text())
    match damage:
        case "missing":
            weights.unlink()
        case "cut":
            weights.write_bytes(weights.read_bytes()[:-50])
        case "no model":
            config.write_text(json.dumps(value | {"base_model_name_or_path": str(tmp_path / "a" / "b")}))
        case "unnamed":
            config.write_text(json.dumps(value | {"base_model_name_or_path": None}))

    with pytest.raises(st_core.ModelError, match="broken"):
        st_core.SentenceTransformer(folder, device="cpu")


@pytest.mark.parametrize("name", CHAT)
def test_texts_go_through_the_chat_template(checkpoints, texts, agree, name):
    """Ids and vectors are equal, with a prompt as system message and final tokens restored."""
    theirs, ours = checkpoints.pair(DENSE, name)
    some = [text for text in texts if len(text) < 1000]

    for text in some:
        for options in ({}, {"prompt": "Group"}, {"task": "query"}, {"processing_kwargs": {"chat_template": {"x": 1}}}):
            assert ids(ours, text, **options) == ids(theirs, text, **options), (text[:40], options)
    for inputs, options in ((texts, {}), (some, {"prompt": "Group: "}), (some, UNRESTORED)):
        agree(ours.encode(inputs, **options), theirs.encode(inputs, **options))
    agree(ours.encode_query(some), theirs.encode_query(some))
    agree(np.stack([ours.encode(text) for text in texts]), ours.encode(texts))


def test_an_old_checkpoint_with_a_chat_template_reads_texts_without_it(checkpoints, texts, agree):
    """Before chat templates were used, checkpoints had them for other purposes."""
    theirs, ours = checkpoints.pair(DENSE, "chat-parts-old")

    assert ids(ours, texts[0]) == ids(theirs, texts[0]) != ids(checkpoints.pair(DENSE, "chat-parts")[1], texts[0])
    agree(ours.encode(texts), theirs.encode(texts))


def test_padding_on_the_left_does_not_move_a_text(checkpoints, texts, agree):
    """Positions count from the first real token: in a batch a text gets its vector of the text alone."""
    theirs, ours = checkpoints.pair(DENSE, "gpt2-last")
    some = [text for text in texts if text]  # none has no tokens, of which the oracle alone makes an error

    agree(ours.encode(some), theirs.encode(some, batch_size=1))


def test_neighbours_in_a_batch_do_not_change_a_convolution(checkpoints, texts, agree):
    """Padding does not reach a CNN: in a batch a text gets sentence-transformers' vector of the text alone."""
    theirs, ours = checkpoints.pair(DENSE, "words-cnn")

    agree(ours.encode(texts), theirs.encode(texts, batch_size=1))
    agree(ours.encode_query(texts), theirs.encode_query(texts, batch_size=1))
    agree(checkpoints.load(st_core, DENSE, "words-cnn-old").encode(texts), ours.encode(texts))


@pytest.mark.parametrize("name", ["plain-qwen2", "plain-llama", "gpt2-last", "mistral-weighted", "words", "bow"])
def test_a_text_without_tokens_is_a_zero_vector(checkpoints, texts, name):
    """Decoders add no special tokens, so an empty text gives zeros, alone and in a batch."""
    _, ours = checkpoints.pair(DENSE, name)

    assert not ours.encode("").any()
    assert not ours.encode(texts)[2].any()
    assert np.isfinite(ours.encode(["", "", *texts], normalize_embeddings=True)).all()


@layouts(["router", "router-shared"])
def test_routes_follow_the_task(checkpoints, texts, agree, name):
    """Queries and documents take their own routes, however the task is named."""
    theirs, ours = checkpoints.pair(DENSE, name)

    agree(ours.encode_query(texts), theirs.encode_query(texts))
    agree(ours.encode_document(texts), theirs.encode_document(texts))
    agree(ours.encode(texts, task="query"), theirs.encode(texts, task="query"))
    assert not np.allclose(ours.encode_query(texts), ours.encode_document(texts), atol=1e-2)


def test_a_router_falls_back_on_its_default_route(checkpoints, texts, agree):
    """Without a task the default route runs; a router without one refuses, and refuses a task it does not know."""
    theirs, ours = checkpoints.pair(DENSE, "router")
    _, strict = checkpoints.pair(DENSE, "router-shared")

    agree(ours.encode(texts[:4]), theirs.encode(texts[:4]))
    with pytest.raises(ValueError, match=r"route|task"):
        strict.encode(texts[:4])
    with pytest.raises(ValueError, match=r"route|task"):
        strict.encode(texts[:4], task="summary")


@across([*TRANSFORMERS, *STATIC, *WORDS, "words-cnn"])
def test_a_text_alone_equals_the_text_in_a_batch(checkpoints, texts, agree, name):
    """The composition of a batch, its size and the order of its texts change nothing beyond float noise."""
    _, ours = checkpoints.pair(DENSE, name)
    together = ours.encode(texts)

    agree(np.stack([ours.encode(text) for text in texts]), together)
    agree(ours.encode(texts[::-1])[::-1], together)
    agree(ours.encode(texts, batch_size=2), together)
    agree(ours.encode(texts * 3)[len(texts) : 2 * len(texts)], together)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"prompt_name": "clustering"},
        {"prompt": "search_query: "},
        {"prompt": "search_query: ", "prompt_name": "clustering"},
        {"prompt": ""},
        {"prompt_name": "query", "normalize_embeddings": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("method", ["encode", "encode_query", "encode_document"])
@pytest.mark.parametrize("name", ["bert-mean", "mpnet-max", "bert-no-prompt"])
def test_the_same_prompt_wins(checkpoints, texts, agree, name, method, options):
    """A prompt beats a prompt's name, which beats the role's prompt, which beats the default (mpnet-max has one)."""
    theirs, ours = checkpoints.pair(DENSE, name)

    agree(getattr(ours, method)(texts[:9], **options), getattr(theirs, method)(texts[:9], **options))


@pytest.mark.parametrize(
    "options",
    [
        {"prompts": {"query": "mine: "}},
        {"prompts": {"query": "", "document": None}},
        {"prompts": {"passage": "p: ", "corpus": "c: ", "document": "d: "}},
        {"prompts": {"other": "o: "}, "default_prompt_name": "other"},
        {"default_prompt_name": "clustering"},
    ],
    ids=str,
)
def test_prompts_of_the_constructor_beat_the_saved_ones(checkpoints, texts, agree, options):
    """An empty prompt counts as given, None is filled from the checkpoint, names not given stay."""
    theirs, ours = checkpoints.pair(DENSE, "bert-mean", **options)

    assert ours.prompts == theirs.prompts
    assert ours.default_prompt_name == theirs.default_prompt_name
    for method in ("encode", "encode_query", "encode_document"):
        agree(getattr(ours, method)(texts[:5]), getattr(theirs, method)(texts[:5]))


@pytest.mark.parametrize("prompts", [{"passage": "p: ", "corpus": "c: "}, {"corpus": "c: "}, {}], ids=str)
def test_documents_take_the_first_prompt_there_is(checkpoints, texts, agree, prompts):
    """A checkpoint without prompts of its own: document, then passage, then corpus."""
    theirs, ours = checkpoints.pair(DENSE, "plain-bert", prompts=prompts)

    agree(ours.encode_document(texts[:5]), theirs.encode_document(texts[:5]))


def test_an_unknown_prompt_name_is_refused(checkpoints):
    """The message names what there is."""
    _, ours = checkpoints.pair(DENSE, "bert-mean")

    with pytest.raises(ValueError, match="clustering"):
        ours.encode("text", prompt_name="clusterin")
    with pytest.raises(ValueError, match="clustering"):
        st_core.SentenceTransformer(str(checkpoints.folder("bert-mean")), default_prompt_name="clusterin")


def test_pooling_can_leave_the_prompt_out(checkpoints, texts, agree):
    """set_pooling_include_prompt(False) drops the prompt's tokens from the mean."""
    folder = str(checkpoints.folder("bert-mean"))
    theirs, ours = (engine.SentenceTransformer(folder, device="cpu") for engine in (oracle, st_core))
    with_prompt = ours.encode(texts, prompt="Group these: ")

    theirs.set_pooling_include_prompt(False)
    ours.set_pooling_include_prompt(False)

    agree(ours.encode(texts, prompt="Group these: "), theirs.encode(texts, prompt="Group these: "))
    assert not np.allclose(ours.encode(texts, prompt="Group these: "), with_prompt, atol=1e-2)


@pytest.mark.parametrize("options", [{"truncate_dim": 7}, {"truncate_dim": 7, "normalize_embeddings": True}], ids=str)
@pytest.mark.parametrize("name", ["bert-mean", "mpnet-max", "static"])
def test_truncated_vectors_agree(checkpoints, texts, agree, name, options):
    """A vector is cut after the model's own normalisation and made unit again only if asked."""
    theirs, ours = checkpoints.pair(DENSE, name)

    agree(ours.encode(texts[:9], **options), theirs.encode(texts[:9], **options))


def test_truncation_can_be_set_for_the_model_and_for_a_while(checkpoints, texts, agree):
    """The constructor's width, the saved one, and the context manager's; the dimension follows."""
    theirs, ours = checkpoints.pair(DENSE, "bert-mean", truncate_dim=12)

    agree(ours.encode(texts[:5]), theirs.encode(texts[:5]))
    assert ours.get_embedding_dimension() == theirs.get_embedding_dimension() == 12
    with ours.truncate_embeddings(5), theirs.truncate_embeddings(5):
        agree(ours.encode(texts[:5]), theirs.encode(texts[:5]))
        assert ours.get_embedding_dimension() == 5
    assert ours.truncate_dim == 12


@across([*KINDS, *ROUTED])
def test_dimension_length_and_similarity_are_read_from_the_checkpoint(checkpoints, name):
    """What a model says of itself."""
    theirs, ours = checkpoints.pair(DENSE, name)

    assert ours.get_embedding_dimension() == theirs.get_embedding_dimension()
    assert ours.get_sentence_embedding_dimension() == theirs.get_embedding_dimension()
    assert ours.max_seq_length == theirs.max_seq_length
    assert ours.similarity_fn_name == theirs.similarity_fn_name
    assert ours.prompts == theirs.prompts
    assert str(ours.device) == "cpu"


@pytest.mark.parametrize("precision", ["binary", "ubinary"])
def test_bits_are_those_of_the_signs(checkpoints, texts, precision):
    """Binary precisions need no ranges, so they are equal bit for bit where no value is within noise of zero."""
    theirs, ours = checkpoints.pair(DENSE, "bert-mean")
    safe = np.abs(theirs.encode(texts)).min(axis=1) > 1e-6

    mine, wanted = ours.encode(texts, precision=precision), theirs.encode(texts, precision=precision)

    assert mine.dtype == wanted.dtype
    np.testing.assert_array_equal(mine[safe], wanted[safe])
    assert safe.sum() > len(texts) // 2


@pytest.mark.parametrize("precision", ["int8", "uint8"])
def test_bytes_follow_the_calibration_and_not_the_call(checkpoints, texts, precision):
    """With the ranges of one calibration a single text gives the bytes it has in a batch.

    Without any the call is refused.
    """
    folder = str(checkpoints.folder("bert-mean"))
    ours = st_core.SentenceTransformer(folder, device="cpu")
    with pytest.raises(ValueError, match="calibrat"):
        ours.encode(texts, precision=precision)

    ours.calibrate(texts)
    together = ours.encode(texts, precision=precision)

    wanted = oracle.quantize_embeddings(ours.encode(texts), precision, ranges=ours.quantization_ranges)
    np.testing.assert_array_equal(together, wanted)
    alone = ours.encode(texts[0], precision=precision)
    assert np.abs(alone.astype(int) - together[0].astype(int)).max() <= 1


@pytest.mark.parametrize("name", ["bert-mean", "roberta-six", "bert-token-dense"])
def test_token_vectors_agree(checkpoints, texts, agree, name):
    """output_value="token_embeddings" gives one matrix per text, without padding."""
    theirs, ours = checkpoints.pair(DENSE, name)

    mine = ours.encode(texts, output_value="token_embeddings")
    wanted = theirs.encode(texts, output_value="token_embeddings")

    assert len(mine) == len(wanted)
    for ours_row, theirs_row in zip(mine, wanted, strict=True):
        agree(ours_row, theirs_row)


def test_all_features_agree(checkpoints, texts, agree):
    """output_value=None gives each text's features: ids, mask, token vectors, vector."""
    theirs, ours = checkpoints.pair(DENSE, "bert-mean")

    mine = ours.encode(texts, output_value=None, prompt_name="query")
    wanted = theirs.encode(texts, output_value=None, prompt_name="query")

    for got, expected in zip(mine, wanted, strict=True):
        real = expected["attention_mask"].bool()
        assert got["input_ids"].tolist() == expected["input_ids"][real].tolist()
        agree(got["token_embeddings"], expected["token_embeddings"][real])
        agree(got["sentence_embedding"], expected["sentence_embedding"])
        assert int(got["prompt_length"]) == int(expected["prompt_length"])


@pytest.mark.parametrize("length", sweep([3, 10, 64], [10]))
@pytest.mark.parametrize("name", ["bert-mean", "roberta-six"])
def test_a_maximum_length_set_later_holds(checkpoints, texts, agree, name, length):
    """By the property, and for one call by processing_kwargs."""
    folder = str(checkpoints.folder(name))
    theirs, ours = (engine.SentenceTransformer(folder, device="cpu") for engine in (oracle, st_core))
    cut = {"processing_kwargs": {"text": {"max_length": length}}}
    for_a_call = ours.encode(texts, **cut), theirs.encode(texts, **cut)

    theirs.max_seq_length = ours.max_seq_length = length

    agree(*for_a_call)
    agree(ours.encode(texts), theirs.encode(texts))
    assert ours.max_seq_length == length


def test_a_maximum_length_of_the_processor_holds(checkpoints, texts, agree):
    """processor_kwargs, and their old name tokenizer_kwargs, reach the tokenizer."""
    theirs, ours = checkpoints.pair(DENSE, "bert-mean", processor_kwargs={"model_max_length": 9})

    assert ours.max_seq_length == theirs.max_seq_length == 9
    agree(ours.encode(texts), theirs.encode(texts))


@pytest.mark.parametrize("function", ["cosine", "dot", "euclidean", "manhattan", None])
def test_similarities_agree(checkpoints, texts, agree, function):
    """Every similarity as a matrix and in pairs, as a tensor; None is cosine."""
    theirs, ours = checkpoints.pair(DENSE, "distilbert-cls", similarity_fn_name=function)
    some = [text for text in texts if text.strip()][:8]
    mine, wanted = ours.encode(some), theirs.encode(some)

    matrix, pairs = ours.similarity(mine, mine[:5]), ours.similarity_pairwise(mine[:4], mine[4:8])

    assert isinstance(matrix, torch.Tensor)
    agree(matrix, theirs.similarity(wanted, wanted[:5]), 2e-5)
    agree(pairs, theirs.similarity_pairwise(wanted[:4], wanted[4:8]), 2e-5)


def test_the_form_of_the_result_follows_the_form_of_the_input(checkpoints, texts, agree):
    """One text gives one vector; lists, tuples and arrays of texts give a batch, an empty one an empty array.

    Tensors on request.
    """
    theirs, ours = checkpoints.pair(DENSE, "bert-mean")

    for inputs in (texts[0], [texts[0]], tuple(texts[:3]), np.array(texts[:3]), []):
        mine, wanted = ours.encode(inputs), theirs.encode(inputs)
        assert type(mine) is type(wanted)
        assert mine.dtype == wanted.dtype or not len(inputs)
        agree(mine, wanted)
        tensor = ours.encode(inputs, convert_to_tensor=True)
        assert isinstance(tensor, torch.Tensor)
        agree(tensor, theirs.encode(inputs, convert_to_tensor=True))
    for precision in ("float32", "binary", "ubinary"):
        empty, wanted = (each.encode([], precision=precision, convert_to_tensor=True) for each in (ours, theirs))
        assert (empty.dtype, empty.shape) == (wanted.dtype, wanted.shape)
    listed = ours.encode(texts[:3], convert_to_numpy=False)
    assert [type(row) for row in listed] == [torch.Tensor] * 3
    with pytest.warns(DeprecationWarning, match="sentences"):
        agree(ours.encode(sentences=texts[:3]), theirs.encode(texts[:3]))


@pytest.mark.parametrize("inputs", [None, [None], ["text", None], 3, [1.5]], ids=repr)
def test_what_is_no_text_is_refused(checkpoints, inputs):
    """None and numbers are errors, not texts."""
    _, ours = checkpoints.pair(DENSE, "bert-mean")

    with pytest.raises((ValueError, TypeError)):
        ours.encode(inputs)


@pytest.mark.parametrize("options", [{"nonsense": 1}, {"precision": "int4"}, {"output_value": "pooled"}], ids=str)
def test_unknown_arguments_are_refused(checkpoints, options):
    """As sentence-transformers does, with a ValueError that names the argument."""
    _, ours = checkpoints.pair(DENSE, "bert-mean")

    with pytest.raises(
        ValueError, match=str(next(iter(options.values()))) if "nonsense" not in options else "nonsense"
    ):
        ours.encode(["text"], **options)


@pytest.mark.parametrize("name", ["bert-mean", "static"])
def test_a_stream_gives_the_vectors_of_the_list(checkpoints, texts, agree, name):
    """encode_iter reads any iterable, window by window, and keeps its order."""
    _, ours = checkpoints.pair(DENSE, name)

    streamed = list(ours.encode_iter(iter(texts), window=5, prompt_name="query"))

    agree(np.stack(streamed), ours.encode(texts, prompt_name="query"))


def test_half_precision_weights_are_computed_in_float32(checkpoints, texts, agree, tmp_path):
    """Half-precision checkpoints run in float32 on the CPU and equal sentence-transformers in float32."""
    folder = tmp_path / "half"
    oracle.SentenceTransformer(str(checkpoints.folder("bert-mean")), device="cpu").half().save(str(folder))
    exact = oracle.SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": torch.float32})

    agree(st_core.SentenceTransformer(str(folder), device="cpu").encode(texts), exact.encode(texts))


def test_a_sparse_checkpoint_loads_as_a_dense_model(checkpoints, texts, agree):
    """A folder of another family gets the default stack: the transformer and a mean."""
    theirs, ours = checkpoints.pair(DENSE, "splade-sum")

    agree(ours.encode(texts), theirs.encode(texts))


@pytest.mark.parametrize("name", ["distilbert-cls", "bge-m3"])
def test_cls_pooling_computes_the_last_layer_for_the_first_token_alone(checkpoints, texts, agree, name):
    """Vectors equal those of the whole layer and the oracle's; token states are still available."""
    theirs, ours = checkpoints.pair(DENSE, name)
    runner = ours._engine.runner(None)
    few = [text for text in texts if len(text) < 1000]
    tokens = ours.prepare(few).tokens
    assert runner.program().pooled_steps

    whole, cut = runner.run(tokens), runner.run(tokens, RunOptions(pooled=True))

    assert cut["token_embeddings"].shape[1] == 1 < whole["token_embeddings"].shape[1]
    agree(cut["sentence_embedding"], whole["sentence_embedding"])
    agree(ours.encode(few), theirs.encode(few))
    agree(ours.encode(few, prompt="Group: "), theirs.encode(few, prompt="Group: "))
    for mine, wanted in zip(
        ours.encode(few, output_value="token_embeddings"),
        theirs.encode(few, output_value="token_embeddings"),
        strict=True,
    ):
        agree(mine, wanted)


@pytest.mark.parametrize("name", ["roberta-six", "bert-no-prompt", "modernbert-cls"])
def test_other_models_compute_every_token(checkpoints, name):
    """Other poolings read more; a prompt that is left out moves the first token.

    A family without our own pass has nothing to cut.
    """
    assert not checkpoints.load(st_core, DENSE, name)._engine.runner(None).program().pooled_steps
