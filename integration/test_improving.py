"""A live collection is evaluated, negatives are mined through it, and a reranker trained on them makes it better.

The collection is a catalogue whose words differ from those of its customers, one for one. No model knows these words,
so that only the kind of an article is recognized before the training.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

transformers = pytest.importorskip("transformers", reason="needs the torch extra")
pytest.importorskip("accelerate", reason="needs the train extra")
pytest.importorskip("ir_measures", reason="needs the evaluate extra")

from integration.stores import address_of  # noqa: E402 - after the guards
from st_connectors import open_store  # noqa: E402 - after the guards
from st_connectors.cli import run  # noqa: E402 - after the guards
from st_connectors.errors import NotFound  # noqa: E402 - after the guards

pytestmark = [pytest.mark.engine("opensearch"), pytest.mark.timeout(900)]

NAME = "catalogue"
KINDS, OTHERS = 12, 24
"""Numbers of kinds of articles, and of the materials and colours of each."""
ARTICLES, JUDGED = 720, 120
"""Numbers of articles, and of those whose queries are only evaluated."""


@dataclass(frozen=True)
class Article:
    """An article as the catalogue describes it, and as a customer asks for it."""

    text: str
    query: str


def invented(count: int, draw: random.Random) -> list[str]:
    """Return different words of three syllables."""
    words: dict[str, None] = {}
    while len(words) < count:
        words["".join(draw.choice("bdfgklmnprstvz") + draw.choice("aeiou") for _ in range(3))] = None
    return list(words)


def catalogue() -> tuple[list[Article], list[str]]:
    """Return articles that differ, in random order, and all their words."""
    draw = random.Random(5)
    words = invented(KINDS + 4 * OTHERS, draw)
    kinds, pairs = words[:KINDS], [words[start : start + 2] for start in range(KINDS, len(words), 2)]
    materials, colours = pairs[:OTHERS], pairs[OTHERS:]
    whole = [(kind, material, colour) for kind in kinds for material in materials for colour in colours]
    articles = [
        Article(f"{kind} of {material[0]} with {colour[0]}", f"{material[1]} {colour[1]} {kind}")
        for kind, material, colour in draw.sample(whole, ARTICLES)
    ]
    return articles, [*words, "of", "with"]


def untrained(folder: Path, words: list[str]) -> Path:
    """Write a small cross-encoder with random weights, whose tokens are whole words."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    vocabulary = {word: place for place, word in enumerate([*special, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=32,
    ).save_pretrained(folder)
    torch.manual_seed(0)
    shape = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = transformers.BertConfig(
        vocab_size=len(vocabulary), max_position_embeddings=32, num_labels=1, **shape, **dropout
    )
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def write_queries(folder: Path, articles: list[Article], first: int) -> list[str]:
    """Write the queries and judgements of articles, and return the options that name the files."""
    queries = [{"_id": f"q{place}", "text": each.query} for place, each in enumerate(articles, first)]
    (folder / f"queries-{first}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in queries))
    judged = "".join(f"q{place} 0 a{place} 1\n" for place in range(first, first + len(articles)))
    (folder / f"qrels-{first}.txt").write_text(judged)
    return ["--queries", str(folder / f"queries-{first}.jsonl"), "--qrels", str(folder / f"qrels-{first}.txt")]


@pytest.fixture
def address(engines) -> Iterator[str]:
    """Yield the server, without the collection of this test."""
    url = address_of("opensearch", engines.url("opensearch"))
    drop(url)
    yield url
    drop(url)


def drop(url: str) -> None:
    """Drop the collection of this test, if it exists."""
    with suppress(NotFound), closing(open_store(url, NAME)) as store:
        store.drop()


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Compute with one thread: the matrices of the model are too small to be divided."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def command(capsys) -> Callable[..., Any]:
    """Return a function that runs a command, and returns the JSON that it printed."""

    def call(*arguments: object) -> Any:
        capsys.readouterr()
        status = run([*map(str, arguments), "--json"])
        printed = capsys.readouterr()
        assert status == 0, printed.err
        return json.loads(printed.out.splitlines()[-1] if arguments[0] == "ingest" else printed.out)

    return call


def test_a_reranker_trained_on_mined_negatives_makes_search_better(address, command, tmp_path):
    """By more than its interval, on queries that were not trained; the next evaluation is compared with the first."""
    articles, words = catalogue()
    rows = [{"id": f"a{place}", "text": each.text} for place, each in enumerate(articles)]
    (tmp_path / "catalogue.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    judged = write_queries(tmp_path, articles[:JUDGED], 0)
    trained = write_queries(tmp_path, articles[JUDGED:], JUDGED)
    place = ["--in", address, "--collection", NAME]
    command("ingest", tmp_path / "catalogue.jsonl", *place, "--create")
    before = command("evaluate", *place, *judged, "--run", "search:", "--save", tmp_path / "before")

    mined = command(
        "mine", *place, *trained, "--negatives", 4, "--form", "labeled-pair", "--out", tmp_path / "rows.jsonl"
    )
    model = tmp_path / "reranker"
    base = untrained(tmp_path / "base", words)
    rates = ["--learning-rate", "1e-3", "--batch", 60, "--epochs", 16]
    command("train", "reranker", tmp_path / "rows.jsonl", "--base", base, "--out", model, *rates)
    after = command(
        *["evaluate", *place, *judged, "--run", "search:", "--run", f"reranked: rerank={model}"],
        *["--baseline", tmp_path / "before" / "evaluation.json"],
    )

    assert (mined["queries"], mined["negatives"]) == (ARTICLES - JUDGED, 4 * (ARTICLES - JUDGED))
    search, reranked = (each["measures"]["ndcg@10"] for each in after["runs"])
    assert search["value"] == before["runs"][0]["measures"]["ndcg@10"]["value"] < 0.2
    assert reranked["difference"]["low"] > 0.2
    assert reranked["difference"]["p"] < 0.05
    [change] = [each for each in after["changes"] if each["measure"] == "ndcg@10"]
    assert change["before"] == pytest.approx(change["now"])
