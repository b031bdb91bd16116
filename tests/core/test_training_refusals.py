"""What a training would misread is refused before its first step, with the place and what to do."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("sentence_transformers", reason="the checkpoints are made with it")
pytest.importorskip("accelerate", reason="the trainers need it")

import st_core
from st_core.training import trainer as trainers
from st_core.training.losses import dense, reranking

pytestmark = pytest.mark.torch

ROW = {"anchor": "a question", "positive": "an answer"}
RANKING = "MultipleNegativesRankingLoss"


def trainer_of(checkpoints, folder, data, loss=RANKING, name="bert-mean", evaluator=None, **options):
    """A trainer on data, which is not started."""
    kind = "CrossEncoder" if name.startswith("rerank") else "SentenceTransformer"
    model = checkpoints.load(st_core, kind, name)
    args = getattr(trainers, f"{kind}TrainingArguments")(
        output_dir=str(folder), disable_tqdm=True, use_cpu=True, **options
    )
    losses = dense if kind == "SentenceTransformer" else reranking
    made = getattr(losses, loss)(model) if isinstance(loss, str) else loss(model)
    return getattr(trainers, f"{kind}Trainer")(
        model=model, args=args, train_dataset=data, loss=made, evaluator=evaluator
    )


COLUMNS = [
    ([ROW | {"source": "a book"}], RANKING, "column 'source' as a negative.*ignored_columns=\\['source'\\]"),
    ([ROW | {"query_id": "q1"}], RANKING, "column 'query_id' seems to contain ids.*ignored_columns=\\['query_id'\\]"),
    ([ROW | {"label": 1}], RANKING, "reads no labels.*'label'.*ignored_columns=\\['label'\\]"),
    ([ROW | {"label": 1.0, "score": 0.5}], "CoSENTLoss", "'label' and 'score' both contain labels"),
    (
        [ROW | {"third": "text", "label": 1.0}],
        "CoSENTLoss",
        "reads 2 text columns, got 3.*ignored_columns=\\['third'\\]",
    ),
    ([ROW], "CoSENTLoss", "needs a column of labels"),
    ([{"anchor": "alone"}], RANKING, "needs at least 2 text columns, got 1"),
    ([ROW | {"dataset_name": "x"}], RANKING, "'dataset_name' has a name that the trainer uses"),
    ([ROW, ROW | {"positive": None}], RANKING, "row 1, column 'positive': expected text, got None"),
    ([ROW, {"anchor": "only"}], RANKING, "row 1, column 'positive': the value is missing"),
    ([ROW | {"negative": 0.5}], RANKING, "row 0, column 'negative': expected text, got 0.5.*named label or score"),
    ([ROW | {"label": "1"}], "CoSENTLoss", "row 0, column 'label': got '1'"),
    ([ROW | {"label": float("nan")}], "CoSENTLoss", "row 0, column 'label': got nan"),
    ([ROW | {"label": 0.5}, ROW | {"label": 5.0}], "CosineSimilarityLoss", "row 1.*5.0.*from -1 to 1.*label_range"),
    ([ROW | {"label": 2}], "ContrastiveLoss", "row 0, column 'label': got 2.*needs 0 or 1"),
    ([], RANKING, "has no rows"),
]


@pytest.mark.parametrize(("data", "loss", "message"), COLUMNS)
def test_columns_that_a_loss_would_misread_are_refused(checkpoints, tmp_path, data, loss, message):
    """With the row and the column, and the option that allows it."""
    with pytest.raises(ValueError, match=message):
        trainer_of(checkpoints, tmp_path, data, loss)


@pytest.mark.parametrize(
    ("row", "options", "expected"),
    [
        ({"positive": "b", "anchor": "a"}, {}, ("anchor", "positive")),
        ({"answer": "b", "question": "a", "negative": "c"}, {}, ("question", "answer", "negative")),
        ({"left": "a", "right": "b"}, {}, ("left", "right")),
        (ROW | {"source": "a book"}, {"ignored_columns": ["source"]}, ("anchor", "positive")),
        (ROW | {"source": "a book"}, {"columns": ["source", "anchor"]}, ("source", "anchor")),
        (ROW | {"negative_1": "c", "negative_2": "d"}, {}, ("anchor", "positive", "negative_1", "negative_2")),
        (ROW | {"label": 3}, {"ignored_columns": ["label"]}, ("anchor", "positive")),
    ],
)
def test_columns_are_matched_by_name_else_by_order(checkpoints, tmp_path, row, options, expected):
    """Or as the arguments say."""
    trainer = trainer_of(checkpoints, tmp_path, [row], **options)

    assert trainer.train_sets[""].columns == expected


KEYS = [
    ({"prompts": {"queries": "query: "}}, "prompts has the key 'queries'; expected one of anchor, positive"),
    ({"router_mapping": {"queries": "query"}}, "router_mapping has the key 'queries'"),
    ({"learning_rate_mapping": {"no_such": 1e-3}}, "'no_such' matches no parameter; they are named like model"),
    ({"columns": ["anchor", "positives"]}, "the data has no column 'positives'"),
    ({"batch_sampler": "sorted"}, "sorted"),
    ({"eval_strategy": "steps"}, "needs an eval_dataset or an evaluator"),
    ({"metric_for_best_model": "ndcg"}, "'ndcg' is computed by no evaluation"),
]


@pytest.mark.parametrize(("options", "message"), KEYS)
def test_keys_that_name_nothing_are_refused(checkpoints, tmp_path, options, message):
    """Misspelt columns, parameters and metrics."""
    with pytest.raises(ValueError, match=message):
        trainer_of(checkpoints, tmp_path, [ROW], **options)


def test_a_router_needs_routes(checkpoints, tmp_path):
    """The message contains a mapping; a route that does not exist is refused too."""
    with pytest.raises(ValueError, match=r"column 'anchor' has none; pass router_mapping=\{'anchor': "):
        trainer_of(checkpoints, tmp_path, [ROW], name="router")
    routes = {"anchor": "query", "positive": "other"}
    with pytest.raises(ValueError, match="the route 'other'; expected one of"):
        trainer_of(checkpoints, tmp_path, [ROW], name="router", router_mapping=routes)
    trainer = trainer_of(
        checkpoints, tmp_path, [ROW], name="router", router_mapping={"anchor": "query", "positive": "document"}
    )

    assert trainer.train_sets[""].reading.tasks == ("query", "document")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([1, 0, 1], "3 labels for 2 documents"),
        ([1, 9], r"got \[1, 9\].*from 0 to 4"),
        (1, "got 1 .*LambdaLoss needs a list"),
    ],
)
def test_lists_need_a_grade_for_each_document(checkpoints, tmp_path, labels, message):
    """Within the range of grades."""
    row = {"query": "a", "documents": ["b", "c"], "label": labels}

    with pytest.raises(ValueError, match=message):
        trainer_of(checkpoints, tmp_path, [row], "LambdaLoss", "rerank-bert")


def test_the_prompts_of_the_model_are_used_and_those_of_the_arguments_are_saved(checkpoints, tmp_path):
    """Queries with that for queries, documents with that for documents."""
    trainer = trainer_of(checkpoints, tmp_path, [ROW])
    chosen = trainer_of(checkpoints, tmp_path, [ROW], prompts={"anchor": "Q ", "positive": "D "})

    assert trainer.train_sets[""].reading.prompts == ("query: ", "passage: ")
    assert trainer._prompts() == {}
    assert chosen._prompts() == {"query": "Q ", "document": "D "}


def test_what_is_trained_is_told(checkpoints, tmp_path, caplog):
    """The role of each column, its prompt, and an example."""
    trainer = trainer_of(checkpoints, tmp_path, [ROW | {"negative": "no answer"}])

    with caplog.at_level("INFO"):
        trainer._tell()

    assert "1 rows for MultipleNegativesRankingLoss" in caplog.text
    assert "query: anchor, prompt 'query: ', as 'a question'" in caplog.text
    assert "negative: negative, prompt 'passage: ', as 'no answer'" in caplog.text


IDS = {"anchor": "query_id", "positive": "doc_id"}
WITH_IDS = [
    {"anchor": "a", "positive": "b", "query_id": "q1", "doc_id": 1},
    {"anchor": "c", "positive": "d", "query_id": "q2", "doc_id": "2"},
    {"anchor": "a", "positive": "e", "query_id": "q1", "doc_id": "3"},
]


def test_known_positives_come_from_ids_and_judgements(checkpoints, tmp_path):
    """A batch contains which documents are no negatives of which query; the positive of a row is not among them."""
    (tmp_path / "qrels.tsv").write_text("q2\t0\t1\t1\nq2\t0\t3\t0\n")
    trainer = trainer_of(
        checkpoints, tmp_path, WITH_IDS, id_columns=IDS, judgements=str(tmp_path / "qrels.tsv"), seed=1
    )
    batch = trainer._collator(list(enumerate(trainer.train_sets[""].examples)))

    assert batch["label"].tolist() == [[False, False, True], [True, False, False], [True, False, False]]
    assert trainer.train_sets[""].columns == ("anchor", "positive")


KNOWN = [
    ({"id_columns": {"anchor": "query_id"}}, [ROW | {"query_id": "q1"}], RANKING, "'positive' has none"),
    ({"id_columns": {"anchors": "query_id"}}, WITH_IDS, RANKING, "id_columns has the key 'anchors'"),
    (
        {"id_columns": IDS},
        [*WITH_IDS, WITH_IDS[0] | {"doc_id": None}],
        RANKING,
        "row 3, column 'doc_id': expected an id",
    ),
    ({"id_columns": IDS}, [row | {"label": 1.0} for row in WITH_IDS], "CoSENTLoss", "CoSENTLoss has no negatives of"),
    ({"judgements": {"q1": {"1"}}}, [ROW], RANKING, "judgements need id_columns"),
]


@pytest.mark.parametrize(("options", "data", "loss", "message"), KNOWN)
def test_ids_that_have_no_effect_are_refused(checkpoints, tmp_path, options, data, loss, message):
    """And rows without ids."""
    with pytest.raises(ValueError, match=message):
        trainer_of(checkpoints, tmp_path, data, loss, **options)


def test_a_base_model_without_a_head_is_refused(checkpoints):
    """With the argument that adds one."""
    folder = str(checkpoints.transformer("bert"))

    for kind in (st_core.SparseEncoder, st_core.CrossEncoder):
        with pytest.raises(st_core.ModelUnsupported, match=r"to train (one|a new head), pass init_head=True"):
            kind(folder, device="cpu")


def test_a_loss_of_another_model_is_refused(checkpoints, tmp_path):
    """It would leave the model untrained."""
    other = checkpoints.load(st_core, "SentenceTransformer", "bert-two-modes")

    with pytest.raises(ValueError, match="does not contain the model that is trained"):
        trainer_of(checkpoints, tmp_path, [ROW], loss=lambda _: dense.MultipleNegativesRankingLoss(other))


def test_several_data_sets_have_losses_by_name(checkpoints, tmp_path):
    """Each name needs a loss; each set is read as its own loss reads it."""
    model = checkpoints.load(st_core, "SentenceTransformer", "bert-mean")
    args = trainers.SentenceTransformerTrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    data = {"pairs": [ROW], "scored": [{"sentence1": "a", "sentence2": "b", "score": 0.5}]}
    losses = {"pairs": dense.MultipleNegativesRankingLoss(model), "scored": dense.CoSENTLoss(model)}

    trainer = trainers.SentenceTransformerTrainer(model=model, args=args, train_dataset=data, loss=losses)

    assert trainer.train_sets["scored"].examples.matching.label == "score"
    with pytest.raises(ValueError, match="the data set 'scored' has no loss; the losses are for pairs"):
        trainers.SentenceTransformerTrainer(model=model, args=args, train_dataset=data, loss={"pairs": losses["pairs"]})


def test_a_missing_library_is_named_with_its_extra(monkeypatch):
    """At the first import, before any other library is loaded."""
    import importlib

    import st_core.training

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "accelerate" else object())
    try:
        with pytest.raises(ImportError, match=r"^accelerate is missing: .*install.*\[train\]"):
            importlib.reload(st_core.training)
    finally:
        monkeypatch.undo()
        importlib.reload(st_core.training)
