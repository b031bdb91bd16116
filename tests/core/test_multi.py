"""Dense, sparse and multi-vector results of one pass equal a plain computation from the states."""

from __future__ import annotations

import pickle
import shutil

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("sentence_transformers", reason="the checkpoints are made with it")

import st_core  # noqa: E402 -- after the guard
from st_core.backends.graph.repository import DEFAULTS  # noqa: E402 -- after the guard

pytestmark = [pytest.mark.torch, pytest.mark.long]


@pytest.fixture(scope="module")
def model(checkpoints):
    return st_core.SentenceTransformer(str(checkpoints.folder("bge-m3")), device="cpu")


@pytest.fixture(scope="module")
def plainly(checkpoints):
    """The three results of one text, written down as the paper says: no batch, no padding."""
    import transformers

    folder = checkpoints.folder("bge-m3")
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder))
    states_of = transformers.AutoModel.from_pretrained(str(folder)).eval()
    sparse, colbert = (torch.load(folder / f"{name}_linear.pt", weights_only=True) for name in ("sparse", "colbert"))

    def compute(text):
        tokens = tokenizer(text, truncation=True, return_tensors="pt")
        with torch.no_grad():
            states = states_of(**tokens).last_hidden_state[0]
        ids = tokens["input_ids"][0].tolist()
        weights = {}
        for token, state in zip(ids, states, strict=True):
            weight = max(0.0, float(sparse["weight"][0] @ state + sparse["bias"][0]))
            if token not in (0, 1, 2, 3):  # <s> <pad> </s> <unk>
                weights[token] = max(weight, weights.get(token, 0.0))
        vectors = [colbert["weight"] @ state + colbert["bias"] for state in states[1:]]
        dense = states[0] / states[0].norm()
        return dense.numpy(), weights, np.array([(vector / vector.norm()).numpy() for vector in vectors])

    return compute


def test_all_three_results_agree_with_the_plain_computation(model, plainly, texts, agree):
    """Every text, among others of any length; the dense vectors are those of encode."""
    some = [text for text in texts if len(text) < 1000]

    found = model.encode_multi(some, outputs=("dense", "sparse", "multi_vector"))

    wanted = [plainly(text) for text in some]
    agree(found.dense, [dense for dense, _, _ in wanted])
    agree(found.dense, model.encode(some))
    lexical = np.zeros(found.sparse.shape)
    for row, (_, weights, _) in enumerate(wanted):
        lexical[row, list(weights)] = list(weights.values())
    agree(found.sparse, lexical)
    assert lexical.any(axis=1).sum() > len(some) / 2
    for mine, (_, _, vectors) in zip(found.multi_vector, wanted, strict=True):
        agree(mine, vectors)


def test_only_what_is_asked_for_is_computed(model, texts, agree):
    """Dense and sparse by default; a prompt, a role and a batch size hold as for encode."""
    options = {"prompt_name": "query", "batch_size": 2}

    found = model.encode_multi(texts, **options)

    assert found.multi_vector is None
    agree(found.dense, model.encode(texts, **options))
    only = model.encode_multi(texts, outputs=["sparse"], **options)
    assert only.dense is None
    agree(only.sparse, found.sparse)
    assert len(model.encode_multi([]).sparse) == 0


def test_the_heads_are_saved_with_the_model(model, texts, tmp_path, agree):
    """save_pretrained keeps them."""
    model.save_pretrained(tmp_path / "saved")
    again = st_core.SentenceTransformer(tmp_path / "saved", device="cpu")

    agree(again.encode_multi(texts).sparse, model.encode_multi(texts).sparse, 0)


@pytest.mark.parametrize("outputs", ["dense", [], ["tokens"], ("dense", "lexical")], ids=str)
def test_unknown_outputs_are_refused(model, outputs):
    """The message lists those there are."""
    with pytest.raises(ValueError, match="dense, sparse, multi_vector"):
        model.encode_multi(["a"], outputs=outputs)


def test_a_model_without_heads_is_refused(checkpoints):
    """The message names the file that is missing, or the module that has no states."""
    for name, told in (("bert-mean", r"sparse_linear\.pt"), ("static", "StaticEmbedding")):
        _, plain = checkpoints.pair("SentenceTransformer", name)

        with pytest.raises(st_core.ModelUnsupported, match=told):
            plain.encode_multi(["a"])


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
@pytest.mark.parametrize("given", [False, True], ids=["own graph", "graph of a repository"])
def test_graphs_give_dense_results_alone(exports, model, texts, agree, backend, given):
    """Those of encode; for the others the message says what to load."""
    pytest.importorskip({"onnx": "onnxruntime"}.get(backend, backend), reason=f"needs {backend}")
    folder = exports.given("bge-m3", backend) if given else exports.folder("bge-m3", backend)
    options = {"model_kwargs": {"file_name": DEFAULTS[backend]}} if given else {}
    graph = st_core.SentenceTransformer(folder, backend=backend, **options)

    agree(graph.encode_multi(texts, outputs=["dense"]).dense, model.encode(texts))
    with pytest.raises(
        st_core.ModelUnsupported, match=rf"sparse outputs .* runs on {backend}; load it with backend='torch'"
    ):
        graph.encode_multi(texts)


class Payload:
    """Unpickled with care left out, it would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.filterwarnings("ignore:Validating sparse tensor:UserWarning")
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"junk",
        {"weight": torch.zeros(1, 32)},
        {"weight": torch.zeros(1, 31), "bias": torch.zeros(1)},
        {"weight": torch.zeros(2, 32), "bias": torch.zeros(2)},
        {"weight": torch.zeros(1, 32), "bias": torch.zeros(3)},
        {"weight": torch.zeros(1, 32).to_sparse(), "bias": torch.zeros(1)},
        [torch.zeros(1)],
        Payload,
    ],
    ids=["empty", "junk", "no bias", "narrow", "two weights", "long bias", "sparse", "list", "code"],
)
def test_broken_heads_are_named(checkpoints, tmp_path, content):
    """The message names the file; code in it is not run."""
    folder = tmp_path / "broken"
    shutil.copytree(checkpoints.folder("bge-m3"), folder)
    path = folder / "sparse_linear.pt"
    if content is Payload:
        path.write_bytes(pickle.dumps({"weight": Payload(tmp_path / "ran")}, protocol=2))
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)

    with pytest.raises(st_core.ModelBroken, match=r"sparse_linear\.pt"):
        st_core.SentenceTransformer(folder, device="cpu").encode_multi(["a"])
    assert not (tmp_path / "ran").exists()
