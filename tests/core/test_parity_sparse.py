"""Sparse models of every kind and layout give sentence-transformers' token ids and weights."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from sweeps import sweep

torch = pytest.importorskip("torch", reason="needs torch")
oracle = pytest.importorskip("sentence_transformers", reason="needs sentence-transformers")

from st_core import SparseMatrix, SparseVector  # noqa: E402 -- after the guard
from st_core.backends.numpy.sparse import one_text, weigh_tokens  # noqa: E402
from st_core.install import install_command  # noqa: E402
from st_core.module_view import module_of  # noqa: E402

pytestmark = [
    pytest.mark.torch,
    # the oracle's own way of making tensors; torch says it once a process
    pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning"),
    pytest.mark.filterwarnings("ignore:Sparse CSR tensor support:UserWarning"),
]

SPLADE = ["splade-max", "splade-sum", "splade-roberta", "splade-mpnet", "splade-modernbert", "plain-bert-masked"]
STATIC = ["sparse-static", "idf"]
CODED = ["csr", "csr-normalized"]
KINDS = [*SPLADE, *STATIC, *CODED]
SHORT = ["splade-max", "splade-mpnet", "plain-bert-masked", *STATIC, "csr"]
"""The checkpoints that are not left to the long run."""
SPARSE = "SparseEncoder"
SCALE = 2e-5


def layouts(names):
    """Each checkpoint in today's layout, in the long run all of them and in the oldest layout too."""
    return pytest.mark.parametrize(
        "name",
        sweep([name + layout for name in names for layout in ("", "-old")], [name for name in names if name in SHORT]),
    )


@pytest.fixture
def pair(checkpoints):
    """The oracle's model and ours.

    For "idf", whose path sentence-transformers reads against the working directory, its twin.
    """

    def models(name, **options):
        theirs, ours = (
            checkpoints.load(engine, SPARSE, source, **options)
            for engine, source in ((oracle, name.replace("idf", "sparse-static")), (__import__("st_core"), name))
        )
        return theirs, ours

    return models


def ids(model, text, **options):
    """The token ids of one text as a plain list."""
    return np.asarray(model.preprocess([text], **options)["input_ids"]).ravel().tolist()


@layouts(KINDS)
def test_token_ids_are_equal(pair, texts, name):
    """Every text becomes the same tokens, cut at the same place, alone and with a prompt."""
    theirs, ours = pair(name)

    for text in texts:
        assert ids(ours, text) == ids(theirs, text), repr(text[:40])
        if len(text) < 1000:
            assert ids(ours, text, prompt="Group: ") == ids(theirs, text, prompt="Group: "), repr(text[:40])


@layouts(KINDS)
def test_weights_agree(pair, texts, agree, name):
    """A call without further wishes, and the two roles, give the same weights; each row in the normal form."""
    theirs, ours = pair(name)
    some = [text for text in texts if len(text) < 1000]

    for method, inputs in (("encode_query", texts), ("encode_document", some), ("encode", some)):
        matrix = getattr(ours, method)(inputs)
        assert isinstance(matrix, SparseMatrix)
        agree(matrix, getattr(theirs, method)(inputs), SCALE)


@layouts(["sparse-router"])
def test_routes_follow_the_task(pair, texts, agree, name):
    """Queries take the table of weights, documents the language model; the default is the document's."""
    theirs, ours = pair(name)

    for method in ("encode", "encode_query", "encode_document"):
        agree(getattr(ours, method)(texts), getattr(theirs, method)(texts), SCALE)
    assert ours.encode_query("copy a tree").indices.size < ours.encode_document("copy a tree").indices.size


@pytest.mark.parametrize("name", sweep(KINDS, SHORT))
def test_a_text_alone_equals_the_text_in_a_batch(pair, texts, agree, name):
    """The composition of a batch, its size and the order of its texts change nothing beyond float noise."""
    _, ours = pair(name)
    together = ours.encode(texts).to_dense()

    agree(np.stack([ours.encode([text]).to_dense()[0] for text in texts]), together, SCALE)
    agree(ours.encode(texts[::-1]).to_dense()[::-1], together, SCALE)
    agree(ours.encode(texts, batch_size=3), together, SCALE)


