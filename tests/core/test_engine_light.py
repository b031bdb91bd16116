"""What runs without torch, and what the engine does not do to the process."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from threading import Thread

import numpy as np
import pytest

from st_core import SentenceTransformer, SparseEncoder, SparseMatrix, SparseVector
from st_core.install import install_command

TEXTS = [
    "copy a directory tree",
    "",
    "parse a date string",
    "  ",
    "remove a folder and everything in it",
    "café 日本語 🙂",
]
HEAVY = ("torch", "transformers", "scipy", "huggingface_hub", "rich", "qdrant_client")


def run(code):
    """What a fresh process prints, as JSON."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def dense():
    return SentenceTransformer("builtin:dense")


@pytest.fixture(scope="module")
def sparse():
    return SparseEncoder("builtin:sparse")


def test_the_import_alone_loads_little():
    """``import st_core`` imports neither numpy nor modules that only the use of it needs."""
    late = ["numpy", "importlib.abc", "importlib.resources", "tempfile", "zipfile", "subprocess", "asyncio"]
    loaded = run(
        "import sys\nbefore = set(sys.modules)\nimport st_core\nloaded = set(sys.modules) - before\n"
        f"import json\nprint(json.dumps([name for name in {late!r} if name in loaded]))"
    )
    assert loaded == []


