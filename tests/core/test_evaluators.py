"""Evaluators of chosen vectors and scores give the numbers of sentence-transformers', where those are well defined."""

from __future__ import annotations

import csv
import json
import logging
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="the evaluators of sentence-transformers need torch")
pytest.importorskip("sentence_transformers", reason="the metrics are compared with its evaluators")
pytest.importorskip("sklearn", reason="the evaluators of sentence-transformers need it")

import sentence_transformers.cross_encoder.evaluation as their_pairs  # noqa: E402 - after the guard
import sentence_transformers.sentence_transformer.evaluation as theirs  # noqa: E402 - after the guard
import sentence_transformers.sparse_encoder.evaluation as their_sparse  # noqa: E402 - after the guard
import sentence_transformers.util as their_util  # noqa: E402 - after the guard

import st_core.util  # noqa: E402 - after the guard
from st_core import evaluation  # noqa: E402 - after the guard

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore:A single label was found:UserWarning"),  # scikit-learn's, of random labels
]
few = settings(max_examples=30, deadline=None, derandomize=True)  # rounding orders scores that are nearly equal

TEXTS = [f"text {number}" for number in range(8)]


class Vectors:
    """A model with a vector for each text, which answers in the forms that both libraries request."""

    similarity_fn_name = "cosine"

    def __init__(self, vectors, similarity=st_core.util.cos_sim):
        self.model_card_data = SimpleNamespace(set_evaluation_metrics=lambda *_, **__: None)
        self.similarity = similarity
        self._vectors = {text: np.asarray(vector, np.float32) for text, vector in vectors.items()}

    def encode(self, texts, convert_to_tensor=False, convert_to_numpy=True, truncate_dim=None, **_):
        rows = np.stack([self._vectors[text] for text in texts])[:, :truncate_dim]
        if convert_to_tensor or not convert_to_numpy:
            return torch.from_numpy(rows) if convert_to_tensor else list(torch.from_numpy(rows))
        return rows

    encode_query = encode_document = encode


class Scores:
    """A cross-encoder that gives chosen scores to pairs."""

    def __init__(self, scores, num_labels=1):
        self.model_card_data = SimpleNamespace(set_evaluation_metrics=lambda *_, **__: None)
        self.num_labels = num_labels
        self._scores = np.asarray(scores, np.float32)

    def predict(self, pairs, **_):
        return self._scores[: len(pairs)]


def compared(own, their, model, folder, their_model=None):
    """Check the metrics, the primary one and the table of an evaluator against theirs; return the metrics."""
    metrics = own(model, output_path=folder / "own", epoch=2, steps=5)
    wanted = their(their_model or model, output_path=str(folder / "their"), epoch=2, steps=5)

    assert metrics == {name: pytest.approx(float(value), rel=1e-5, abs=1e-6) for name, value in wanted.items()}
    assert own.primary_metric == their.primary_metric
    same_tables(folder / "own" / own.csv_file, folder / "their" / their.csv_file)
    return metrics


def same_tables(own, their):
    """The last lines of both tables have the same columns, with equal values."""
    lines = []
    for path in (own, their):
        with path.open(newline="") as file:
            lines.append(list(csv.DictReader(file))[-1])
    assert list(lines[0]) == list(lines[1])
    values = [[float(value) for value in line.values()] for line in lines]
    assert values[0] == pytest.approx(values[1], rel=1e-5, abs=1e-6)


corners = st.lists(st.sampled_from((-1.0, 1.0)), min_size=4, max_size=4)
"""Vectors of length 2, whose cosines are exact and often equal."""

eight = st.lists(corners, min_size=8, max_size=8)


