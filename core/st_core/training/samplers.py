"""Which rows are trained on together: the batches of an epoch, planned ahead and equal on all devices.

A plan is a function of the seed and the epoch alone. Rows of an epoch are those that sentence-transformers 6.2 draws
for the same seed.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Hashable, Iterator, Sequence
from enum import StrEnum
from typing import Any

import torch

from st_core.training.columns import LABELS

__all__ = [
    "BatchSamplers",
    "DefaultBatchSampler",
    "GroupByLabelBatchSampler",
    "MultiDatasetBatchSamplers",
    "MultiDatasetDefaultBatchSampler",
    "NoDuplicatesBatchSampler",
    "ProportionalBatchSampler",
    "RoundRobinBatchSampler",
]

logger = logging.getLogger(__name__)

REFILLS = 2
"""Further passes over the rows when equal texts leave an epoch with fewer batches than its length."""

MIN_GROUPED = 4
"""The smallest batch with two rows of each of two labels."""


class BatchSamplers(StrEnum):
    """The names of batch samplers of a single data set."""

    BATCH_SAMPLER = "batch_sampler"
    NO_DUPLICATES = "no_duplicates"
    NO_DUPLICATES_HASHED = "no_duplicates_hashed"
    GROUP_BY_LABEL = "group_by_label"


class MultiDatasetBatchSamplers(StrEnum):
    """The names of the orders in which several data sets are read."""

    ROUND_ROBIN = "round_robin"
    PROPORTIONAL = "proportional"


class DefaultBatchSampler:
    """Yields the batches of an epoch in random order, each row once; the base of the samplers of one data set."""

    def __init__(  # noqa: PLR0917 - the order of sentence-transformers
        self,
        dataset: Any,
        batch_size: int,
        drop_last: bool,
        valid_label_columns: Sequence[str] | None = None,
        generator: torch.Generator | None = None,
        seed: int = 0,
    ) -> None:
        """Store the rows, or only their number, and how to divide them."""
        self.dataset = dataset
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.valid_label_columns = LABELS if valid_label_columns is None else tuple(valid_label_columns)
        self.generator = torch.Generator() if generator is None else generator
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which with the seed decides the order."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Return the number of batches."""
        rows = len(self.dataset)
        return rows // self.batch_size if self.drop_last else -(-rows // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        self.generator.manual_seed(self.seed + self.epoch)
        return self.drawn()

    def drawn(self) -> Iterator[list[int]]:
        """Yield batches with the generator as it is."""
        order = torch.randperm(len(self.dataset), generator=self.generator).tolist()
        return _slices(order, self.batch_size, drop_last=self.drop_last)


def _slices(order: Sequence[int], size: int, *, drop_last: bool) -> Iterator[list[int]]:
    for start in range(0, len(order), size):
        batch = list(order[start : start + size])
        if len(batch) == size or not drop_last:
            yield batch


class NoDuplicatesBatchSampler(DefaultBatchSampler):
    """Yields batches in which no text occurs in two rows; a row that would repeat one waits for a later batch."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Give equal texts of the rows equal numbers."""
        super().__init__(*args, **kwargs)
        self._texts = _numbered(self.dataset, self.valid_label_columns)

    def drawn(self) -> Iterator[list[int]]:
        """Yield batches; if equal texts leave fewer than the length promises, more are drawn from all rows."""
        count = 0
        for batch in self._pass():
            count += 1
            yield batch
        if count in range(1, len(self)):
            logger.warning(
                "equal texts leave %d batches of %d in an epoch; rows are repeated to fill the others", count, len(self)
            )
            for _ in range(REFILLS):
                for batch in self._pass():
                    if count == len(self):
                        return
                    count += 1
                    yield batch
        if count < len(self):
            logger.warning("equal texts leave %d batches of %d; use a smaller batch size", count, len(self))

    def _pass(self) -> Iterator[list[int]]:
        """Yield the batches of one pass over all rows in random order."""
        order = torch.randperm(len(self.dataset), generator=self.generator, dtype=torch.int32).tolist()
        waiting = deque(order)
        while waiting:
            batch = self._next_batch(waiting)
            if len(batch) == self.batch_size or not self.drop_last:
                yield batch

    def _next_batch(self, waiting: deque[int]) -> list[int]:
        """Take the first rows without equal texts out of those that wait; the others stay in order."""
        batch: list[int] = []
        later: list[int] = []
        taken: set[int] = set()
        while waiting and len(batch) < self.batch_size:
            row = waiting.popleft()
            if taken.isdisjoint(self._texts[row]):
                batch.append(row)
                taken.update(self._texts[row])
            else:
                later.append(row)
        waiting.extendleft(reversed(later))
        return batch


def _numbered(dataset: Any, label_columns: Sequence[str]) -> list[tuple[int, ...]]:
    """Return for each row the numbers of its values other than labels; equal values have equal numbers."""
    numbers: dict[str, int] = {}
    return [
        tuple(numbers.setdefault(str(value), len(numbers)) for value in _values(row, label_columns))
        for row in (dataset[position] for position in range(len(dataset)))
    ]


def _values(row: Any, label_columns: Sequence[str]) -> list[Any]:
    label = set(label_columns) | {"dataset_name"}
    return [value for name, value in row.items() if name not in label]


