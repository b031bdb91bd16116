"""Export a stack of modules as a graph: trace it once with torch, then write the trace for a runtime.

The trace records the steps of the torch backend, so a graph gives the results of that backend; each new graph is run on
a few texts and compared before it is stored. The graphs of both runtimes are written from the same trace.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from st_core.backends import StackInfo
from st_core.backends.graph.first_token import keep_first_token
from st_core.backends.graph.folders import GraphSpec, write_tokenizer
from st_core.backends.graph.runner import GraphRunner, feeds_of
from st_core.backends.padding import mixes_padding
from st_core.backends.torch.hush import hushed
from st_core.backends.torch.library import LoadedTransformer, TransformerInfo, load_transformer, split_decoder
from st_core.backends.torch.modules import FusedSpladeStep, TransformerStep, make_step, reads_first_token
from st_core.backends.torch.pooling import VOCABULARY_BLOCK
from st_core.backends.torch.products import Linear
from st_core.errors import ModelUnsupported
from st_core.modules.pooling import Pooling
from st_core.modules.splade_pooling import SpladePooling
from st_core.modules.transformer import Transformer
from st_core.text.tokens import TextTokenizer, pad

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from st_core.backends import Features
    from st_core.backends.graph.runtimes import Runtime, Session
    from st_core.modules import Module

__all__ = ["Trace", "export_graph", "trace"]

logger = logging.getLogger(__name__)

PROBES = ("How do I copy a directory tree?", "text", "Seven words that are not about trees")
NEAR = 1e-4
"""The largest accepted difference of a new float32 graph from torch, relative to the largest value."""


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """A traced stack: the program, the names of its inputs and outputs, and its transformer's properties.

    ``example`` are the inputs that it was traced with, ``expected`` the outputs of torch for them.
    """

    program: ExportedProgram
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    info: TransformerInfo
    tokenizer: TextTokenizer
    example: Mapping[str, Tensor]
    expected: tuple[Tensor, ...]


class _Stack(nn.Module):
    """A stack as one torch module, from token ids to the outputs of the graph."""

    def __init__(self, steps: nn.ModuleList, outputs: tuple[str, ...]) -> None:
        super().__init__()
        self.steps = steps
        self.outputs = outputs

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor | None = None,
        prompt_length: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Return the features named by ``outputs``, in their order."""
        inputs = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "token_type_ids": token_type_ids,
            "prompt_length": prompt_length,
        }
        features: Features = {name: value for name, value in inputs.items() if value is not None}
        for step in self.steps:
            features = step(features)
        return tuple(features[name] for name in self.outputs)


def export_graph(
    stack: Sequence[Module],
    backend: str,
    dtype: str,
    folder: Path,
    *,
    calibration: Sequence[str] | Sequence[tuple[str, str]] = (),
    told: Callable[[str], None] = lambda _: None,
) -> GraphSpec:
    """Write the graph of a stack and its tokenizer to an empty folder.

    ``calibration`` are typical texts or pairs that fix int8 ranges; ``told`` is called with a description of each step.
    Raises ModelUnsupported for modules that cannot be part of a graph and where the results of the graph differ from
    torch's, and ImportError, naming the extra, where the runtime is not installed.
    """
    from st_core.backends.graph.runtimes import runtime

    chosen = runtime(backend)
    chosen.check(dtype, calibrated=bool(calibration))
    told("tracing it")
    traced = trace(stack)
    told(f"writing its graph for {backend}")
    first = stack[0]
    assert isinstance(first, Transformer)
    file = _written(chosen, backend, first.folder, traced, folder)
    told("comparing it with torch")
    session = chosen.open_session(folder / file, "float32", None)
    _compare(session, traced)
    even = _is_even(session, traced, first)
    if dtype != "float32":
        told(f"turning it into {dtype}")
        feeds = feeds_of(calibration, traced.tokenizer, traced.inputs, traced.info.max_length)
        chosen.reduce(folder / file, dtype, feeds)
    return GraphSpec(
        backend=backend,
        dtype=dtype,
        file=file,
        inputs=traced.inputs,
        outputs=traced.outputs,
        labels=traced.info.labels,
        positions=traced.info.positions,
        words=traced.info.words,
        max_length=traced.info.max_length,
        tokenizer=write_tokenizer(traced.tokenizer, folder),
        files={},
        calibrated=len(calibration),
        even=even,
    )