@pytest.mark.parametrize("most", [1, 7, 100000])
@pytest.mark.parametrize("name", ["splade-max", "sparse-static"])
def test_the_heaviest_weights_stay(pair, texts, agree, name, most):
    """max_active_dims keeps the largest of each text; of equal ones the lower index, which torch leaves open."""
    theirs, ours = pair(name)
    some = [text for text in texts if len(text) < 1000]

    matrix = ours.encode(some, max_active_dims=most)

    assert np.diff(matrix.indptr).max() <= most
    agree(
        np.sort(matrix.to_dense(), axis=1), np.sort(as_dense(theirs.encode(some, max_active_dims=most)), axis=1), SCALE
    )


@pytest.mark.parametrize("most", [1, 20, 80])
def test_a_code_can_be_shorter_or_longer_than_the_checkpoint_says(pair, texts, agree, most):
    """max_active_dims stands above an auto-encoder's own number of concepts; more than there are is all of them."""
    theirs, ours = pair("csr")

    assert ours.max_active_dims == theirs.max_active_dims == 8
    agree(ours.encode(texts, max_active_dims=most), theirs.encode(texts, max_active_dims=most), SCALE)
    agree(ours.encode(texts, max_active_dims=10_000), theirs.encode(texts, max_active_dims=80), SCALE)


def test_a_limit_of_the_checkpoint_and_of_the_constructor_hold(pair, texts, agree):
    """splade-sum is saved with 20; a call's own limit wins."""
    theirs, ours = pair("splade-sum")
    _, tighter = pair("splade-sum", max_active_dims=4)

    assert ours.max_active_dims == theirs.max_active_dims == 20
    agree(ours.encode(texts), theirs.encode(texts), SCALE)
    assert np.diff(tighter.encode(texts[:3]).indptr).tolist() == [4, 4, 4]
    assert np.diff(tighter.encode(texts[:3], max_active_dims=6).indptr).tolist() == [6, 6, 6]
    with pytest.raises(ValueError, match="max_active_dims"):
        ours.encode(texts, max_active_dims=0)


def as_dense(tensor):
    """A float32 array of a tensor of any layout."""
    return tensor.to_dense().cpu().numpy()


def test_the_form_of_the_result_follows_what_is_asked(pair, texts, agree):
    """A matrix, of one text a vector, of none no rows.

    A COO or a dense tensor where sentence-transformers' own form is wanted.
    """
    theirs, ours = pair("splade-max")

    assert isinstance(ours.encode(texts[0]), SparseVector)
    assert ours.encode([]).shape == (0, 700)
    sparse = ours.encode(texts[:4], convert_to_tensor=True)
    assert sparse.is_sparse
    agree(sparse, theirs.encode(texts[:4]), SCALE)
    plain = ours.encode(texts[:4], convert_to_tensor=True, convert_to_sparse_tensor=False)
    assert not plain.is_sparse
    agree(plain, theirs.encode(texts[:4], convert_to_sparse_tensor=False), SCALE)
    one = ours.encode(texts[0], convert_to_tensor=True)
    agree(one, theirs.encode(texts[0]), SCALE)


@pytest.mark.parametrize(
    "options",
    [{"prompt_name": "clustering"}, {"prompt": "p: "}, {"prompt": "", "prompt_name": "query"}],
    ids=str,
)
@pytest.mark.parametrize("method", ["encode", "encode_query", "encode_document"])
def test_the_same_prompt_wins(pair, texts, agree, method, options):
    """A prompt beats a prompt's name, which beats the role's prompt."""
    theirs, ours = pair("splade-max")

    agree(getattr(ours, method)(texts[:6], **options), getattr(theirs, method)(texts[:6], **options), SCALE)


@pytest.mark.parametrize("name", [*KINDS, "sparse-router"])
def test_dimension_length_and_similarity_are_read_from_the_checkpoint(pair, name):
    """What a model says of itself."""
    theirs, ours = pair(name)

    theirs.encode("the width of a SpladePooling is known after the first text")
    assert ours.get_embedding_dimension() == theirs.get_embedding_dimension()
    assert ours.max_seq_length == theirs.max_seq_length
    assert ours.similarity_fn_name == (theirs.similarity_fn_name or "dot")


