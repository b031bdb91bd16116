"""Compare trainings, the retrieval evaluator and mining with those of sentence-transformers, side by side.

    python -m bench.train [WORK ...] [--steps N] [--cpu] [--json]

Works are dense (MiniLM, mixed lengths), sparse (SPLADE of DistilBERT's size), pairs (a cross-encoder), evaluator and
mining. Both libraries train the same checkpoint on the same rows without dropout, each in a process of its own, and
take turns step by step. Memory is the growth of the largest resident memory from before the training. ``--cpu``
measures the seconds of the processor in place of the clock, for a machine that does other work too.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench.checkpoints import MAKERS
from bench.figures import report, spread
from bench.texts import texts

OURS, THEIRS = "st_core", "sentence_transformers"
WARM = 2
"""Steps before those that are measured."""

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


@dataclass(frozen=True, slots=True)
class Work:
    """A training: the class of the model, its checkpoint, the rows of a batch, and the kinds of both texts."""

    kind: str
    checkpoint: str
    batch: int
    first: str
    second: str
    losses: str
    has_labels: bool = False


WORKS = {
    "dense": Work("SentenceTransformer", "minilm", 32, "query", "mixed", "sentence_transformer.losses"),
    "sparse": Work("SparseEncoder", "splade", 16, "query", "describe", "sparse_encoder.losses"),
    "pairs": Work("CrossEncoder", "cross-encoder", 32, "query", "mixed", "cross_encoder.losses", has_labels=True),
}


def rows_of(work: Work, count: int) -> list[dict[str, Any]]:
    """Return the rows of a training."""
    pairs = zip(texts(work.first, count, 0), texts(work.second, count, 0), strict=True)
    rows: list[dict[str, Any]] = [{"query": query, "answer": answer} for query, answer in pairs]
    if work.has_labels:
        return [row | {"label": float(place % 2)} for place, row in enumerate(rows)]
    return rows


def loss_of(work: Work, package: str, model: Any) -> Any:
    """Return the loss of a training."""
    losses = import_module(f"{package}.{work.losses}")
    if work.kind == "SentenceTransformer":
        return losses.MultipleNegativesRankingLoss(model)
    if work.kind == "CrossEncoder":
        return losses.BinaryCrossEntropyLoss(model)
    return losses.SpladeLoss(model, losses.SparseMultipleNegativesRankingLoss(model), 3e-5, 5e-5)


def peak_mb() -> float:
    """Return the largest resident memory of this process so far."""
    status = Path("/proc/self/status").read_text("ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def train(pipe: Any, name: str, package: str, folder: str, steps: int, output: str, is_cpu: bool) -> None:
    """Train for some steps, each after an order, and answer with its seconds; then with memory and losses."""
    import torch
    from transformers import TrainerCallback

    work = WORKS[name]
    clock = time.process_time if is_cpu else time.perf_counter
    torch.set_num_threads(1 if is_cpu else torch.get_num_threads())
    library = import_module(package)
    model = getattr(library, work.kind)(folder, device="cpu")
    rows: Any = rows_of(work, work.batch * (steps + WARM))
    if package == THEIRS:
        from datasets import Dataset

        rows = Dataset.from_list(rows)
    loss = loss_of(work, package, model)
    for module in loss.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0

    class Turns(TrainerCallback):  # type: ignore[misc]  # the library is not checked
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            pipe.recv()
            self.start = clock()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            pipe.send(clock() - self.start)

    args = getattr(library, f"{work.kind}TrainingArguments")(
        output_dir=output,
        max_steps=steps + WARM,
        per_device_train_batch_size=work.batch,
        logging_steps=1,
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = getattr(library, f"{work.kind}Trainer")(
        model=model, args=args, train_dataset=rows, loss=loss, callbacks=[Turns()]
    )
    before = peak_mb()
    trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    pipe.send((peak_mb() - before, losses))


def training(name: str, steps: int, *, is_cpu: bool, root: Path) -> dict[str, Any]:
    """Return the ratios of a training: steps per second, memory, and the largest difference of a loss."""
    context = multiprocessing.get_context("spawn")
    folder = str(MAKERS[WORKS[name].checkpoint](root))
    pipes = {}
    for package in (OURS, THEIRS):
        pipes[package], end = context.Pipe()
        arguments = (end, name, package, folder, steps, str(root / package), is_cpu)
        context.Process(target=train, args=arguments, daemon=True).start()
    seconds: dict[str, list[float]] = {OURS: [], THEIRS: []}
    for number in range(steps + WARM):
        for package in (OURS, THEIRS) if number % 2 else (THEIRS, OURS):
            pipes[package].send(None)
            seconds[package].append(pipes[package].recv())
    memory, losses = zip(*(pipes[package].recv() for package in (OURS, THEIRS)), strict=True)
    ratios = [theirs / ours for ours, theirs in zip(seconds[OURS][WARM:], seconds[THEIRS][WARM:], strict=True)]
    apart = max(abs(ours - theirs) / max(abs(theirs), 1e-9) for ours, theirs in zip(*losses, strict=True))
    return {
        f"{name} steps": spread(ratios),
        f"{name} memory": memory[0] / memory[1],
        f"{name} seconds": statistics.median(seconds[OURS][WARM:]),
        f"{name} megabytes": memory[0],
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
    """Return the ratio of mining for 10,000 queries in memory, whose rows must be equal."""
    import sentence_transformers
    from datasets import Dataset
    from sentence_transformers.util import mine_hard_negatives

    import st_core

    folder = str(MAKERS["static"](root))
    rows = [{"query": " ".join(text.split()[:8]), "answer": text} for text in texts("describe", 10_000, 0)]
    rows = list({row["query"]: row for row in rows}.values())
    data = Dataset.from_list(rows)
    models = st_core.SentenceTransformer(folder), sentence_transformers.SentenceTransformer(folder, device="cpu")
    ratios = []
    for _ in range(rounds):
        own, found = timed(lambda: st_core.mine_hard_negatives(rows, models[0], near_duplicates=None), is_cpu=is_cpu)
        other, wanted = timed(lambda: mine_hard_negatives(data, models[1], verbose=False), is_cpu=is_cpu)
        same = sum(row["negative"] == theirs["negative"] for row, theirs in zip(found, wanted, strict=True))
        assert same > 0.999 * len(found), f"{same} of {len(found)} rows are equal"
        ratios.append(other / own)
    return {"mining": spread(ratios)}


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
    works = options.works or [*WORKS, *OTHERS]
    unknown = [name for name in works if name not in WORKS and name not in OTHERS]
    if unknown:
        print(f"unknown work {unknown[0]}; expected some of {', '.join([*WORKS, *OTHERS])}", file=sys.stderr)
        return 2
    figures = measure(works, options.steps, is_cpu=options.cpu)
    return report(figures, {name: target for name, target in TARGETS.items() if name in figures})


if __name__ == "__main__":
    raise SystemExit(main())