def _is_even(session: Session, traced: Trace, first: Transformer) -> bool:
    """Return whether all texts of a batch must have the same length."""
    info = StackInfo(traced.tokenizer, traced.info.max_length, positions=traced.info.positions)
    runner = GraphRunner(session, traced.inputs, traced.outputs, info)
    return mixes_padding(runner, first.model_type)


def trace(stack: Sequence[Module]) -> Trace:
    """Load a stack in float32 on the CPU and trace it; raise ModelUnsupported where tracing is impossible."""
    first, *rest = stack
    _check_kinds(first, rest)
    assert isinstance(first, Transformer)
    loaded = load_transformer(first, torch.device("cpu"), "float32")
    if first.task == "fill-mask":
        loaded = split_decoder(loaded)
    info, tokenizer = loaded.info, loaded.info.tokenizer
    if not isinstance(tokenizer, TextTokenizer):
        raise ModelUnsupported(
            f"{first.folder}: its texts go through a {type(tokenizer).__name__}, which graphs cannot store; "
            "load it with backend='torch'"
        )
    leaves_prompt = any(isinstance(each, Pooling) and not each.include_prompt for each in rest)
    example = _example(info, tokenizer, prompt=leaves_prompt)
    steps = _steps(first, loaded, rest)
    written = _run(steps, example)
    outputs = _outputs(written, rest)
    expected = tuple(written[name] for name in outputs)
    if outputs[0] != "token_embeddings" and reads_first_token(rest, pad_left=tokenizer.pad_left):
        outputs, expected = _cut_last_layer(loaded, steps, example, outputs, expected)
    module = _Stack(steps, outputs).eval()
    return Trace(_export(module, example, first.folder), tuple(example), outputs, info, tokenizer, example, expected)


def _check_kinds(first: Module, rest: Sequence[Module]) -> None:
    if not isinstance(first, Transformer):
        raise ModelUnsupported(
            f"a graph begins with a Transformer, not with a {type(first).__name__}; load it with backend='torch'"
        )
    for module in rest:
        if not module.is_traceable:
            raise ModelUnsupported(
                f"a {type(module).__name__} cannot be part of a graph; load the model with backend='torch'"
            )


def _example(info: TransformerInfo, tokenizer: TextTokenizer, *, prompt: bool) -> dict[str, Tensor]:
    """Return the graph inputs for a few texts, with ``prompt`` also the length of a prompt."""
    limit = min(each for each in (16, info.max_length, info.positions) if each is not None)
    ids, mask = pad(tokenizer.tokenize(list(PROBES), limit).ids, tokenizer.pad_id, left=tokenizer.pad_left)
    example = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
    if "token_type_ids" in info.inputs:
        example["token_type_ids"] = torch.zeros_like(example["input_ids"])
    if prompt:
        example["prompt_length"] = torch.tensor([1])
    return example


def _run(steps: nn.ModuleList, features: Features) -> Features:
    with torch.inference_mode():
        for step in steps:
            features = step(features)
    return features


def _outputs(written: Features, rest: Sequence[Module]) -> tuple[str, ...]:
    """Return the names of the outputs: the stack's result, and token vectors unless they are vocabulary logits."""
    if "scores" in written:
        return ("scores",)
    if "sentence_embedding" not in written:
        return ("token_embeddings",)
    has_logits = any(isinstance(module, SpladePooling) for module in rest)
    return ("sentence_embedding",) + (("token_embeddings",) if "token_embeddings" in written and not has_logits else ())


