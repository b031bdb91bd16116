"""Batches are those that sentence-transformers draws for the same seed and epoch."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs torch")
their = pytest.importorskip("sentence_transformers.base.sampler", reason="the batches are compared with its batches")
datasets = pytest.importorskip("datasets", reason="its samplers read its data sets")
pytest.importorskip("accelerate", reason="the trainers need it")

from torch.utils.data import ConcatDataset, RandomSampler  # noqa: E402 - after the guard

from st_core.training import samplers  # noqa: E402 - after the guard
from st_core.training.columns import Matching  # noqa: E402 - after the guard
from st_core.training.examples import Concatenated, Examples  # noqa: E402 - after the guard

pytestmark = pytest.mark.torch

LABELS = ["label", "labels", "score", "scores"]


def rows_of(count, distinct):
    """Rows whose answers repeat after ``distinct`` rows."""
    return [
        {"question": f"question {place}", "answer": f"answer {place * 3 % distinct}", "label": place % 4}
        for place in range(count)
    ]


def batches(package, name, rows, *, size, epoch, drop_last=False):
    """The batches of an epoch."""
    table = datasets.Dataset.from_list(rows) if package is their else rows
    sampler = getattr(package, name)(
        table, batch_size=size, drop_last=drop_last, valid_label_columns=LABELS, generator=torch.Generator(), seed=7
    )
    sampler.set_epoch(epoch)
    return list(sampler), len(sampler)


@pytest.mark.parametrize("epoch", [0, 2])
@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize(("count", "distinct"), [(40, 40), (41, 9), (30, 2)])
def test_batches_without_duplicates_are_theirs(count, distinct, drop_last, epoch):
    """Also where equal texts leave too few batches, and rows are drawn again."""
    arguments = {"size": 5, "epoch": epoch, "drop_last": drop_last}
    ours, length = batches(samplers, "NoDuplicatesBatchSampler", rows_of(count, distinct), **arguments)
    wanted, their_length = batches(their, "NoDuplicatesBatchSampler", rows_of(count, distinct), **arguments)

    assert (ours, length) == (wanted, their_length)


def test_no_text_is_twice_in_a_batch():
    """Within and across columns; every row is in a batch."""
    rows = [*rows_of(41, 9), {"question": "answer 3", "answer": "question 4", "label": 0}]
    found, _ = batches(samplers, "NoDuplicatesBatchSampler", rows, size=6, epoch=1)

    assert sorted(row for batch in found for row in batch) == list(range(42))
    for batch in found:
        texts = [rows[row][name] for row in batch for name in ("question", "answer")]
        assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("epoch", [0, 3])
@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("size", [4, 10])
def test_batches_by_label_are_theirs(size, drop_last, epoch):
    """Two rows of each label in turn."""
    arguments = {"size": size, "epoch": epoch, "drop_last": drop_last}
    rows = [*rows_of(37, 40), *rows_of(5, 5)[:1], {"question": "alone", "answer": "alone", "label": 9}]

    assert batches(samplers, "GroupByLabelBatchSampler", rows, **arguments) == batches(
        their, "GroupByLabelBatchSampler", rows, **arguments
    )


@pytest.mark.parametrize(
    ("size", "labels", "message"),
    [(5, [0, 0, 1, 1], "even batch size"), (2, [0, 0, 1, 1], "at least 4"), (4, [0, 0, 1, 2], "got 1")],
)
def test_batches_by_label_need_labels(size, labels, message):
    """At least two, with two rows each."""
    with pytest.raises(ValueError, match=message):
        samplers.GroupByLabelBatchSampler([{"text": "a", "label": each} for each in labels], size, drop_last=False)


@pytest.mark.parametrize("epoch", [0, 1])
@pytest.mark.parametrize("kind", ["DefaultBatchSampler", "NoDuplicatesBatchSampler"])
@pytest.mark.parametrize("order", ["ProportionalBatchSampler", "RoundRobinBatchSampler"])
def test_several_data_sets_are_read_in_their_order(order, kind, epoch):
    """Batches of the same rows, from the same set at the same time."""
    tables = [rows_of(count, 12) for count in (17, 5, 30)]

    def drawn(package):
        generator = torch.Generator()
        parts = []
        for table in tables:
            rows = datasets.Dataset.from_list(table) if package is their else table
            if package is their and kind == "DefaultBatchSampler":
                rows = RandomSampler(rows, generator=generator)
            parts.append(
                getattr(package, kind)(
                    rows, batch_size=4, drop_last=False, valid_label_columns=LABELS, generator=generator, seed=5
                )
            )
        sets = [Examples(str(place), table, Matching(("question",), None)) for place, table in enumerate(tables)]
        whole = ConcatDataset(tables) if package is their else Concatenated(tuple(sets))
        sampler = getattr(package, order)(whole, parts, generator=generator, seed=5)
        sampler.set_epoch(epoch)
        return list(sampler), len(sampler)

    assert drawn(samplers) == drawn(their)
