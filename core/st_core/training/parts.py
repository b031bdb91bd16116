"""Compute columns in parts, so that little is padded, and large batches in the memory of small ones.

With cached gradients (arXiv 2101.06983) all rows are computed without gradients, in parts; the loss and its gradients
with respect to the outputs are computed; then each part is computed again, with the same random numbers, and its
gradients are passed on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from st_core.engine.batches import Budget, cut

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from st_core.training.form import Form

__all__ = ["Function", "check_parts", "computed_in_parts", "with_cached_gradients"]

UNLIMITED = 1 << 62

PADDED_TOKENS = 256
"""Tokens of a part on the CPU, with padding. Loss and gradients of a step of ``bench.train`` take 2.2 s of one core for
MiniLM in such parts, 2.6 in parts of 512 tokens; for SPLADE of DistilBERT's size 6.5, 7.3, and 14 in parts of 4,096."""

UNPADDED_TOKENS = 512
"""Tokens of a part on the CPU where padding is left out. On two cores MiniLM takes 1.62, 1.47, 1.29, 1.30 and 1.26 s in
parts of 256, 384, 512, 768 and 1,024 tokens; SPLADE of DistilBERT's size 3.10, 2.91, 2.83 and 3.19 s up to 768."""

Function: TypeAlias = Callable[[list[Tensor]], Any]
"""A function from the outputs [n, …] of each column to a loss, or to the parts of one by name."""


@dataclass(frozen=True, slots=True)
class _Random:
    """The states of the random generators of the CPU and of a device."""

    cpu: Tensor
    device: torch.device
    own: Tensor | None

    @classmethod
    def now(cls, device: torch.device) -> _Random:
        """Return the current states."""
        own = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        return cls(torch.get_rng_state(), device, own)

    @contextmanager
    def again(self) -> Iterator[None]:
        """Draw the same numbers again inside the block."""
        with torch.random.fork_rng([] if self.own is None else [self.device]):
            torch.set_rng_state(self.cpu)
            if self.own is not None:
                torch.cuda.set_rng_state(self.own, self.device)
            yield


@dataclass(frozen=True, slots=True)
class _Part:
    """Rows of a column that are computed together."""

    column: int
    rows: Tensor
    features: Mapping[str, Any]

    def compute(self, form: Form, output: str) -> Tensor:
        """Return the output of the rows."""
        result: Tensor = form(self.features)[output]
        return result


def check_parts(rows: int, tokens: int | None) -> None:
    """Raise ValueError for sizes of parts that are not positive."""
    if rows < 1 or (tokens is not None and tokens < 1):
        raise ValueError(f"mini-batches need at least one row and one token, got {rows} rows and {tokens} tokens")


def _parts(features: Sequence[Mapping[str, Any]], budget: Budget) -> list[_Part]:
    """Divide each column into parts of rows of similar length."""
    return [
        _Part(column, torch.from_numpy(positions), _taken(each, positions.tolist()))
        for column, each in enumerate(features)
        for positions in cut(_lengths(each), budget)
    ]


def _lengths(features: Mapping[str, Any]) -> NDArray[np.int64]:
    """Return the numbers of tokens of rows [n]."""
    mask: Tensor = features["attention_mask"]
    return mask.sum(dim=1).cpu().numpy().astype(np.int64)


def _taken(features: Mapping[str, Any], rows: list[int]) -> dict[str, Any]:
    """Return some rows of features, without the padding that none of them needs."""
    shape = features["attention_mask"].shape
    is_used = features["attention_mask"][rows].any(dim=0)
    is_used[0] |= not bool(is_used.any())

    def take(value: Any) -> Any:
        if isinstance(value, tuple) and len(value) == shape[0]:
            return tuple(value[row] for row in rows)
        if not isinstance(value, Tensor) or value.ndim == 0 or len(value) != shape[0]:
            return value
        return value[rows][:, is_used] if value.shape[:2] == shape else value[rows]

    return {name: take(value) for name, value in features.items()}


