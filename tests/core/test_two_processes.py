"""Two processes, as torchrun starts them, train together on the processor: by gloo, where devices would use NCCL."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("accelerate", reason="the trainers need it")

import st_core  # noqa: E402 - after the guard
from st_core.training import trainer as trainers  # noqa: E402 - after the guard
from st_core.training.form import form_of  # noqa: E402 - after the guard
from st_core.training.losses import dense, reranking, sparse  # noqa: E402 - after the guard

pytestmark = [pytest.mark.torch, pytest.mark.long, pytest.mark.skipif(os.name != "posix", reason="needs gloo")]

ROWS = [
    {"anchor": f"question {place} about {'trees ' * (place % 3)}", "positive": f"answer {place * 7 % 13} of a fox"}
    for place in range(32)
]


def distilling(model):
    """A loss with a parameter of its own."""
    torch.manual_seed(4)
    return dense.EmbedDistillLoss(model, projection_dim=5)


KINDS = {
    "ranking": (
        "SentenceTransformer",
        "bert-mean",
        lambda model: dense.MultipleNegativesRankingLoss(model, gather_across_devices=True),
    ),
    "cached": (
        "SentenceTransformer",
        "bert-mean",
        lambda model: dense.CachedMultipleNegativesRankingLoss(model, mini_batch_size=3, gather_across_devices=True),
    ),
    "distilling": ("SentenceTransformer", "bert-mean", distilling),
    "sparse": (
        "SparseEncoder",
        "splade-max",
        lambda model: sparse.SpladeLoss(
            model, sparse.SparseMultipleNegativesRankingLoss(model, gather_across_devices=True), 0.0, 0.0
        ),
    ),
    "pairs": ("CrossEncoder", "rerank-bert", reranking.BinaryCrossEntropyLoss),
}
"""The kind of the model, its checkpoint, and the loss; each loss of a batch is the mean of those of its halves."""


def trained(name, folder, output, size, **options):
    """Train without dropout, and return the trainer."""
    kind, _, loss_of = KINDS[name]
    model = getattr(st_core, kind)(folder, device="cpu")
    for module in form_of(model).modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    rows = ROWS
    if name == "distilling":
        rows = [row | {"label": [place % 3, 1.0, 0.5, -1.0, place / 20]} for place, row in enumerate(ROWS)]
    if name == "pairs":
        rows = [row | {"label": float(place % 2)} for place, row in enumerate(ROWS)]
    args = getattr(trainers, f"{kind}TrainingArguments")(
        output_dir=output,
        num_train_epochs=2,
        per_device_train_batch_size=size,
        logging_steps=1,
        save_steps=3,
        learning_rate=0.05,
        optim="sgd",  # Adam would enlarge the rounding of gradients that are zero
        disable_tqdm=True,
        use_cpu=True,
        **options,
    )
    trainer = getattr(trainers, f"{kind}Trainer")(model=model, args=args, train_dataset=rows, loss=loss_of(model))
    trainer.train()
    return trainer


SCRIPT = """
import os, sys
import torch
from test_two_processes import trained

torch.set_num_threads(1)
name, folder, output = sys.argv[1:]
trainer = trained(name, folder, output, 4)
torch.save(trainer.objective.state_dict(), f"{output}.{os.environ['RANK']}")
"""


def free_port() -> int:
    """Return a port that is not in use."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.mark.parametrize("name", list(KINDS))
def test_two_processes_train_as_one(checkpoints, tmp_path, name):
    """Weights, also of the loss, are those of one process with the whole batch; one process writes checkpoints."""
    folder, output = str(checkpoints.folder(KINDS[name][1])), str(tmp_path / "two")
    whole = trained(name, folder, str(tmp_path / "one"), 8)
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    common = {"PYTHONPATH": paths, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}

    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, name, folder, output],
            env=os.environ | common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for rank in range(2)
    ]
    printed = [process.communicate(timeout=240)[0].decode() for process in processes]

    assert [process.returncode for process in processes] == [0, 0], "\n".join(printed)
    found = [torch.load(f"{output}.{rank}") for rank in range(2)]
    wanted = whole.objective.state_dict()
    for key, value in wanted.items():
        first, second = (next(v for k, v in each.items() if k.removeprefix("module.") == key) for each in found)
        assert torch.equal(first, second), key
        assert (first - value).abs().max() <= 2e-5 * max(1.0, float(value.abs().max())), key
    assert sorted(path.name for path in Path(output).iterdir()) == ["checkpoint-3", "checkpoint-6", "checkpoint-8"]