@pytest.mark.parametrize("top_k", [None, 1, 5])
@pytest.mark.parametrize("name", ["splade-max", "splade-roberta", "sparse-router"])
def test_decoded_terms_agree(pair, texts, name, top_k):
    """Tokens as the vocabulary has them, heaviest first, for a batch and for one text."""
    theirs, ours = pair(name)
    some = [text for text in texts if len(text) < 1000]

    mine = ours.decode(ours.encode_document(some), top_k=top_k)
    wanted = theirs.decode(theirs.encode_document(some), top_k=top_k)

    for got, expected in zip(mine, wanted, strict=True):
        np.testing.assert_allclose([weight for _, weight in got], [weight for _, weight in expected], atol=SCALE)
        if top_k is None:
            assert {token for token, _ in got} == {token for token, _ in expected}
    assert (
        ours.decode(ours.encode_document(some[0]), top_k=3) == ours.decode(ours.encode_document(some[:1]), top_k=3)[0]
    )


def test_sparsity_agrees(pair, texts):
    """Mean number of weights and mean share of empty dimensions, of a batch and of one text."""
    theirs, ours = pair("splade-max")

    for inputs in (texts, texts[0]):
        mine, wanted = ours.sparsity(ours.encode(inputs)), theirs.sparsity(theirs.encode(inputs))
        assert mine == pytest.approx(wanted, rel=1e-3)


def test_intersections_agree(pair, texts, agree):
    """What two texts share, one with one and one with many."""
    theirs, ours = pair("splade-max")
    one, many = ours.encode(texts[0]), ours.encode(texts[:6])

    agree(ours.intersection(one, many), theirs.intersection(theirs.encode(texts[0]), theirs.encode(texts[:6])), SCALE)
    shared = ours.intersection(one, many[1])
    np.testing.assert_array_equal(shared.indices, np.intersect1d(one.indices, many[1].indices))


@pytest.mark.parametrize("function", ["dot", "cosine", "euclidean", "manhattan"])
def test_similarities_agree(pair, texts, agree, function):
    """Every similarity as a matrix and in pairs."""
    theirs, ours = pair("splade-roberta", similarity_fn_name=function)
    some = list(dict.fromkeys(text for text in texts if text.strip() and len(text) < 1000))
    left, right = (
        ours.encode(some[:4]),
        ours.encode(some[4:8]),
    )  # apart: of one text with itself the oracle's is 1e-3 from 0
    theirs_left, theirs_right = theirs.encode(some[:4]), theirs.encode(some[4:8])

    matrix = ours.similarity(left, right)

    assert isinstance(matrix, torch.Tensor)
    agree(matrix, theirs.similarity(theirs_left, theirs_right), SCALE)
    agree(ours.similarity_pairwise(left, right), theirs.similarity_pairwise(theirs_left, theirs_right), SCALE)


def test_a_maximum_length_for_one_call_holds(pair, texts, agree):
    """processing_kwargs reach the transformer and the table of weights."""
    for name in ("splade-max", "sparse-static"):
        theirs, ours = pair(name)
        cut = {"processing_kwargs": {"text": {"max_length": 6}}}
        if name == "splade-max":
            agree(ours.encode(texts, **cut), theirs.encode(texts, **cut), SCALE)
        assert ours.encode(texts[16], **cut).indices.size <= ours.encode(texts[16]).indices.size


def test_a_stream_gives_the_rows_of_the_list(pair, texts):
    """encode_iter reads any iterable, window by window, and keeps its order."""
    _, ours = pair("sparse-static")

    assert list(ours.encode_iter(iter(texts), window=4)) == list(ours.encode(texts).rows())