def test_builtin_models_load_nothing_heavy():
    """Loading and running both built-in models imports neither torch nor any other large library."""
    loaded = run(
        "import sys, json, st_core\n"
        "st_core.SentenceTransformer('builtin:dense').encode(['a text'])\n"
        "st_core.SparseEncoder('builtin:sparse').encode_query(['a text'])\n"
        f"print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    )

    assert loaded == []


def test_importing_changes_nothing_in_the_process():
    """No environment variable, no logging set-up and no warning filter is touched by importing and loading."""
    changed = run(
        "import json, logging, os, warnings\n"
        "def state(): return [dict(os.environ), len(logging.getLogger().handlers), logging.getLogger().level, "
        "len(warnings.filters)]\n"
        "import numpy; before = state()\n"
        "import st_core; st_core.SentenceTransformer('builtin:dense').encode(['a'])\n"
        "print(json.dumps(before != state()))"
    )

    assert changed is False


def test_order_and_batches_do_not_matter(dense, sparse):
    """A text has one vector, wherever it stands and whatever it stands beside."""
    whole, weights = dense.encode(TEXTS), sparse.encode(TEXTS)
    back = list(reversed(TEXTS))

    assert np.allclose(dense.encode(back, batch_size=2)[::-1], whole, atol=1e-6)
    assert [row.to_mapping() for row in sparse.encode(back, batch_size=1)] == [
        row.to_mapping() for row in reversed(list(weights))
    ]
    for text, row in zip(TEXTS, whole, strict=True):
        assert np.allclose(dense.encode(text), row, atol=1e-6)


def test_a_stream_gives_what_a_list_gives(dense, sparse):
    """Texts of a stream are encoded in order and no more of them are read than a window holds."""
    read = []

    def stream():
        for text in TEXTS:
            read.append(text)
            yield text

    found = dense.encode_iter(stream(), window=2)
    first = next(found)

    assert len(read) == 2
    assert np.allclose([first, *found], dense.encode(TEXTS), atol=1e-6)
    assert list(sparse.encode_iter(iter(TEXTS), window=4)) == list(sparse.encode(TEXTS))


def test_shapes_of_nothing_and_of_one(dense, sparse):
    """An empty list, one text, and a list of one."""
    assert dense.encode([]).shape == (0,)
    assert dense.encode("a text").shape == (dense.get_embedding_dimension(),)
    assert dense.encode(["a text"]).shape == (1, dense.get_embedding_dimension())
    assert sparse.encode([]).shape == (0, sparse.get_embedding_dimension())
    assert isinstance(sparse.encode("a text"), SparseVector)
    assert isinstance(sparse.encode(["a text"]), SparseMatrix)


def test_the_old_name_of_inputs_is_taken(dense):
    """``sentences=`` means ``inputs=``, and both together are a mistake."""
    with pytest.warns(DeprecationWarning, match="sentences is now named inputs"):
        assert np.array_equal(dense.encode(sentences=["a text"]), dense.encode(["a text"]))
    with pytest.raises(TypeError):
        dense.encode(["a text"], sentences=["a text"])
    with pytest.raises(TypeError):
        dense.encode()


@pytest.mark.parametrize("method", ["encode_query", "encode_document"])
@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_the_old_name_of_inputs_reaches_encode_as_inputs(request, monkeypatch, kind, method):
    """A subclass that replaces ``encode`` sees the new name, however a role's method was called."""
    model, calls = request.getfixturevalue(kind), []
    monkeypatch.setattr(model, "encode", lambda **arguments: calls.append(arguments))

    with pytest.warns(DeprecationWarning, match="sentences is now named inputs"):
        getattr(model, method)(sentences=["a text"], prompt="find: ")

    (arguments,) = calls
    assert arguments["inputs"] == ["a text"]
    assert "sentences" not in arguments
    assert (arguments["prompt"], arguments["prompt_name"]) == ("find: ", None)
    assert arguments["task"] == method.removeprefix("encode_")


def test_truncation_comes_before_normalising(dense):
    """A cut vector is brought to length one only if asked."""
    whole = dense.encode(TEXTS)
    cut = dense.encode(TEXTS, truncate_dim=8)
    unit = dense.encode(TEXTS, truncate_dim=8, normalize_embeddings=True)

    assert np.allclose(cut, whole[:, :8])
    assert np.allclose(unit * np.linalg.norm(cut, axis=1, keepdims=True), cut, atol=1e-6)


def test_truncate_embeddings_holds_in_its_thread_alone(dense):
    """Another thread does not see the width of a block it is not in."""
    seen = []
    with dense.truncate_embeddings(8):
        other = Thread(target=lambda: seen.append(dense.encode("a text").shape))
        other.start()
        other.join()
        assert dense.encode("a text").shape == (8,)
        assert dense.get_embedding_dimension() == 8

    assert seen == [(dense.get_embedding_dimension(),)]


def test_int8_uses_ranges_that_stay(dense):
    """After calibration a text has the same bytes alone and in company."""
    model = SentenceTransformer("builtin:dense")
    model.calibrate(TEXTS * 3)

    together = model.encode(TEXTS, precision="int8")

    assert together.dtype == np.int8
    assert np.array_equal(model.encode([TEXTS[2]], precision="int8")[0], together[2])


def test_sparse_helpers_agree_with_the_dense_arithmetic(sparse):
    """decode, sparsity and intersection say what the dense array says."""
    matrix = sparse.encode_document(TEXTS)
    query = sparse.encode_query("copy the directory tree of a date")
    wide = matrix.to_dense()

    shared = sparse.intersection(query, matrix)
    statistics = sparse.sparsity(matrix)
    tokens = sparse.decode(matrix[0], top_k=3)

    mask = np.zeros(wide.shape[1], np.float32)
    mask[query.indices] = query.values
    assert np.allclose(shared.to_dense(), wide * mask)
    assert statistics["active_dims"] == pytest.approx((wide > 0).sum(axis=1).mean())
    assert statistics["sparsity_ratio"] == pytest.approx((wide == 0).mean())
    assert [weight for _, weight in tokens] == sorted(wide[0].tolist(), reverse=True)[:3]
    assert {token for token, _ in tokens} <= {"copy", "directory", "tree", "a"}


def test_sparse_helpers_are_functions_of_the_class_too(sparse):
    """The quickstart asks the class for the sparsity; what only the model knows is asked of the model."""
    matrix = sparse.encode_document(TEXTS)
    query = sparse.encode_query("copy the directory tree of a date")

    assert SparseEncoder.sparsity(matrix) == sparse.sparsity(matrix)
    assert SparseEncoder.intersection(query, matrix) == sparse.intersection(query, matrix)
    assert sparse.sparsity(query)["sparsity_ratio"] == pytest.approx(1 - len(query) / matrix.shape[1])
    with pytest.raises(TypeError, match="call sparsity on the model"):
        SparseEncoder.sparsity(query)
    with pytest.raises(ValueError, match="do not intersect"):
        SparseEncoder.intersection(query, SparseMatrix.from_dense(np.ones((1, 3))))


def test_arguments_of_queries_and_documents_stand_in_the_order_of_encode(dense, sparse):
    """Whatever encode takes by position, encode_query and encode_document take at the same place."""
    for method in (dense.encode_query, dense.encode_document):
        tokens = method(TEXTS[:1], None, None, 4, False, "sentence_embedding", "float32", True, False, None, True, 8)
        assert tokens.shape == (1, 8)
        assert np.linalg.norm(tokens) == pytest.approx(1)
    assert sparse.encode_document(TEXTS, None, None, 4, False, False, True, False, None, 2) == sparse.encode_document(
        TEXTS, max_active_dims=2
    )


def test_a_stream_that_would_lose_texts_is_refused(dense, sparse):
    """An empty window, and a text that would be read letter by letter, are mistakes that are told at once."""
    for model in (dense, sparse):
        with pytest.raises(ValueError, match="window"):
            model.encode_iter(TEXTS, window=0)
        with pytest.raises(TypeError, match="list"):
            model.encode_iter("a text")


def test_max_active_dims_keeps_the_heaviest(sparse):
    """Each text keeps at most so many weights, and those are its heaviest."""
    whole = sparse.encode_document(TEXTS)

    assert list(sparse.encode_document(TEXTS, max_active_dims=2)) == [row.top(2) for row in whole]
    with pytest.raises(ValueError, match="max_active_dims"):
        sparse.encode(TEXTS, max_active_dims=0)


def test_unknown_tasks_are_refused(sparse):
    """A router says which routes it has."""
    with pytest.raises(ValueError, match="query"):
        sparse.encode("a text", task="translation")


def test_a_transformer_names_the_missing_extra(tmp_path, monkeypatch):
    """Without torch, a transformer checkpoint gives the exact install command."""
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "bert", "architectures": ["BertModel"], "hidden_size": 8})
    )
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "st_core.backends.torch.backend", raising=False)
    monkeypatch.delitem(sys.modules, "st_core.backends.torch.library", raising=False)

    with pytest.raises(ImportError, match=re.escape(install_command("torch"))):
        SentenceTransformer(tmp_path)