def computed_in_parts(form: Form, features: Mapping[str, Any], output: str, rows: int | None = None) -> Tensor:
    """Return an output of all rows [n, …], in order, with gradients; a part has at most ``rows`` rows."""
    parts = _parts([features], _budget(form, rows))
    return _whole(parts, [part.compute(form, output) for part in parts], 1)[0]


def _budget(form: Form, rows: int | None) -> Budget:
    """Return what is computed together: everything, except on the CPU."""
    if form.device.type != "cpu":
        return Budget(UNLIMITED, rows)
    if form.leaves_out_padding:
        return Budget(UNPADDED_TOKENS, rows, padding=2.0)
    return Budget(PADDED_TOKENS, rows)


def _whole(parts: Sequence[_Part], pieces: Sequence[Tensor], columns: int) -> list[Tensor]:
    """Return the outputs of each column in the order of its rows."""
    results = []
    for column in range(columns):
        own = [(part.rows, piece) for part, piece in zip(parts, pieces, strict=True) if part.column == column]
        order = torch.argsort(torch.cat([rows for rows, _ in own]))
        results.append(torch.cat([piece for _, piece in own])[order.to(own[0][1].device)])
    return results


def with_cached_gradients(
    form: Form,
    features: Sequence[Mapping[str, Any]],
    function: Function,
    output: str,
    *,
    rows: int,
    tokens: int | None = None,
) -> Any:
    """Return a function of an output of all columns, whose backward pass computes every part again.

    The result is a number, or parts by name of which the first carries the gradient. ``function`` must have no
    parameters of its own.
    """
    parts = _parts(features, Budget(UNLIMITED if tokens is None else tokens, rows))
    if not torch.is_grad_enabled():
        return function(_whole(parts, [part.compute(form, output) for part in parts], len(features)))
    states, pieces = [], []
    with torch.no_grad():
        for part in parts:
            states.append(_Random.now(form.device))
            pieces.append(part.compute(form, output))
    leaves = [each.detach().requires_grad_() for each in _whole(parts, pieces, len(features))]
    value = function(leaves)
    total = torch.stack(list(value.values())).sum() if isinstance(value, Mapping) else value
    gradients = torch.autograd.grad(total, leaves, allow_unused=True)

    def replayed(upstream: Tensor, parameters: Mapping[str, Tensor]) -> None:
        for part, state in zip(parts, states, strict=True):
            gradient = gradients[part.column]
            if gradient is not None:
                with torch.enable_grad(), state.again():
                    result = functional_call(form, dict(parameters), (part.features,))[output]
                torch.autograd.backward(result, gradient[part.rows.to(gradient.device)] * upstream)

    trained = {name: each for name, each in form.named_parameters() if each.requires_grad}
    leaf: Tensor = _Replayed.apply(total.detach(), replayed, list(trained), *trained.values())
    if not isinstance(value, Mapping):
        return leaf
    first, *others = value
    rest = {name: value[name].detach() for name in others}
    return {first: leaf - sum(rest.values()), **rest}


class _Replayed(torch.autograd.Function):
    """A number whose backward pass computes all parts again.

    The parts add up gradients in leaves that share the values of the parameters, so that each parameter receives its
    gradient once: DistributedDataParallel reduces it then, and refuses a second one.
    """

    @staticmethod
    def forward(
        ctx: Any, total: Tensor, replayed: Callable[..., None], names: list[str], *parameters: Tensor
    ) -> Tensor:
        """Return the number."""
        ctx.replayed, ctx.names, ctx.parameters = replayed, names, parameters
        return total.clone()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of the parameters."""
        leaves = {name: each.detach().requires_grad_() for name, each in zip(ctx.names, ctx.parameters, strict=True)}
        ctx.replayed(upstream[0], leaves)
        return (None, None, None, *(each.grad for each in leaves.values()))
