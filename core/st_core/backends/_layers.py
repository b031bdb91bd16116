"""The rarer modules in torch: each becomes a function from features to features."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch

from st_core.modules.dropout import Dropout
from st_core.modules.logit_score import LogitScore

if TYPE_CHECKING:
    from st_core.backends import Features

__all__ = ["STEPS", "Step"]

Step = Callable[["Features"], "Features"]


def logit_score(module: LogitScore, _device: torch.device, _dtype: torch.dtype) -> Step:
    """The logits [n, t, V] of an answer at the last position become scores [n, 1]."""

    def step(features: Features) -> Features:
        logits = features[module.reads][:, -1]
        scores = logits[:, module.true]
        if module.false is not None:
            scores = scores - logits[:, module.false]
        return features | {module.writes: scores[:, None]}

    return step


STEPS: Mapping[type, Callable[[Any, torch.device, torch.dtype], Step]] = {
    Dropout: lambda _module, _device, _dtype: lambda features: features,
    LogitScore: logit_score,
}
"""What makes a step of a module, by the type of its dataclass."""