@pytest.mark.parametrize(
    "inputs",
    [{"title": "a text"}, {"a text"}, b"a text", None, 3, [b"a text"], [{"title": "a"}], [["a"]], [3.5]],
    ids=repr,
)
def test_what_is_no_list_of_texts_is_refused(dense, sparse, inputs):
    """A mapping is not read as the list of its keys, nor a set in some order of its own."""
    for model in (dense, sparse):
        with pytest.raises(ValueError, match="expected"):
            model.encode(inputs)


def test_whatever_holds_texts_in_order_is_taken(dense):
    """Tuples, generators, arrays of texts and a text in an array of no dimension."""
    wanted = dense.encode(["a text", "another"])

    for inputs in (
        ("a text", "another"),
        (text for text in ("a text", "another")),
        np.array(["a text", "another"]),
        np.array(["a text", "another"], object),
    ):
        assert np.array_equal(dense.encode(inputs), wanted)
    assert np.array_equal(dense.encode(np.array("a text")), wanted[0])
    assert np.array_equal(dense.encode(np.str_("a text")), wanted[0])


def test_halves_of_surrogate_pairs_spoil_no_batch(dense, sparse):
    """A lone half is read as the replacement character; two halves in a row are the character they make."""
    inputs = ["a text", "half \ud800 here", "smile \ud83d\ude42"]
    meant = ["a text", "half \ufffd here", "smile 🙂"]

    assert np.array_equal(dense.encode(inputs), dense.encode(meant))
    assert sparse.encode(inputs) == sparse.encode(meant)


@pytest.mark.parametrize("value", [0, -1, "8", 3.5])
def test_lengths_and_widths_are_positive_numbers(dense, value):
    """A length that is none is refused when it is set, a width when it is used."""
    with pytest.raises(ValueError, match="max_seq_length"):
        dense.max_seq_length = value
    if isinstance(value, int):
        with pytest.raises(ValueError, match="truncate_dim"):
            dense.encode(["a text"], truncate_dim=value)


def test_what_constructors_take_is_known():
    """An argument nobody takes is refused by its name; both names of one argument are too many."""
    with pytest.raises(TypeError, match="colour"):
        SentenceTransformer("builtin:dense", colour="red")
    with pytest.raises(ValueError, match="tokenizer_kwargs"):
        SparseEncoder("builtin:sparse", processor_kwargs={"a": 1}, tokenizer_kwargs={"a": 1})


def test_windows_of_inputs_give_what_one_gives(dense, sparse, monkeypatch):
    """Several windows give the vectors of one, in order; an error in a later window is raised."""
    many = [f"{text} {number}" for number in range(5) for text in TEXTS]
    wanted, wanted_sparse = dense.encode(many), sparse.encode_document(many)
    monkeypatch.setattr("st_core.engine.engine.WINDOW", 7)

    assert np.array_equal(dense.encode(many), wanted)
    assert sparse.encode_document(many) == wanted_sparse
    assert np.array_equal(sparse.encode_query([many[3]]).to_dense(), sparse.encode_query(many).to_dense()[3:4])
    monkeypatch.setattr(
        dense._engine, "tokenize", lambda inputs, _call: (_ for _ in ()).throw(ZeroDivisionError(inputs[0]))
    )
    with pytest.raises(ZeroDivisionError):
        dense.encode(many)


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_static_models_need_no_runtime(monkeypatch, backend):
    """Whatever backend is named, they run on numpy, routers of static routes too."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setitem(sys.modules, "openvino", None)
    plain, said = SparseEncoder("builtin:sparse"), SparseEncoder("builtin:sparse", backend=backend, dtype="int8")
    vectors = SentenceTransformer("builtin:dense", backend=backend, dtype="int8").encode(TEXTS)

    np.testing.assert_array_equal(vectors, SentenceTransformer("builtin:dense").encode(TEXTS))
    for method in ("encode_query", "encode_document"):
        np.testing.assert_array_equal(getattr(said, method)(TEXTS).to_dense(), getattr(plain, method)(TEXTS).to_dense())


@pytest.mark.parametrize(
    ("backend", "dtype"),
    [("torch", "flaot32"), ("torch", "int8"), ("onnx", "int4"), ("openvino", "float64"), ("auto", "int8")],
)
def test_a_type_that_a_backend_does_not_know_is_refused_of_static_models_too(backend, dtype):
    """A slip is told, not passed over because numpy computes in float32 anyway."""
    with pytest.raises(ValueError, match=dtype):
        SentenceTransformer("builtin:dense", backend=backend, dtype=dtype)