@few
@given(eight, st.data())
def test_retrieval(tmp_path_factory, vectors, data):
    """Also with equal scores, which are ordered by id, in parts of the corpus, and at any depths."""
    queries = {f"q{number}": text for number, text in enumerate(TEXTS[:3])}
    ids = data.draw(st.permutations([f"d{number}" for number in (1, 2, 10, 11, 20)]))
    corpus = dict(zip(ids, TEXTS[3:], strict=True))
    relevant = {query: data.draw(st.sets(st.sampled_from(ids))) for query in queries}
    assume(any(relevant.values()))
    depths = st.lists(st.integers(1, 7), min_size=1, max_size=3, unique=True).map(sorted)
    kinds = ("mrr_at_k", "ndcg_at_k", "accuracy_at_k", "precision_recall_at_k", "map_at_k")
    options = {kind: data.draw(depths) for kind in kinds} | {"corpus_chunk_size": data.draw(st.integers(1, 6))}
    both = dict(zip(TEXTS, vectors, strict=True))

    compared(
        evaluation.InformationRetrievalEvaluator(queries, corpus, relevant, **options),
        theirs.InformationRetrievalEvaluator(queries, corpus, relevant, **options),
        Vectors(both),
        tmp_path_factory.mktemp("both"),
        their_model=Vectors(both, similarity=their_util.cos_sim),
    )


@few
@given(eight, st.lists(st.integers(0, 4), min_size=8, max_size=8), st.permutations(TEXTS))
def test_similarities(tmp_path_factory, vectors, scores, second):
    """All similarities, also with equal scores and labels."""
    names = ["cosine", "dot", "euclidean", "manhattan"]
    model = Vectors(dict(zip(TEXTS, vectors, strict=True)))
    pairs = [(vectors[TEXTS.index(one)], vectors[TEXTS.index(two)]) for one, two in zip(TEXTS, second, strict=True)]
    assume(len(set(scores)) > 1 and len({float(np.dot(*pair)) for pair in pairs}) > 1)
    arguments = {"scores": scores, "similarity_fn_names": names}

    compared(
        evaluation.EmbeddingSimilarityEvaluator(TEXTS, second, **arguments),
        theirs.EmbeddingSimilarityEvaluator(TEXTS, second, **arguments),
        model,
        tmp_path_factory.mktemp("both"),
    )


@few
@given(eight, st.permutations(TEXTS), st.permutations(TEXTS), st.sampled_from((0.0, 0.25, 0.5)))
def test_triplets(tmp_path_factory, vectors, positives, negatives, margin):
    """Equal similarities do not count, with a margin and without."""
    arguments = {"margin": margin, "similarity_fn_names": ["cosine", "dot"], "main_similarity_function": "dot"}

    compared(
        evaluation.TripletEvaluator(TEXTS, positives, negatives, **arguments),
        theirs.TripletEvaluator(TEXTS, positives, negatives, **arguments),
        Vectors(dict(zip(TEXTS, vectors, strict=True))),
        tmp_path_factory.mktemp("both"),
    )


@few
@given(st.data())
def test_reranking_by_a_cross_encoder(tmp_path_factory, data):
    """Rankings that have some of the positives, and scores that all differ."""
    samples, scores = [], []
    for _ in range(data.draw(st.integers(1, 3))):
        documents = data.draw(st.lists(st.sampled_from(TEXTS[:6]), unique=True, min_size=2))
        positive = data.draw(st.lists(st.sampled_from(TEXTS), unique=True, min_size=1, max_size=3))
        samples.append({"query": "q", "positive": positive, "documents": documents})
        scores += data.draw(st.permutations(range(len({*positive, *documents}))))
    options = {"at_k": data.draw(st.integers(1, 9))}

    compared(
        evaluation.CrossEncoderRerankingEvaluator(samples, **options),
        their_pairs.CrossEncoderRerankingEvaluator(samples, **options),
        Scores(scores),
        tmp_path_factory.mktemp("both"),
    )


@few
@given(eight, st.lists(st.sampled_from((0, 1)), min_size=8, max_size=8), st.permutations(TEXTS))
def test_classification_by_similarity(tmp_path_factory, vectors, labels, second):
    """All similarities, also with equal scores."""
    assume(any(labels))
    names = ["cosine", "dot", "euclidean", "manhattan"]
    arguments = {"labels": labels, "similarity_fn_names": names}
    own = evaluation.BinaryClassificationEvaluator(TEXTS, second, **arguments)
    their = theirs.BinaryClassificationEvaluator(TEXTS, second, **arguments)

    compared(own, their, Vectors(dict(zip(TEXTS, vectors, strict=True))), tmp_path_factory.mktemp("both"))


