"""Cross-encoders give sentence-transformers' token ids and scores, with and without modules.json."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from sweeps import sweep

torch = pytest.importorskip("torch", reason="needs torch")
oracle = pytest.importorskip("sentence_transformers", reason="needs sentence-transformers")

import st_core  # noqa: E402 -- after the guard

pytestmark = pytest.mark.torch

CAUSAL = ["rerank-causal", "rerank-template", "rerank-saved"]
SAVED = ["rerank-bert", "rerank-roberta", "rerank-short", "rerank-modernbert", "rerank-qwen2", *CAUSAL]
PLAIN = ["rerank-plain", "rerank-plain-three", "rerank-identity", "rerank-nested"]
ONE_LABEL = ["rerank-bert", "rerank-short", "rerank-plain", "rerank-identity", "rerank-nested"]
KINDS = [*SAVED, *PLAIN, *(f"{name}-old" for name in PLAIN)]
SHORT = ["rerank-bert", "rerank-roberta", "rerank-modernbert", "rerank-plain-three"]
"""The checkpoints of ``make test``; the others run in ``make test-long``."""
CROSS = "CrossEncoder"
UNRESTORED = {"processing_kwargs": {"chat_template": {"restore_suffix": False, "max_length": 30}}}
QUERY = "how do I copy a whole directory tree?"


@pytest.fixture
def pairs(texts):
    """Short and long texts on either side, and both."""
    long = texts[16]
    return [
        *((QUERY, text) for text in texts),
        *((text, "a short document") for text in texts[:8]),
        (long, "a document"),
        (
            long[:1500],
            long[:900],
        ),  # the tokenizers library keeps what it cuts off in all combinations: no longer than this
        (" ".join(["word"] * 40), " ".join(["tree"] * 31)),
        (" ".join(["word"] * 31), " ".join(["tree"] * 40)),
    ]


@pytest.mark.parametrize("name", sweep(KINDS, SHORT))
def test_token_ids_are_equal(checkpoints, pairs, name):
    """Pairs become the same tokens and segments; of two long texts the longer loses its end first."""
    theirs, ours = checkpoints.pair(CROSS, name)

    for pair in pairs:
        mine, wanted = ours.preprocess([pair]), theirs.preprocess([pair])
        for feature in ("input_ids", "token_type_ids"):
            if feature in wanted:
                assert np.asarray(mine[feature]).tolist() == np.asarray(wanted[feature]).tolist(), (
                    feature,
                    pair[0][:30],
                )


@pytest.mark.parametrize("name", sweep(KINDS, SHORT))
def test_scores_agree(checkpoints, pairs, agree, name):
    """One score per pair, or one per label."""
    theirs, ours = checkpoints.pair(CROSS, name)

    mine = ours.predict(pairs)

    assert mine.dtype == np.float32
    agree(mine, theirs.predict(pairs))


@pytest.mark.parametrize("name", sweep([*SAVED, *PLAIN], SHORT))
def test_a_pair_alone_equals_the_pair_in_a_batch(checkpoints, pairs, agree, name):
    """The composition of a batch, its size and the order of its pairs change nothing beyond float noise."""
    _, ours = checkpoints.pair(CROSS, name)
    together = ours.predict(pairs)

    agree(np.stack([ours.predict(pair) for pair in pairs]), together)
    agree(ours.predict(pairs[::-1])[::-1], together)
    agree(ours.predict(pairs, batch_size=2), together)


@pytest.mark.long
@pytest.mark.parametrize("backend", ["torch", "library", "onnx"])
@pytest.mark.parametrize("name", ["rerank-bert", "rerank-roberta"])
def test_padding_on_the_left_does_not_reach_the_head(checkpoints, tmp_path, monkeypatch, agree, name, backend):
    """A pair's score in a batch is sentence-transformers' score of the pair alone."""
    monkeypatch.setenv("ST_CONNECTORS_CACHE", str(tmp_path / "cache"))
    folder = shutil.copytree(checkpoints.folder(name), tmp_path / "left")
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | {"padding_side": "left"}), "utf-8")
    if backend == "library":
        monkeypatch.setattr("st_core.backends.torch.backend.load_known", lambda *_, **__: None)
    some = [(QUERY, "a tree"), ("a", "b"), (QUERY, "copy a directory, and all that is in it, to another place")]
    theirs = oracle.CrossEncoder(str(folder), device="cpu")

    ours = st_core.CrossEncoder(folder, device="cpu", backend="onnx" if backend == "onnx" else "torch")

    agree(ours.predict(some), np.concatenate([theirs.predict([pair]) for pair in some]))


@pytest.mark.parametrize("name", sweep([*SAVED, *PLAIN], SHORT))
def test_activation_and_labels_are_read_from_the_checkpoint(checkpoints, name):
    """The activation is the saved one, the old keys' one, else a sigmoid for one label and nothing for more."""
    theirs, ours = checkpoints.pair(CROSS, name)

    assert type(ours.activation_fn) is type(theirs.activation_fn)
    assert ours.num_labels == theirs.num_labels
    assert ours.max_length == ours.max_seq_length == theirs.max_seq_length