def _steps(first: Transformer, loaded: LoadedTransformer, rest: Sequence[Module]) -> nn.ModuleList:
    """Return the torch backend's steps of a stack."""
    modules = list(rest)
    if modules and isinstance(modules[0], SpladePooling):
        if loaded.decoder is not None:
            weight, _ = loaded.decoder
            blocks = [Linear(part.detach().clone(), None, pack=False) for part in torch.split(weight, VOCABULARY_BLOCK)]
            return nn.ModuleList([FusedSpladeStep(modules[0], loaded, blocks), *map(make_step, modules[1:])])
        logger.warning("%s: its head is of a form that needs all logits at once in memory", type(loaded.model).__name__)
    return nn.ModuleList([TransformerStep(first, loaded), *map(make_step, modules)])


def _cut_last_layer(
    loaded: LoadedTransformer,
    steps: nn.ModuleList,
    example: Mapping[str, Tensor],
    outputs: tuple[str, ...],
    expected: tuple[Tensor, ...],
) -> tuple[tuple[str, ...], tuple[Tensor, ...]]:
    """Make the last layer compute position 0 alone where the result stays the same; return outputs and expected values.

    Token vectors are not among the outputs then.
    """
    layers = [each for each in loaded.model.modules() if isinstance(each, nn.ModuleList) and len(each)]
    last = [each[-1] for each in layers]
    if not keep_first_token(loaded.model):
        return outputs, expected
    try:
        found = _run(steps, dict(example))[outputs[0]]
        same = found.shape == expected[0].shape and bool(torch.allclose(found, expected[0], atol=1e-5, rtol=1e-5))
    except (RuntimeError, IndexError, TypeError):
        same = False
    if same:
        return outputs[:1], expected[:1]
    for each, layer in zip(layers, last, strict=True):
        each[-1] = layer
    return outputs, expected


def _export(module: nn.Module, example: Mapping[str, Tensor], folder: Path) -> ExportedProgram:
    dynamic = torch.export.Dim.DYNAMIC
    shapes = {name: {0: dynamic, 1: dynamic} if value.ndim == 2 else None for name, value in example.items()}
    try:
        with torch.no_grad(), hushed():
            return torch.export.export(module, (), dict(example), dynamic_shapes=shapes, strict=False)
    except Exception as error:  # tracing code that was not written for it can raise errors of any type
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelUnsupported(
            f"{folder}: the model cannot be traced; load it with backend='torch' ({reason})"
        ) from error


def _written(chosen: Runtime, backend: str, model: Path, traced: Trace, folder: Path) -> str:
    """Write the graph and return its file name; raise ModelUnsupported for operations that the runtime lacks."""
    try:
        with hushed():
            file = chosen.write(traced.program, folder, traced.outputs)
    except (ImportError, MemoryError, OSError):
        raise
    except Exception as error:  # the converters have different error types
        reason = " ".join((str(error).strip() or type(error).__name__).split())[:300]
        raise ModelUnsupported(
            f"{model}: {backend} has no graph of it; load it with backend='torch' ({reason})"
        ) from error
    return file


def _compare(session: Session, traced: Trace) -> None:
    """Raise ModelUnsupported where the outputs of a new graph differ from torch's."""
    found = session({name: value.numpy() for name, value in traced.example.items()})
    real = traced.example["attention_mask"].numpy().astype(bool)
    for name, computed, expected in zip(traced.outputs, found, traced.expected, strict=True):
        # The vectors of padding differ, but are not used.
        read = real if name == "token_embeddings" else slice(None)
        given, wanted = computed[read], expected.numpy()[read]
        allowed = NEAR * max(1.0, float(np.abs(wanted).max(initial=0)))
        apart = float(np.abs(given - wanted).max(initial=0))
        if not apart <= allowed:
            raise ModelUnsupported(
                f"the exported graph's {name} differs from torch's by {apart:.1e}; load the model with backend='torch'"
            )