@pytest.mark.parametrize("name", ["sparse-router", "sparse-static"])
def test_one_text_alone_takes_a_shorter_way_to_the_same_vector(pair, texts, agree, name):
    """One query by a weight table equals its row in a list and the oracle's, with prompts and limits."""
    theirs, ours = pair(name)
    assert ours._engine.one_text("query") is not None

    for text in texts:
        for options in ({}, {"prompt": "Group: "}, {"max_active_dims": 2}):
            alone = ours.encode_query(text, **options)
            assert alone == ours.encode_query([text], **options)[0], repr(text[:40])
            if "max_active_dims" not in options:  # of equal weights torch leaves open which stays
                agree(
                    SparseMatrix.from_rows([alone], ours.get_embedding_dimension()),
                    as_dense(theirs.encode_query([text], **options)),
                    SCALE,
                )
            assert not alone.indices.flags.writeable
            assert not alone.values.flags.writeable
    with pytest.raises(ValueError, match="max_active_dims"):
        ours.encode_query("a text", max_active_dims=0)
    with pytest.raises(ValueError, match="unknown prompt_name"):
        ours.encode_query("a text", prompt_name="none")


def test_what_is_set_later_holds_for_one_text_alone(checkpoints):
    """A maximum length and a prompt, as they do for a list."""
    model = __import__("st_core").SparseEncoder(checkpoints.folder("sparse-static"))
    text = "copy a directory tree and remove a folder"
    whole = model.encode_query(text)

    model.max_seq_length = 3
    assert model.encode_query(text) == model.encode_query([text])[0] != whole
    model.max_seq_length = None
    model.prompts["query"] = "folder "
    assert model.encode_query(text) == model.encode_query(["folder " + text], prompt="")[0]


@pytest.mark.parametrize("none", [0.0, -1.0, np.nan, np.inf, 1e-40])
def test_terms_without_a_proper_weight_are_left_out_of_one_text_alone(checkpoints, none):
    """Zero, negative, not finite and subnormal weights, as in a list."""
    module = module_of(__import__("st_core").SparseEncoder(checkpoints.folder("sparse-static"))[0])
    text = "copy a directory tree and remove a folder"
    ids = module.tokenizer.plain([text])
    weight = module.weight.copy()
    weight[ids[0][::2]] = none
    other = replace(module, weight=weight)

    alone = one_text((other,))(text, None)

    assert alone == weigh_tokens(other, ids)[0]
    assert set(alone.indices) == set(ids[0]) - set(ids[0][::2])


WITHOUT_TORCH = """
import json, sys
if {block}:
    sys.modules["torch"] = sys.modules["transformers"] = None
from st_core import SparseEncoder
model = SparseEncoder({folder!r}, device="cpu")
found = model.encode_query("copy a tree").to_mapping(), model.encode_query(["copy a tree"])[0].to_mapping()
dimension, loaded = model.get_embedding_dimension(), "torch" in sys.modules and not {block}
try:
    model.encode_document("copy a tree")
    error = None
except ImportError as problem:
    error = str(problem)
print(json.dumps([found, dimension, loaded, error]))
"""


@pytest.mark.long
@pytest.mark.parametrize("block", [True, False])
def test_inference_free_queries_need_no_torch(checkpoints, block):
    """A process that encodes queries alone does not load it; one that cannot says so at the first document."""
    folder = str(checkpoints.folder("sparse-router"))
    code = WITHOUT_TORCH.format(block=block, folder=folder)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found, dimension, loaded, error = json.loads(done.stdout)
    ours = checkpoints.load(__import__("st_core"), SPARSE, "sparse-router")

    wanted = {str(index): weight for index, weight in ours.encode_query("copy a tree").to_mapping().items()}
    assert found == [wanted, wanted]
    assert dimension == ours.get_embedding_dimension()
    assert not loaded
    assert install_command("torch") in error if block else error is None


def test_many_threads_may_ask_for_the_first_document(checkpoints, agree):
    """The document model is loaded once, and queries go on meanwhile."""
    model = __import__("st_core").SparseEncoder(checkpoints.folder("sparse-router"), device="cpu")
    assert not model._engine._runners.keys() & {tuple(map(id, model[0].routes["document"]))}
    with ThreadPoolExecutor(8) as threads:
        documents = [threads.submit(model.encode_document, ["copy a tree"]) for _ in range(4)]
        queries = [threads.submit(model.encode_query, "copy a tree") for _ in range(50)]

    for each in documents[1:]:
        agree(each.result(), documents[0].result(), SCALE)
    assert {each.result() for each in queries} == {model.encode_query("copy a tree")}
    assert len(model._engine.factory.torch._transformers) == 1


