"""What the processes of a distributed training share: embeddings with gradients, and decisions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed

__all__ = ["gathered", "in_any_process", "rank"]


def is_distributed() -> bool:
    """Return whether several processes train together."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def rank() -> int:
    """Return the number of this process, 0 for a single one."""
    return distributed.get_rank() if is_distributed() else 0


def gathered(rows: Tensor) -> Tensor:
    """Return the rows [n, d] of all processes [processes * n, d]; their gradients flow back to each process."""
    if not is_distributed():
        return rows
    from torch.distributed.nn import functional

    gather: Any = functional.all_gather  # torch has no types for it
    return torch.cat(list(gather(rows)))


def in_any_process(is_true: bool, device: torch.device) -> bool:
    """Return whether a condition is true in one of the processes, each of which must call this at the same step.

    ``device`` is that of the training, because NCCL reduces tensors on GPUs only.
    """
    if not is_distributed():
        return is_true
    flag = torch.tensor(float(is_true), device=device)
    distributed.all_reduce(flag, distributed.ReduceOp.MAX)
    return bool(flag)