class GroupByLabelBatchSampler(DefaultBatchSampler):
    """Yields batches with two rows of each label in turn, so that every batch has pairs of equal labels.

    Labels with a single row are left out, and so are rows of a label that no other label accompanies any more. Raises
    ValueError for an odd batch size or one below four, and for fewer than two labels.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Group the rows by label."""
        super().__init__(*args, **kwargs)
        if self.batch_size < MIN_GROUPED or self.batch_size % 2:
            raise ValueError(f"group_by_label needs an even batch size of at least 4, got {self.batch_size}")
        groups: dict[Hashable, list[int]] = {}
        for position in range(len(self.dataset)):
            row = self.dataset[position]
            name = next((each for each in self.valid_label_columns if each in row), None)
            if name is None:
                raise ValueError(f"group_by_label needs a column of labels; the columns are {', '.join(row)}")
            groups.setdefault(row[name], []).append(position)
        self._groups = [rows for rows in groups.values() if len(rows) > 1]
        if len(self._groups) < 2:
            raise ValueError(f"group_by_label needs at least two labels with two rows each, got {len(self._groups)}")

    def __len__(self) -> int:
        """Return the number of batches."""
        pairs = sorted(len(rows) // 2 for rows in self._groups)
        rows = 2 * sum(min(each, pairs[-2]) for each in pairs)
        whole, rest = divmod(rows, self.batch_size)
        return whole + (not self.drop_last and rest >= MIN_GROUPED)

    def drawn(self) -> Iterator[list[int]]:
        """Yield batches."""
        batch: list[int] = []
        for pair in self._pairs():
            batch = [*batch, *pair]
            if len(batch) == self.batch_size:
                yield batch
                batch = []
        if len(batch) >= MIN_GROUPED and not self.drop_last:
            yield batch

    def _pairs(self) -> Iterator[list[int]]:
        """Yield two rows of each label in rounds, in another order of labels each round."""
        count = 0
        queues = [deque(self._shuffled(rows)) for rows in self._groups]
        last: deque[int] | None = None
        while len(queues) > 1:
            queues = [queues[place] for place in torch.randperm(len(queues), generator=self.generator).tolist()]
            if count % self.batch_size and queues[0] is last:
                queues[0], queues[1] = queues[1], queues[0]
            for queue in queues:
                count += 2
                yield [queue.popleft(), queue.popleft()]
            last = queues[-1]
            queues = [queue for queue in queues if queue]

    def _shuffled(self, rows: Sequence[int]) -> list[int]:
        order = torch.randperm(len(rows), generator=self.generator)[: len(rows) // 2 * 2].tolist()
        return [rows[place] for place in order]


class MultiDatasetDefaultBatchSampler(ABC):
    """The base of the orders in which several data sets are read; every batch is of one data set."""

    def __init__(
        self,
        dataset: Any,
        batch_samplers: Sequence[Any],
        generator: torch.Generator | None = None,
        seed: int = 0,
    ) -> None:
        """Store the samplers of the data sets in ``dataset``, whose ``datasets`` are in the same order."""
        self.dataset = dataset
        self.batch_samplers = list(batch_samplers)
        self.batch_size = batch_samplers[0].batch_size
        self.drop_last = batch_samplers[0].drop_last
        self.generator = torch.Generator() if generator is None else generator
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of all samplers."""
        self.epoch = epoch
        for sampler in self.batch_samplers:
            if hasattr(sampler, "set_epoch"):
                sampler.set_epoch(epoch)

    @abstractmethod
    def __iter__(self) -> Iterator[list[int]]: ...

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of batches."""

    def _offsets(self) -> list[int]:
        """Return the position of the first row of each data set."""
        sizes = [len(each) for each in self.dataset.datasets]
        return [sum(sizes[:place]) for place in range(len(sizes))]

    def _started(self) -> list[Iterator[list[int]]]:
        """Return the batches of each data set, which draw from the generator when their first batch is read."""
        return [_lazily(sampler) for sampler in self.batch_samplers]


def _lazily(sampler: Any) -> Iterator[list[int]]:
    """Yield the batches of one of several data sets; the default order continues the shared generator."""
    yield from sampler.drawn() if type(sampler) is DefaultBatchSampler else sampler


class RoundRobinBatchSampler(MultiDatasetDefaultBatchSampler):
    """Yields one batch of each data set in turn, until one has no more."""

    def __iter__(self) -> Iterator[list[int]]:
        self.generator.manual_seed(self.seed + self.epoch)
        offsets = self._offsets()
        for batches in zip(*self._started(), strict=False):
            for offset, batch in zip(offsets, batches, strict=True):
                yield [row + offset for row in batch]

    def __len__(self) -> int:
        """Return the number of batches."""
        return min(map(len, self.batch_samplers)) * len(self.batch_samplers)


class ProportionalBatchSampler(MultiDatasetDefaultBatchSampler):
    """Yields all batches of all data sets, in random order."""

    def __iter__(self) -> Iterator[list[int]]:
        self.generator.manual_seed(self.seed + self.epoch)
        turns = [place for place, sampler in enumerate(self.batch_samplers) for _ in range(len(sampler))]
        offsets, started = self._offsets(), self._started()
        for turn in torch.randperm(len(turns), generator=self.generator).tolist():
            place = turns[turn]
            batch = next(started[place], None)
            if batch is not None:
                yield [row + offsets[place] for row in batch]

    def __len__(self) -> int:
        """Return the number of batches."""
        return sum(map(len, self.batch_samplers))