WORDS = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "The", "cafe", "café", "Café", "CAFÉ"),
    *("cat", "##s", "北", "京", "北京", "a", "b", "c", "d"),
]
TEXTS = ["The Café cats 北京", "CAFÉ the [SEP] cafe", "a b c d", "unheard of", ""]


def static_folder(folder, settings, files):
    """A sparse static model of a small vocabulary, with these settings and tokenizer files."""
    from safetensors.numpy import save_file
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    folder.mkdir()
    module = {"type": "sentence_transformers.sparse_encoder.models.SparseStaticEmbedding", "path": "", "name": "0"}
    write = {
        "modules.json": [module | {"idx": 0}],
        "config_sentence_transformers.json": {"model_type": "SparseEncoder"},
        "config.json": {"frozen": False},
        "tokenizer_config.json": settings,
    }
    for name, value in write.items():
        (folder / name).write_text(json.dumps(value), encoding="utf-8")
    save_file({"weight": np.arange(1, len(WORDS) + 1, dtype=np.float32)}, folder / "model.safetensors")
    if "vocab.txt" in files:
        (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    if "tokenizer.json" in files:
        backend = Tokenizer(models.WordPiece({word: at for at, word in enumerate(WORDS)}, unk_token="[UNK]"))
        backend.normalizer = normalizers.BertNormalizer(lowercase=False)  # BERT's classes lower the case nevertheless
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        backend.add_special_tokens(WORDS[:5])
        backend.save(str(folder / "tokenizer.json"))
    return folder


@pytest.mark.parametrize(
    ("kind", "files"),
    [
        ("BertTokenizer", ["tokenizer.json"]),
        ("BertTokenizer", ["vocab.txt"]),
        ("DistilBertTokenizerFast", ["tokenizer.json", "vocab.txt"]),
        ("PreTrainedTokenizerFast", ["tokenizer.json"]),
    ],
)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"do_lower_case": False},
        {"do_lower_case": True, "strip_accents": False},
        {"do_lower_case": False, "strip_accents": True},
        {"tokenize_chinese_chars": False},
        {"truncation_side": "left", "model_max_length": 2},
        {"truncation_side": "right", "model_max_length": 2},
    ],
    ids=lambda settings: "-".join(settings) or "none",
)
def test_settings_of_a_static_models_tokenizer_are_theirs(tmp_path, settings, kind, files):
    """Case, accents, ideographs and the side that is cut off; a ``vocab.txt`` alone suffices for BERT's tokenizers."""
    folder = static_folder(tmp_path / "model", {"tokenizer_class": kind, "pad_token": "[PAD]", **settings}, files)
    theirs = oracle.SparseEncoder(str(folder), device="cpu").encode(TEXTS, convert_to_tensor=True).to_dense().numpy()
    model = __import__("st_core").SparseEncoder(folder)

    assert np.array_equal(model.encode(TEXTS).to_dense(), theirs)
    one_by_one = SparseMatrix.from_rows([model.encode(text) for text in TEXTS], len(WORDS))
    assert np.array_equal(one_by_one.to_dense(), theirs)
    assert theirs[:4].any(axis=1).all()
    model.save(tmp_path / "again")
    assert np.array_equal(__import__("st_core").SparseEncoder(tmp_path / "again").encode(TEXTS).to_dense(), theirs)


def test_a_static_model_without_a_tokenizer_names_the_file(tmp_path):
    """As before: neither a tokenizer file nor a vocabulary."""
    folder = static_folder(tmp_path / "model", {"tokenizer_class": "BertTokenizer"}, ())
    with pytest.raises(__import__("st_core").errors.ModelBroken, match=r"tokenizer\.json: the file is missing"):
        __import__("st_core").SparseEncoder(folder)