@few
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=12), st.data())
def test_classification_by_a_cross_encoder(tmp_path_factory, scores, data):
    """One output, whose scores may be equal."""
    labels = data.draw(st.lists(st.sampled_from((0, 1)), min_size=len(scores), max_size=len(scores)))
    assume(any(labels))
    arguments = ([("a", "b")] * len(scores), labels)
    own = evaluation.CrossEncoderClassificationEvaluator(*arguments, name="x")
    their = their_pairs.CrossEncoderClassificationEvaluator(*arguments, name="x")

    compared(own, their, Scores(scores), tmp_path_factory.mktemp("both"))


@few
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=12))
def test_classes_by_a_cross_encoder(tmp_path_factory, pairs):
    """Several outputs, of which some are never right or never wanted."""
    labels, predicted = zip(*pairs, strict=True)
    arguments = ([("a", "b")] * len(pairs), list(labels))
    own = evaluation.CrossEncoderClassificationEvaluator(*arguments)
    their = their_pairs.CrossEncoderClassificationEvaluator(*arguments)

    compared(own, their, Scores(np.eye(4)[list(predicted)], num_labels=4), tmp_path_factory.mktemp("both"))


@few
@given(eight, st.lists(st.tuples(*[st.sampled_from([*TEXTS[:6], "unknown"])] * 2), min_size=1), st.booleans())
def test_paraphrases(tmp_path_factory, vectors, duplicates, close):
    """With pairs of unknown ids and equal scores."""
    pairs = [pair for pair in duplicates if pair[0] != pair[1]]
    assume(any("unknown" not in pair for pair in pairs))
    texts = dict(zip(TEXTS, TEXTS, strict=True))
    arguments = {"duplicates_list": pairs, "add_transitive_closure": close}
    own = evaluation.ParaphraseMiningEvaluator(texts, **arguments)
    their = theirs.ParaphraseMiningEvaluator(texts, **arguments)

    compared(own, their, Vectors(dict(zip(TEXTS, vectors, strict=True))), tmp_path_factory.mktemp("both"))


@few
@given(eight, st.permutations(TEXTS))
def test_translations(tmp_path_factory, vectors, second):
    """Equal cosines count for the first text."""
    model = Vectors(dict(zip(TEXTS, vectors, strict=True)))

    compared(
        evaluation.TranslationEvaluator(TEXTS, second),
        theirs.TranslationEvaluator(TEXTS, second),
        model,
        tmp_path_factory.mktemp("both"),
    )


def test_wrong_translations_are_logged(caplog):
    """The text, the nearest one and the expected one."""
    model = Vectors({"one": [1, 0], "two": [0, 1], "eins": [0, 1], "zwei": [1, 0]})

    with caplog.at_level(logging.WARNING):
        metrics = evaluation.TranslationEvaluator(["one", "two"], ["eins", "zwei"], print_wrong_matches=True)(model)

    assert metrics["mean_accuracy"] == 0
    assert "text 0 'one': the nearest is 'zwei', expected 'eins'" in caplog.text


@few
@given(st.lists(st.integers(0, 170), min_size=4, max_size=8, unique=True), st.data())
def test_reranking_by_similarity(tmp_path_factory, angles, data):
    """Documents at different angles to the query; the order in the sample does not matter."""
    documents = TEXTS[: len(angles)]
    vectors = {text: (np.cos(np.radians(a)), np.sin(np.radians(a))) for text, a in zip(documents, angles, strict=True)}
    positives = data.draw(st.integers(1, len(documents) - 1))
    samples = [
        {"query": "q", "positive": documents[:positives], "negative": documents[positives:]},
        {"query": "q", "positive": documents[-1], "negative": documents[:2]},
    ]
    options = {"at_k": data.draw(st.integers(1, 9)), "use_batched_encoding": data.draw(st.booleans())}
    model = Vectors({"q": (1.0, 0.0), **vectors})

    compared(
        evaluation.RerankingEvaluator(samples, similarity_fct=st_core.util.cos_sim, **options),
        theirs.RerankingEvaluator(samples, similarity_fct=their_util.cos_sim, **options),
        model,
        tmp_path_factory.mktemp("both"),
    )