@pytest.mark.parametrize("activation", [torch.nn.Identity(), torch.nn.Sigmoid(), torch.nn.Tanh()], ids=repr)
@pytest.mark.parametrize("name", ["rerank-plain", "rerank-plain-three", "rerank-nested"])
def test_an_activation_can_be_given(checkpoints, pairs, agree, name, activation):
    """For a call, and in the constructor."""
    theirs, ours = checkpoints.pair(CROSS, name)
    some = pairs[:8]
    wanted = theirs.predict(some, activation_fn=activation)

    agree(ours.predict(some, activation_fn=activation), wanted)
    given = st_core.CrossEncoder(str(checkpoints.folder(name)), device="cpu", activation_fn=activation)
    agree(given.predict(some), wanted)


def test_softmax_comes_after_the_activation(checkpoints, pairs, agree):
    """apply_softmax over the labels."""
    theirs, ours = checkpoints.pair(CROSS, "rerank-roberta")
    options = {"apply_softmax": True, "activation_fn": torch.nn.Tanh()}

    mine = ours.predict(pairs, **options)

    agree(mine, theirs.predict(pairs, **options))
    np.testing.assert_allclose(mine.sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("top_k", [None, 3, 100])
@pytest.mark.parametrize("name", ONE_LABEL)
def test_rankings_agree(checkpoints, texts, name, top_k):
    """Documents by falling score, as plain floats, with their texts on request."""
    theirs, ours = checkpoints.pair(CROSS, name)
    apart = list(dict.fromkeys(text for text in texts if text.strip() and len(text) < 1000))
    scores = theirs.predict([(QUERY, text) for text in apart])
    close = np.abs(scores[:, None] - scores[None]) < 1e-5
    distinct = [text for place, text in enumerate(apart) if not close[place, :place].any()]

    mine = ours.rank(QUERY, distinct, top_k=top_k, return_documents=True)
    wanted = theirs.rank(QUERY, distinct, top_k=top_k, return_documents=True)

    assert [hit["corpus_id"] for hit in mine] == [hit["corpus_id"] for hit in wanted]
    assert [hit["text"] for hit in mine] == [hit["text"] for hit in wanted]
    np.testing.assert_allclose([hit["score"] for hit in mine], [hit["score"] for hit in wanted], atol=1e-5)
    assert {type(hit["score"]) for hit in mine} == {float}


def test_ranking_refuses_several_labels_and_takes_no_documents(checkpoints):
    """There is no order among labels; nothing gives nothing."""
    _, three = checkpoints.pair(CROSS, "rerank-plain-three")
    _, one = checkpoints.pair(CROSS, "rerank-plain")

    with pytest.raises(ValueError, match="3"):
        three.rank(QUERY, ["a", "b"])
    assert one.rank(QUERY, []) == []


def test_ranking_for_many_queries_is_ranking_for_each(checkpoints, texts):
    """Each query gets the ranking of its own documents, none where it has none; a missing list is refused."""
    _, ours = checkpoints.pair(CROSS, "rerank-bert")
    apart = [text for text in texts if text.strip()]  # blank ones are one text to the model: equal up to float noise
    queries, lists = [QUERY, "another one", "a third"], [apart[:6], [], apart[4:9]]
    rankings = ours.rank_many(queries, lists, top_k=4, return_documents=True)

    for query, listed, ranking in zip(queries, lists, rankings, strict=True):
        wanted = ours.rank(query, listed, top_k=4, return_documents=True)
        assert [hit["corpus_id"] for hit in ranking] == [hit["corpus_id"] for hit in wanted]
        np.testing.assert_allclose([hit["score"] for hit in ranking], [hit["score"] for hit in wanted], atol=1e-6)
    with pytest.raises(ValueError, match="3 queries and 2 lists"):
        ours.rank_many(queries, lists[:2])


def test_the_form_of_the_result_follows_the_form_of_the_input(checkpoints, pairs, agree):
    """One pair gives one score; lists of lists are pairs too; tensors on request; nothing gives an empty array."""
    theirs, ours = checkpoints.pair(CROSS, "rerank-bert")

    agree(ours.predict(pairs[0]), theirs.predict(pairs[0]))
    agree(ours.predict(list(pairs[0])), theirs.predict(pairs[0]))
    agree(ours.predict([list(pair) for pair in pairs]), theirs.predict(pairs))
    agree(ours.predict([]), theirs.predict([]))
    tensor = ours.predict(pairs, convert_to_tensor=True)
    assert isinstance(tensor, torch.Tensor)
    agree(tensor, theirs.predict(pairs, convert_to_tensor=True))
    listed = ours.predict(pairs[:3], convert_to_numpy=False)
    assert [type(score) for score in listed] == [torch.Tensor] * 3
    with pytest.warns(DeprecationWarning, match="sentences"):
        agree(ours.predict(sentences=pairs[:3]), theirs.predict(pairs[:3]))


@pytest.mark.parametrize("options", [{"prompt_name": "query"}, {"prompt": "find: "}, {"prompt": ""}], ids=str)
def test_a_prompt_goes_before_the_first_text(checkpoints, pairs, agree, options):
    """Of a pair only the first text gets it."""
    theirs, ours = checkpoints.pair(CROSS, "rerank-bert")

    agree(ours.predict(pairs, **options), theirs.predict(pairs, **options))


@pytest.mark.parametrize("options", [{}, {"prompt": "find: "}, {"prompt": ""}, {"task": "query"}, UNRESTORED], ids=str)
@pytest.mark.parametrize("name", sweep(["rerank-template", "rerank-saved"], ["rerank-template"]))
def test_pairs_go_through_the_chat_template(checkpoints, pairs, agree, name, options):
    """Query and document are messages of these roles, a prompt the system's; final tokens survive truncation."""
    theirs, ours = checkpoints.pair(CROSS, name)

    agree(ours.predict(pairs, **options), theirs.predict(pairs, **options))


def test_a_template_that_drops_a_side_is_refused(checkpoints, agree):
    """The scores would not depend on it; the message names the side, and another template can take its place."""
    only = "{% for message in messages if message.role == 'query' %}{{ message.content }}{% endfor %}"
    folder = str(checkpoints.folder("rerank-template"))
    options = {"device": "cpu", "processor_kwargs": {"chat_template": only}}
    theirs, ours = (engine.CrossEncoder(folder, **options) for engine in (oracle, st_core))

    with pytest.raises(st_core.ModelUnsupported, match="drops the document"):
        ours.predict(("a", "b"))
    for model in (theirs, ours):
        with pytest.raises(ValueError, match="template"):
            model.predict(("a", "b"))
        model.processor.chat_template = only.replace(" if message.role == 'query'", "")
    agree(ours.predict([("a", "b"), ("where", "there")]), theirs.predict([("a", "b"), ("where", "there")]))


def test_a_template_that_breaks_is_named(checkpoints):
    """Whatever it raises, the message is one line with the model's name."""
    broken = "{{ raise_exception('no system role') }}"
    folder = str(checkpoints.folder("rerank-template"))
    model = st_core.CrossEncoder(folder, device="cpu", processor_kwargs={"chat_template": broken})

    with pytest.raises(st_core.ModelBroken, match=r"rerank-template.*no system role"):
        model.predict(("a", "b"))


@pytest.mark.parametrize("length", [8, 9, 20])
def test_a_maximum_length_holds(checkpoints, pairs, agree, length):
    """From the constructor, and for one call."""
    theirs, ours = checkpoints.pair(CROSS, "rerank-plain", max_length=length)
    _, free = checkpoints.pair(CROSS, "rerank-plain")
    some = [pair for pair in pairs if len(pair[0]) + len(pair[1]) < 1000]
    wanted = theirs.predict(some)

    agree(ours.predict(some), wanted)
    agree(free.predict(some, processing_kwargs={"text": {"max_length": length}}), wanted)


def test_a_checkpoint_without_a_head_is_refused(checkpoints):
    """Unlike sentence-transformers, which fills in random numbers; the message says how to request a new head."""
    with pytest.raises(st_core.ModelUnsupported, match=r"classifier.*init_head=True"):
        st_core.CrossEncoder(str(checkpoints.folder("plain-bert")), device="cpu")


@pytest.mark.parametrize(
    "inputs", ["one text", ["a", "b", "c"], [("a",)], [("a", None)], None, {"a": "b"}, "ab"], ids=repr
)
def test_what_is_no_pair_is_refused(checkpoints, inputs):
    """A pair is two texts."""
    _, ours = checkpoints.pair(CROSS, "rerank-bert")

    with pytest.raises((ValueError, TypeError)):
        ours.predict(inputs)


def test_a_stream_gives_the_scores_of_the_list(checkpoints, pairs, agree):
    """Window by window, in order; two texts in a stream of pairs are two mistakes, not one pair."""
    _, ours = checkpoints.pair(CROSS, "rerank-bert")

    agree(list(ours.predict_iter(iter(pairs), window=2)), ours.predict(pairs))
    with pytest.raises(ValueError, match="contains a single text"):
        list(ours.predict_iter(["one text", "another"]))


def test_documents_may_come_from_a_generator(checkpoints):
    """Whatever gives texts in order can be ranked; a lone text is not ranked letter by letter."""
    _, ours = checkpoints.pair(CROSS, "rerank-bert")
    documents = ["a tree", "a directory", "something else"]

    assert ours.rank(QUERY, (text for text in documents), return_documents=True) == ours.rank(
        QUERY, documents, return_documents=True
    )
    with pytest.raises(ValueError, match="list"):
        ours.rank(QUERY, "a document")
