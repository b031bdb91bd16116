"""Compare trainings, the retrieval evaluator and mining with those of sentence-transformers, side by side.

    python -m bench.train [WORK ...] [--steps N] [--cpu] [--json]

Works are dense (MiniLM, mixed lengths), sparse (SPLADE of DistilBERT's size), pairs (a cross-encoder), evaluator and
mining. Both libraries train the same checkpoint on the same rows without dropout, each in a process of its own, and
take turns step by step. Memory is the growth of the largest resident memory from before the training. ``--cpu``
measures the seconds of the processor in place of the clock, for a machine that does other work too.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench.checkpoints import MAKERS
from bench.figures import report, spread
from bench.texts import texts
from bench.train_turns import OURS, THEIRS, both_trained, trainer_of

WARM = 2
"""Steps before those that are measured."""

SAME_LOSS = 1e-4
"""The largest relative difference of a loss; the first steps differ by rounding alone, which training enlarges."""

TARGETS = {
    "dense steps": (">=", 1.3),
    "sparse steps": (">=", 2.5),
    "pairs steps": (">=", 1.3),
    "dense memory": ("<", 0.8),
    "sparse memory": ("<", 0.4),
    "pairs memory": ("<", 0.8),
    "evaluator": (">=", 1.3),
    "mining": (">=", 1.5),
}


def in_batch(losses: Any, model: Any) -> Any:
    """Return the loss of the dense model."""
    return losses.MultipleNegativesRankingLoss(model)


def splade(losses: Any, model: Any) -> Any:
    """Return the loss of the sparse model."""
    return losses.SpladeLoss(model, losses.SparseMultipleNegativesRankingLoss(model), 3e-5, 5e-5)


def labelled(losses: Any, model: Any) -> Any:
    """Return the loss of the cross-encoder."""
    return losses.BinaryCrossEntropyLoss(model)


@dataclass(frozen=True, slots=True)
class Work:
    """A training: class and checkpoint of the model, rows of a batch, kinds of both texts, and loss."""

    kind: str
    checkpoint: str
    batch: int
    first: str
    second: str
    loss: Callable[[Any, Any], Any]
    has_labels: bool = False


WORKS = {
    "dense": Work("SentenceTransformer", "minilm", 32, "query", "mixed", in_batch),
    "sparse": Work("SparseEncoder", "splade", 16, "query", "describe", splade),
    "pairs": Work("CrossEncoder", "cross-encoder", 32, "query", "mixed", labelled, has_labels=True),
}


def rows_of(work: Work, count: int) -> list[dict[str, Any]]:
    """Return the rows of a training."""
    pairs = zip(texts(work.first, count, 0), texts(work.second, count, 0), strict=True)
    rows: list[dict[str, Any]] = [{"query": query, "answer": answer} for query, answer in pairs]
    if work.has_labels:
        return [row | {"label": float(place % 2)} for place, row in enumerate(rows)]
    return rows


def made(*, package: str, name: str, folder: str, steps: int, output: str) -> tuple[Any, Callable[[], Any]]:
    """Return the trainer of a work with a package."""
    work = WORKS[name]
    rows = rows_of(work, work.batch * steps)
    arguments = {"output_dir": output, "max_steps": steps, "per_device_train_batch_size": work.batch}
    return trainer_of(package, work.kind, folder, rows, work.loss, **arguments), lambda: None


def training(name: str, steps: int, *, is_cpu: bool, root: Path) -> dict[str, Any]:
    """Return the ratios of a training: steps per second, memory, and the largest difference of a loss."""
    folder = str(MAKERS[WORKS[name].checkpoint](root))
    arguments = {"name": name, "folder": folder, "output": str(root)}
    sides = both_trained(made, arguments, steps + WARM, is_cpu=is_cpu)
    ours, theirs = sides[OURS], sides[THEIRS]
    ratios = [other / own for own, other in zip(ours.seconds[WARM:], theirs.seconds[WARM:], strict=True)]
    apart = max(abs(own - other) / abs(other) for own, other in zip(ours.losses, theirs.losses, strict=True))
    assert apart < SAME_LOSS, f"{name}: the losses {ours.losses} differ from {theirs.losses}"
    return {
        f"{name} steps": spread(ratios),
        f"{name} memory": ours.megabytes / theirs.megabytes,
        f"{name} seconds a step": spread(ours.seconds[WARM:]),
        f"{name} megabytes": ours.megabytes,
        f"{name} loss apart": apart,
    }


def timed(call: Callable[[], Any], *, is_cpu: bool) -> tuple[float, Any]:
    """Return the seconds of a call and its result."""
    clock = time.process_time if is_cpu else time.perf_counter
    start = clock()
    result = call()
    return clock() - start, result


def evaluator(rounds: int, *, is_cpu: bool, root: Path) -> dict[str, Any]:
    """Return the ratio of the evaluator of 10,000 documents and 500 queries, whose metrics must be equal."""
    import sentence_transformers
    import sentence_transformers.sentence_transformer.evaluation as their_evaluation

    import st_core
    from st_core import evaluation

    folder = str(MAKERS["static"](root))
    documents = {f"d{place:05}": text for place, text in enumerate(texts("describe", 10_000, 0))}
    queries = {f"q{place}": " ".join(documents[f"d{place:05}"].split()[:8]) for place in range(500)}
    relevant = {f"q{place}": {f"d{place:05}"} for place in range(500)}
    mine = evaluation.InformationRetrievalEvaluator(queries, documents, relevant)
    theirs = their_evaluation.InformationRetrievalEvaluator(queries, documents, relevant)
    models = st_core.SentenceTransformer(folder), sentence_transformers.SentenceTransformer(folder, device="cpu")
    ratios = []
    for _ in range(rounds):
        own, values = timed(lambda: mine(models[0]), is_cpu=is_cpu)
        other, wanted = timed(lambda: theirs(models[1]), is_cpu=is_cpu)
        assert all(abs(values[name] - wanted[name]) < 1e-4 for name in wanted), (values, wanted)
        ratios.append(other / own)
    return {"evaluator": spread(ratios)}


def mining(rounds: int, *, is_cpu: bool, root: Path) -> dict[str, Any]:
    """Return the ratios of mining for 10,000 queries: in memory, whose rows must be equal, and through a store.

    The store is Qdrant in the process, which contains the documents already; the others encode them.
    """
    import sentence_transformers
    from datasets import Dataset
    from sentence_transformers.util import mine_hard_negatives

    import st_core
    from st_connectors.index import Index
    from st_connectors.mining import Mining, mine, pair_queries
    from st_core.mining import Selection

    folder = str(MAKERS["static"](root))
    rows = [{"query": " ".join(text.split()[:8]), "answer": text} for text in texts("describe", 10_000, 0)]
    rows = list({row["query"]: row for row in rows}.values())
    data = Dataset.from_list(rows)
    models = st_core.SentenceTransformer(folder), sentence_transformers.SentenceTransformer(folder, device="cpu")
    ratios, stored = [], []
    with Index.create(f"qdrant+edge:{root / 'store'}", collection="mining", dense=models[0]) as index:
        index.ingest([{"id": f"d{place}", "text": row["answer"]} for place, row in enumerate(rows)])
        queries = pair_queries(rows, "query", "answer")
        through = Mining(Selection(near_duplicates=None), mode="dense")
        for _ in range(rounds):
            own, found = timed(
                lambda: st_core.mine_hard_negatives(rows, models[0], near_duplicates=None, verbose=False), is_cpu=is_cpu
            )
            other, wanted = timed(lambda: mine_hard_negatives(data, models[1], verbose=False), is_cpu=is_cpu)
            same = sum(row["negative"] == theirs["negative"] for row, theirs in zip(found, wanted, strict=True))
            assert same > 0.999 * len(found), f"{same} of {len(found)} rows are equal"
            ratios.append(other / own)
            seconds, mined = timed(lambda: list(mine(index, queries, through)), is_cpu=is_cpu)
            assert len(mined) == len(queries)
            stored.append(other / seconds)
    return {"mining": spread(ratios), "mining through the store": spread(stored)}


OTHERS: Mapping[str, Callable[..., dict[str, Any]]] = {"evaluator": evaluator, "mining": mining}


def measure(works: Sequence[str], steps: int, *, is_cpu: bool) -> dict[str, Any]:
    """Return the figures of works."""
    figures: dict[str, Any] = {}
    with TemporaryDirectory() as folder:
        for name in works:
            root = Path(folder)
            if name in WORKS:
                figures |= training(name, steps, is_cpu=is_cpu, root=root)
            else:
                figures |= OTHERS[name](max(1, steps // 3), is_cpu=is_cpu, root=root)
    return figures


def main() -> int:
    """Measure the works of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("works", nargs="*", metavar="WORK", default=[])
    parser.add_argument("--steps", type=int, default=9)
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    os.environ["TQDM_DISABLE"] = "1"  # sentence-transformers draws bars that no argument turns off
    works = options.works or [*WORKS, *OTHERS]
    unknown = [name for name in works if name not in WORKS and name not in OTHERS]
    if unknown:
        print(f"unknown work {unknown[0]}; expected some of {', '.join([*WORKS, *OTHERS])}", file=sys.stderr)
        return 2
    figures = measure(works, options.steps, is_cpu=options.cpu)
    return report(figures, {name: target for name, target in TARGETS.items() if name in figures})


if __name__ == "__main__":
    raise SystemExit(main())