def test_a_collapsed_model_gets_no_credit():
    """Where theirs ranks positives first: they are first in the sample."""
    model = Vectors(dict.fromkeys(TEXTS, (1.0, 0.0)))
    sample = {"query": TEXTS[0], "positive": TEXTS[1:2], "negative": TEXTS[2:6]}

    metrics = evaluation.RerankingEvaluator([sample])(model)

    assert metrics["mrr@10"] == pytest.approx(1 / 5)
    assert theirs.RerankingEvaluator([sample], write_csv=False)(model)["mrr@10"] == 1


def test_graded_positives_are_gains():
    """The better of two positives in front is worth more."""
    model = Vectors({"q": (1.0, 0.0), "a": (0.9, 0.1), "b": (0.5, 0.5), "c": (0.7, 0.3)})

    def of(grades):
        return evaluation.RerankingEvaluator([{"query": "q", "positive": grades, "negative": "c"}])(model)["ndcg@10"]

    ideal = 3 + 1 / np.log2(3)
    assert of({"a": 3, "b": 1}) == pytest.approx((3 + 1 / np.log2(4)) / ideal)
    assert of({"a": 1, "b": 3}) == pytest.approx((1 + 3 / np.log2(4)) / ideal)


@few
@given(st.data())
def test_fusion_of_rankings(tmp_path_factory, data):
    """Rankings of different documents, with positives that none of them has."""
    ranking = st.lists(st.sampled_from(TEXTS[:6]), unique=True, min_size=2, max_size=6)
    dense, sparse = [], []
    for query in range(data.draw(st.integers(1, 3))):
        positive = data.draw(st.lists(st.sampled_from(TEXTS), unique=True, min_size=1, max_size=4))
        common = {"query_id": query, "query": "q", "positive": positive}
        dense.append(common | {"documents": data.draw(ranking)})
        sparse.append(common | {"documents": data.draw(ranking)})
    options = {"at_k": data.draw(st.integers(1, 8)), "rrf_k": data.draw(st.sampled_from((1, 60))), "name": "n"}
    own = evaluation.ReciprocalRankFusionEvaluator(dense, sparse, write_predictions=True, **options)
    their = their_sparse.ReciprocalRankFusionEvaluator(dense, sparse, write_predictions=True, **options)
    folder = tmp_path_factory.mktemp("both")

    metrics = own(folder / "own")

    wanted = their(str(folder / "their"))
    assert metrics == {name: pytest.approx(float(value)) for name, value in wanted.items()}
    assert own.primary_metric == their.primary_metric
    same_tables(folder / "own" / own.csv_file, folder / "their" / their.csv_file)
    file = "ReciprocalRankFusion_evaluation_n_predictions.jsonl"
    lines = [(folder / side / file).read_text(encoding="utf-8").splitlines() for side in ("own", "their")]
    assert [json.loads(line) for line in lines[0]] == [json.loads(line) for line in lines[1]]


def test_a_fusion_takes_no_model():
    """As a trainer would pass it."""
    sample = {"query_id": 1, "query": "q", "positive": "a", "documents": ["a", "b"]}
    evaluator = evaluation.ReciprocalRankFusionEvaluator([sample], [sample])

    assert evaluator()["ndcg@10"] == 1
    with pytest.raises(TypeError, match="takes no model; call it with an output folder"):
        evaluator(Scores([1]))


