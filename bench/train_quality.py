"""Train three models beside sentence-transformers with the same data and seed, and compare what comes out.

    python -m bench.train_quality [WORK ...] [--steps N] [--cpu] [--save] [--json]

========== ============================================================ ====================================
work       trained on                                                   judged by
========== ============================================================ ====================================
dense      MiniLM: headings and the sections under them                 questions of Perl's FAQ, among the
sparse     an inference-free model from two layers of MiniLM: the same  answers of all and a third of the sections
pairs      a cross-encoder from MiniLM: sections and mined negatives    the same, 20 candidates a question
========== ============================================================ ====================================

The texts are Perl's documentation (``bench.perl_texts``); questions and answers are not trained on. Both libraries
take turns step by step, as in ``bench.train``. Quality is nDCG@10 of the saved folders, measured by the evaluators of
``st_core``, which give the numbers of those of sentence-transformers. ``--steps`` trains for fewer steps, and
``--save`` writes the figures and the curves of the losses to ``bench/results``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench.builtin_models import COUNTS
from bench.checkpoints import activate, minilm
from bench.figures import report, spread
from bench.machine import describe
from bench.perl_texts import questions, sections
from bench.train_turns import OURS, THEIRS, Side, both_trained, trainer_of

RESULTS = Path(__file__).parent / "results"
WARM = 2
"""Steps before those that are timed."""

LAYERS = 2
"""Layers of MiniLM in the sparse model."""

CANDIDATES, QUESTIONS = 20, 150
"""Candidates of a question, and questions, that a cross-encoder is judged by."""

NEGATIVES = 3
"""Mined negatives of a heading."""

EVERY = 3
"""One section in so many is searched in beside the answers; more would take longer to encode than to train."""


def rows() -> list[dict[str, Any]]:
    """Return headings and the sections under them."""
    return [{"query": section.heading, "answer": section.text} for section in sections()]


@cache
def documents() -> dict[str, str]:
    """Return what questions are searched in: the answers to all, and some of the sections."""
    answers = {f"a{place}": section.text for place, section in enumerate(questions())}
    return answers | {f"s{place}": section.text for place, section in enumerate(sections()[::EVERY])}


def labelled_rows() -> list[dict[str, Any]]:
    """Return headings with their section, and with sections that the built-in dense model mines."""
    import st_core

    mined: list[dict[str, Any]] = st_core.mine_hard_negatives(
        rows(),
        st_core.SentenceTransformer("builtin:dense"),
        num_negatives=NEGATIVES,
        output_format="labeled-pair",
        verbose=False,
    )
    return mined


def inference_free(root: Path) -> Path:
    """Create a router: queries by inverse document frequencies, documents by layers of MiniLM and its word table."""
    import numpy as np
    import torch
    from sentence_transformers import SparseEncoder
    from sentence_transformers.base.modules import Router, Transformer
    from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding, SpladePooling
    from transformers import AutoTokenizer, BertForMaskedLM

    folder = root / "layers"
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(minilm(root), model_max_length=256)
    model = BertForMaskedLM.from_pretrained(minilm(root), num_hidden_layers=LAYERS)
    with torch.no_grad():  # the new head starts as a product with the word table, the maximum at the text's own words
        model.cls.predictions.transform.dense.weight.copy_(torch.eye(model.config.hidden_size))
        model.cls.predictions.transform.dense.bias.zero_()
    activate(model.eval(), tokenizer, [section.text for section in sections()[::60]])
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    counts = np.load(COUNTS)
    frequency = np.log(float(counts["documents"]) / np.maximum(counts["within"], 1))
    frequency[tokenizer.all_special_ids] = 0.0
    router = Router.for_query_document(
        [SparseStaticEmbedding(tokenizer, weight=torch.from_numpy(frequency).float())],
        [Transformer(str(folder), transformer_task="fill-mask"), SpladePooling("max")],
    )
    SparseEncoder(modules=[router], device="cpu").save(str(root / "sparse"), create_model_card=False)
    return root / "sparse"


def cross_encoder(root: Path) -> Path:
    """Create a cross-encoder of MiniLM with a new head."""
    import torch
    from transformers import AutoTokenizer, BertForSequenceClassification

    folder = root / "pairs"
    torch.manual_seed(0)
    BertForSequenceClassification.from_pretrained(minilm(root), num_labels=1).save_pretrained(folder)
    AutoTokenizer.from_pretrained(minilm(root), model_max_length=256).save_pretrained(folder)
    return folder


def in_batch(losses: Any, model: Any) -> Any:
    """Return the loss of the dense model."""
    return losses.MultipleNegativesRankingLoss(model)


def splade(losses: Any, model: Any) -> Any:
    """Return the loss of the sparse model."""
    return losses.SpladeLoss(model, losses.SparseMultipleNegativesRankingLoss(model), 1e-3, 0)


def labelled(losses: Any, model: Any) -> Any:
    """Return the loss of the cross-encoder."""
    import torch

    return losses.BinaryCrossEntropyLoss(model, pos_weight=torch.tensor(float(NEGATIVES)))


def retrieval(folder: Path, kind: str) -> float:
    """Return nDCG@10 of the questions, each of which has one answer."""
    import st_core
    from st_core import evaluation

    queries = {f"q{place}": question.heading for place, question in enumerate(questions())}
    answers = {f"q{place}": {f"a{place}"} for place in range(len(queries))}
    is_sparse = kind == "SparseEncoder"
    name = "SparseInformationRetrievalEvaluator" if is_sparse else "InformationRetrievalEvaluator"
    measures = getattr(evaluation, name)(queries, documents(), answers, write_csv=False)(
        getattr(st_core, kind)(str(folder), device="cpu")
    )
    return float(measures["dot_ndcg@10" if is_sparse else "cosine_ndcg@10"])


@cache
def candidates() -> list[dict[str, Any]]:
    """Return questions with their answer and the documents that the built-in sparse model ranks first."""
    import numpy as np

    import st_core

    model = st_core.SparseEncoder("builtin:sparse")
    texts = list(documents().values())
    chosen = questions()[:QUESTIONS]
    weights = model.encode_document(texts).to_scipy()
    scores = (model.encode_query([each.heading for each in chosen]).to_scipy() @ weights.T).toarray()
    best = np.argsort(-scores, axis=1, kind="stable")[:, :CANDIDATES]
    return [
        {"query": each.heading, "positive": [each.text], "documents": [texts[place] for place in row]}
        for each, row in zip(chosen, best, strict=True)
    ]


def reranking(folder: Path, _kind: str) -> float:
    """Return nDCG@10 of the candidates in the order of a cross-encoder."""
    import st_core
    from st_core import evaluation

    judge = evaluation.CrossEncoderRerankingEvaluator(candidates(), always_rerank_positives=False, write_csv=False)
    return float(judge(st_core.CrossEncoder(str(folder), device="cpu"))["ndcg@10"])


@dataclass(frozen=True, slots=True)
class Work:
    """A training: class and checkpoint of the model, rows, loss, judge, size, and learning rate."""

    kind: str
    checkpoint: Callable[[Path], Path]
    rows: Callable[[], list[dict[str, Any]]]
    loss: Callable[[Any, Any], Any]
    judge: Callable[[Path, str], float]
    steps: int
    batch: int
    rate: float


WORKS = {
    "dense": Work("SentenceTransformer", minilm, rows, in_batch, retrieval, 110, 32, 2e-5),
    "sparse": Work("SparseEncoder", inference_free, rows, splade, retrieval, 180, 16, 1e-4),
    "pairs": Work("CrossEncoder", cross_encoder, labelled_rows, labelled, reranking, 240, 16, 1e-4),
}

MINUTES = 20
"""The longest time of a work."""

TARGETS = {
    **{f"{name} ndcg@10 gained on theirs": (">=", -0.01) for name in WORKS},
    **{f"{name} minutes": ("<", MINUTES) for name in WORKS},
}


def made(*, package: str, name: str, folder: str, steps: int, output: str) -> tuple[Any, Callable[[], Any]]:
    """Return the trainer of a work with a package, and a function that saves the model."""
    work = WORKS[name]
    place = Path(output) / f"{name} {package}"
    arguments: dict[str, Any] = {
        "output_dir": str(place / "checkpoints"),
        "max_steps": steps,
        "per_device_train_batch_size": work.batch,
        "learning_rate": work.rate,
        "warmup_steps": steps // 10,
    }
    if work.kind == "SparseEncoder":
        arguments["router_mapping"] = {"query": "query", "answer": "document"}
    trainer = trainer_of(package, work.kind, folder, work.rows(), work.loss, **arguments)
    return trainer, lambda: trainer.save_model(str(place / "model"))


def trained(name: str, steps: int, *, is_cpu: bool, root: Path) -> tuple[dict[str, Any], dict[str, Side]]:
    """Return the figures of a work and both sides."""
    began = time.perf_counter()
    work = WORKS[name]
    base = work.checkpoint(root)
    arguments = {"name": name, "folder": str(base), "output": str(root)}
    sides = both_trained(made, arguments, steps, is_cpu=is_cpu)
    ours, theirs = sides[OURS], sides[THEIRS]
    quality = {package: work.judge(root / f"{name} {package}" / "model", work.kind) for package in sides}
    ratios = [other / own for own, other in zip(ours.seconds[WARM:], theirs.seconds[WARM:], strict=True)]
    return {
        f"{name} ndcg@10 before": work.judge(base, work.kind),
        f"{name} ndcg@10 theirs": quality[THEIRS],
        f"{name} ndcg@10": quality[OURS],
        f"{name} ndcg@10 gained on theirs": quality[OURS] - quality[THEIRS],
        f"{name} loss, last tenth": _last(ours.losses),
        f"{name} loss, last tenth, theirs": _last(theirs.losses),
        f"{name} steps over theirs": spread(ratios),
        f"{name} seconds": sum(ours.seconds),
        f"{name} seconds over theirs": sum(ours.seconds) / sum(theirs.seconds),
        f"{name} memory over theirs": ours.megabytes / theirs.megabytes,
        f"{name} minutes": (time.perf_counter() - began) / 60,
    }, sides


def _last(losses: Sequence[float]) -> float:
    """Return the mean of the last tenth of losses."""
    last = losses[-max(1, len(losses) // 10) :]
    return sum(last) / len(last)


def plot(curves: Mapping[str, Mapping[str, Sequence[float]]], path: Path) -> None:
    """Draw the losses of both libraries side by side, a work in each panel, as SVG; needs matplotlib."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "train"  # equal figures produce equal files
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, len(curves), figsize=(4 * len(curves), 3), squeeze=False)
    for axes, (name, sides) in zip(panels[0], curves.items(), strict=True):
        axes.plot(range(1, len(sides[THEIRS]) + 1), sides[THEIRS], color="#cc3311", linewidth=3, alpha=0.4)
        axes.plot(range(1, len(sides[OURS]) + 1), sides[OURS], color="#4477aa", linewidth=1)
        axes.set_title(name)
        axes.set_xlabel("step")
    panels[0][0].set_ylabel("loss")
    panels[0][0].legend(["sentence-transformers", "st_core"])
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def save(figures: Mapping[str, Any], curves: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
    """Write figures and curves to the results, in which those of works that were not run stay."""
    path = RESULTS / "train.json"
    stored = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"figures": {}, "losses": {}}
    losses = {name: curve for name, curve in {**stored["losses"], **curves}.items() if name in WORKS}
    new = {"machine": describe(), "figures": {**stored["figures"], **figures}, "losses": losses}
    path.write_text(f"{json.dumps(new, indent=1)}\n", encoding="utf-8")
    plot(losses, RESULTS / "train.svg")


def main() -> int:
    """Train and judge the works of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("works", nargs="*", metavar="WORK", default=[])
    parser.add_argument("--steps", type=int)
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    os.environ["TQDM_DISABLE"] = "1"  # sentence-transformers draws bars that no argument turns off
    unknown = [name for name in options.works if name not in WORKS]
    if unknown:
        print(f"unknown work {unknown[0]}; expected some of {', '.join(WORKS)}", file=sys.stderr)
        return 2
    try:
        sections()
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 2
    figures: dict[str, Any] = {}
    curves: dict[str, dict[str, Sequence[float]]] = {}
    with TemporaryDirectory() as folder:
        for name in options.works or list(WORKS):
            own, sides = trained(name, options.steps or WORKS[name].steps, is_cpu=options.cpu, root=Path(folder))
            figures |= own
            curves[name] = {package: side.losses for package, side in sides.items()}
    if options.save:
        save(figures, curves)
    return report(figures, {name: target for name, target in TARGETS.items() if name in figures})


if __name__ == "__main__":
    raise SystemExit(main())