def test_errors_by_language(tmp_path):
    """Rows without a text in one of the languages are left out."""
    rows = [{"en": TEXTS[0], "de": TEXTS[1]}, {"en": TEXTS[2], "de": TEXTS[3]}, {"en": TEXTS[4], "de": " "}]
    model = Vectors({text: (place, place**2) for place, text in enumerate(TEXTS)})
    arguments = (rows, model, [("en", "de"), ("de", "en")])

    compared(
        evaluation.MSEEvaluatorFromDataFrame(*arguments, name="x"),
        theirs.MSEEvaluatorFromDataFrame(*arguments, name="x"),
        SimpleNamespace(eval=lambda: None, encode=model.encode, model_card_data=model.model_card_data),
        tmp_path,
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: evaluation.BinaryClassificationEvaluator(["a"], ["b"], [2]), "label of pair 0 is 2; expected 0 or 1"),
        (lambda: evaluation.BinaryClassificationEvaluator(["a"], ["b"], [0]), "no pair has the label 1"),
        (lambda: evaluation.BinaryClassificationEvaluator([], [], []), "nothing to evaluate"),
        (lambda: evaluation.ParaphraseMiningEvaluator({"a": "b"}), "none of the 0 pairs"),
        (lambda: evaluation.TranslationEvaluator(["a"], []), "different lengths: 1 source_sentences, 0 target"),
        (lambda: evaluation.RerankingEvaluator([]), "nothing to evaluate"),
        (lambda: evaluation.RerankingEvaluator([{"query": "q"}]), "sample 0 has the keys query; expected query, posi"),
        (
            lambda: evaluation.RerankingEvaluator([{"query": "q", "positive": "a", "negative": []}]),
            "none of the 1 samples has positives and negatives",
        ),
        (lambda: evaluation.ReciprocalRankFusionEvaluator([], []), "0 dense and 0 sparse samples; expected as many"),
        (lambda: evaluation.MSEEvaluatorFromDataFrame([], None, [("en", "de")]), "no row has a text in 'en' and in"),
        (
            lambda: evaluation.MSEEvaluatorFromDataFrame([{"en": "a"}, {"en": "b", "de": None}], None, [("en", "de")]),
            "no row has a text in 'en' and in",
        ),
        (lambda: evaluation.MSEEvaluator(["a"], ["b"]), "MSEEvaluator needs teacher_model"),
        (
            lambda: evaluation.CrossEncoderClassificationEvaluator([("a", "b")], [7])(Scores([[0, 1]], num_labels=2)),
            "label of pair 0 is 7; expected a class of the model, 0 to 1",
        ),
    ],
)
def test_what_cannot_be_evaluated_is_refused(call, message):
    """In one line, with what was expected."""
    with pytest.raises(ValueError, match=message):
        call()


QUERIES = {"q1": "copy a tree", "q2": "parse a date", "q3": "sort numbers"}
CORPUS = {
    f"d{place}": text
    for place, text in enumerate(
        ["How do I copy a directory tree?", "Parse a date string", "a date", "the fox", "x y z"]
    )
}
JUDGED = {"q1": ["d0"], "q2": ["d1", "d2"], "q3": ["d3"]}
BM25 = {"q1": ["d3", "d0", "d1"], "q2": ["d2", "d4", "d0"], "q3": ["d0", "d1"]}
SPLITS = ("NanoMSMARCO", "NanoNQ")


def nano_rows(subset, split):
    """The rows of a part of a collection in NanoBEIR's layout; the second collection lacks the last query."""
    rows = {
        "queries": [{"_id": key, "text": text} for key, text in QUERIES.items()],
        "corpus": [{"_id": key, "text": text} for key, text in CORPUS.items()],
        "qrels": [{"query-id": query, "corpus-id": each} for query, ids in JUDGED.items() for each in ids],
        "bm25": [{"query-id": query, "corpus-ids": ids} for query, ids in BM25.items()],
    }[subset]
    return [row for row in rows if split == "NanoMSMARCO" or "q3" not in row.values()]


@pytest.fixture
def nano_folder(tmp_path, monkeypatch):
    """A folder in NanoBEIR's layout; the package datasets reads the same rows, for any name on the Hub."""
    datasets = pytest.importorskip("datasets", reason="theirs reads collections by it")
    for subset in ("queries", "corpus", "qrels", "bm25"):
        for split in SPLITS:
            path = tmp_path / "nano" / subset / f"{split}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(json.dumps(row) + "\n" for row in nano_rows(subset, split)))

    def load_dataset(_, subset, split):
        if split not in SPLITS:
            raise ValueError(f"unknown split {split}")
        return datasets.Dataset.from_list(nano_rows(subset, split))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return tmp_path / "nano"


ANGLES = {text: np.radians(31 * place + place**2) for place, text in enumerate([*QUERIES.values(), *CORPUS.values()])}
ROUND = {text: (np.cos(angle), np.sin(angle), 0.1) for text, angle in ANGLES.items()}


@pytest.mark.parametrize("source", ["folder", "hub"])
@pytest.mark.parametrize("options", [{}, {"truncate_dim": 2, "aggregate_key": "max", "aggregate_fn": np.max}])
def test_collections_have_their_metrics(nano_folder, tmp_path, source, options):
    """From a folder and from a data set on the Hub, with their names."""
    names = ["msmarco", "nq"]
    own = evaluation.NanoBEIREvaluator(names, str(nano_folder) if source == "folder" else "owner/name", **options)
    their = theirs.NanoBEIREvaluator(names, "owner/name", **options)

    metrics = compared(own, their, Vectors(ROUND), tmp_path, their_model=Vectors(ROUND, similarity=their_util.cos_sim))

    assert any(name.startswith("NanoMSMARCO_") for name in metrics)


def test_collections_for_cross_encoders_have_their_metrics(nano_folder, tmp_path):
    """The first documents of the ranking of each query are ordered again."""

    class ByLength(Scores):
        def predict(self, pairs, **_):
            return np.array([len(document) / 7 + len(query) for query, document in pairs])

    options = {"rerank_k": 2, "at_k": 3}

    compared(
        evaluation.CrossEncoderNanoBEIREvaluator(None, nano_folder, **options),
        their_pairs.CrossEncoderNanoBEIREvaluator(["msmarco", "nq"], "owner/name", **options),
        ByLength([]),
        tmp_path,
    )


def test_a_folder_of_parquet_files(tmp_path):
    """In several parts, as data sets on the Hub are stored; ids of relevant documents may be a list."""
    pa = pytest.importorskip("pyarrow", reason="reads Parquet")
    parquet = pytest.importorskip("pyarrow.parquet", reason="reads Parquet")
    rows = {
        "queries": [{"_id": "q", "text": "red"}],
        "corpus": [{"_id": "d1", "text": "shoe"}, {"_id": "d2", "text": "hat"}],
        "qrels": [{"query-id": "q", "corpus-id": ["d1", "d2"]}],
    }
    for subset, listed in rows.items():
        (tmp_path / subset).mkdir()
        for place, row in enumerate(listed):
            name = f"NanoNQ-{place:05}-of-{len(listed):05}.parquet"
            parquet.write_table(pa.Table.from_pylist([row]), tmp_path / subset / name)
    model = Vectors({"red": (1, 0), "shoe": (0, 1), "hat": (1, 1)})

    evaluator = evaluation.NanoBEIREvaluator(dataset_id=tmp_path)

    assert evaluator.dataset_names == ["nq"]
    assert evaluator(model)["NanoNQ_cosine_recall@1"] == 0.5


def test_a_folder_of_beir_collections(tmp_path):
    """Titles stand before texts, grades are gains, empty texts are left out, and other names stay as they are."""
    folder = tmp_path / "mine" / "shop_1"
    (folder / "qrels").mkdir(parents=True)
    rows = [{"_id": "d1", "title": "Red", "text": "shoe"}, {"_id": "d2", "text": "blue hat"}, {"_id": "d3", "text": ""}]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "queries.jsonl").write_text('{"_id": "1", "text": "red"}\n')
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n1\td1\t3\n1\td2\t1\n")
    (folder / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\n1\td9\t3\n")
    model = Vectors({"red": (1, 0), "Red shoe": (0, 1), "blue hat": (1, 1)})

    metrics = evaluation.NanoBEIREvaluator(dataset_id=tmp_path / "mine")(model)

    wanted = (1 + 3 / np.log2(3)) / (3 + 1 / np.log2(3))
    assert metrics["shop_1_cosine_ndcg@10"] == metrics["NanoBEIR_mean_cosine_ndcg@10"] == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dataset_id": "/no/folder"}, "/no/folder: no such folder; expected a folder of collections or the name"),
        ({"dataset_id": "."}, "no collection; expected queries/NAME.parquet as in NanoBEIR, or NAME/queries.jsonl"),
        ({"dataset_names": []}, "dataset_names is empty"),
        ({"dataset_names": ["marco"]}, "no collection 'marco'; expected some of climatefever, "),
        (
            {"dataset_names": ["fever"], "dataset_id": "a/b"},
            "a/b is no folder, and .* cannot be read from the Hub: unknown split",
        ),
        ({"query_prompts": {"nq": "q: "}, "dataset_id": "NANO"}, "no query prompt for msmarco; pass one for each of"),
    ],
)
def test_what_is_no_collection_is_refused(nano_folder, tmp_path, monkeypatch, arguments, message):
    """In one line, with what was expected."""
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    if arguments.get("dataset_id") == "NANO":
        arguments = arguments | {"dataset_id": nano_folder}

    with pytest.raises(ValueError, match=message):
        evaluation.NanoBEIREvaluator(**arguments)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support:UserWarning")
@pytest.mark.filterwarnings("ignore:Sparse invariant checks are implicitly disabled:UserWarning")
@pytest.mark.parametrize("limit", [None, 40])
def test_sparse_evaluators_have_their_metrics(checkpoints, nano_folder, tmp_path, limit):
    """With the numbers of active terms, in the metrics and in the table."""
    their_model, model = checkpoints.own_pair("SparseEncoder", "splade-max")
    first, second = list(CORPUS.values()), [*QUERIES.values(), "a fox", "of a b c"]
    samples = [{"query": first[0], "positive": second[:2], "negative": second[2:]}]
    labels, scores = [1, 0, 1, 1, 0], [0.5, 0.1, 0.9, 0.3, 0.2]
    cases = {
        "SparseBinaryClassificationEvaluator": (first, second, labels),
        "SparseEmbeddingSimilarityEvaluator": (first, second, scores),
        "SparseTripletEvaluator": (first, second, second[1:] + second[:1]),  # no text is both: rounding would decide
        "SparseTranslationEvaluator": (first, second),
        "SparseRerankingEvaluator": (samples,),
        "SparseInformationRetrievalEvaluator": (
            QUERIES,
            CORPUS,
            {query: set(ids) for query, ids in JUDGED.items()},
        ),
    }
    for name, arguments in cases.items():
        own = getattr(evaluation, name)(*arguments, max_active_dims=limit)
        their = getattr(their_sparse, name)(*arguments, max_active_dims=limit)
        compared(own, their, model, tmp_path / name, their_model=their_model)

    compared(
        evaluation.SparseMSEEvaluator(first, second, model, max_active_dims=limit),
        their_sparse.SparseMSEEvaluator(first, second, their_model, max_active_dims=limit),
        model,
        tmp_path / "mse",
        their_model=their_model,
    )
    compared(
        evaluation.SparseNanoBEIREvaluator(["msmarco", "nq"], nano_folder, max_active_dims=limit),
        their_sparse.SparseNanoBEIREvaluator(["msmarco", "nq"], "owner/name", max_active_dims=limit),
        model,
        tmp_path / "nano-runs",
        their_model=their_model,
    )


def test_sparse_vectors_are_not_truncated():
    """The argument has another name."""
    with pytest.raises(TypeError, match="SparseTripletEvaluator has no argument truncate_dim; pass max_active_dims"):
        evaluation.SparseTripletEvaluator(["a"], ["b"], ["c"], truncate_dim=3)
    with pytest.raises(TypeError, match="SparseNanoBEIREvaluator has no argument truncate_dim"):
        evaluation.SparseNanoBEIREvaluator(["nq"], truncate_dim=3)
