"""Turns a stack of modules into a graph: the transformer, pooling, normalisation and head traced once with torch, then written for a runtime.

What is traced are the torch backend's own functions, so the numbers are its numbers; each new graph is run on a few texts and compared before
it is kept. Both runtimes are written from the same trace.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from st_core.backends import StackInfo
from st_core.backends.graph.first_token import keep_first_token
from st_core.backends.graph.kept import GraphSpec, write_tokenizer
from st_core.backends.graph.runner import GraphRunner, feeds_of
from st_core.backends.padding import mixes_padding
from st_core.backends.torch.backend import TorchBackend
from st_core.backends.torch.encoder import reads_first_token
from st_core.backends.torch.hush import hushed
from st_core.backends.torch.library import LoadedTransformer, load_transformer
from st_core.backends.torch.pooling import POOLS, VOCABULARY_BLOCK, first_real, saturate, splade, without_prompt
from st_core.backends.vocabulary_bounds import words_of
from st_core.errors import ModelUnsupported
from st_core.modules.pooling import Pooling
from st_core.modules.splade_pooling import SpladePooling
from st_core.modules.transformer import Transformer
from st_core.text.tokens import TextTokenizer, pad

if TYPE_CHECKING:
    from st_core.backends import Features
    from st_core.modules import Module

__all__ = ["Trace", "export_graph", "trace"]

logger = logging.getLogger(__name__)

PROBES = ("How do I copy a directory tree?", "text", "Seven words that are not about trees")
NEAR = 1e-4
"""How far, of the largest number, a new float32 graph may be from torch on the probes."""

Step = Callable[["Features"], "Features"]


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """A traced stack: the program, the names of what goes in and comes out, and the transformer it was made of."""

    program: Any
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    loaded: LoadedTransformer
    tokenizer: TextTokenizer
    example: Mapping[str, Tensor]
    expected: tuple[Tensor, ...]


class _Stack(nn.Module):
    """The stack as one module, from token ids to the features asked for."""

    def __init__(self, model: nn.Module, steps: Sequence[Step], outputs: tuple[str, ...]) -> None:
        super().__init__()
        self.model = model
        self.steps = tuple(steps)
        self.outputs = outputs

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor | None = None,
        prompt_length: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """The features, in the order of ``outputs``."""
        given = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "token_type_ids": token_type_ids,
            "prompt_length": prompt_length,
        }
        features: Features = {name: value for name, value in given.items() if value is not None}
        for step in self.steps:
            features = step(features)
        return tuple(features[name] for name in self.outputs)


def export_graph(
    stack: Sequence[Module],
    backend: str,
    dtype: str,
    folder: Path,
    *,
    calibration: Sequence[Any] = (),
    told: Callable[[str], None] = lambda _: None,
) -> GraphSpec:
    """Write the graph of a stack and its tokenizer into an empty folder.

    ``calibration`` are typical texts, or pairs, for int8 with fixed ranges; ``told`` hears what is being done. Raises ModelUnsupported for modules
    that cannot be part of a graph, and where the graph's numbers are not torch's; ImportError, naming the extra, for a runtime that is not installed.
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
        feeds = feeds_of(calibration, traced.tokenizer, traced.inputs, traced.loaded.max_length)
        chosen.reduce(folder / file, dtype, feeds)
    return GraphSpec(
        backend=backend,
        dtype=dtype,
        file=file,
        inputs=traced.inputs,
        outputs=traced.outputs,
        labels=int(getattr(traced.loaded.model.config, "num_labels", 1)),
        positions=traced.loaded.positions,
        words=words_of(traced.loaded.model),
        max_length=traced.loaded.max_length,
        tokenizer=write_tokenizer(traced.tokenizer, folder),
        files={},
        calibrated=len(calibration),
        even=even,
    )


def _is_even(session: Any, traced: Trace, first: Transformer) -> bool:
    """Whether texts must be in batches of one length."""
    length, positions = traced.loaded.max_length, traced.loaded.positions
    info = StackInfo(traced.tokenizer, length, positions=positions)
    runner = GraphRunner(session, traced.inputs, traced.outputs, info)
    return mixes_padding(runner, first.model_type)


def trace(stack: Sequence[Module]) -> Trace:
    """Load a stack in float32 on the CPU and trace it; raises ModelUnsupported for what cannot be traced."""
    first, *rest = stack
    _check_kinds(first, rest)
    assert isinstance(first, Transformer)
    loaded = load_transformer(first, torch.device("cpu"), "float32")
    tokenizer = loaded.tokenizer
    if not isinstance(tokenizer, TextTokenizer):
        raise ModelUnsupported(
            f"{first.folder}: its texts go through a {type(tokenizer).__name__}, which cannot be kept beside a graph; "
            "load it with backend='torch'"
        )
    example = _example(
        loaded, tokenizer, prompt=any(isinstance(each, Pooling) and not each.include_prompt for each in rest)
    )
    steps = _steps(loaded, first, rest)
    written = _run(steps, example)
    outputs = _outputs(written)
    expected = tuple(written[name] for name in outputs)
    if outputs[0] != "token_embeddings" and reads_first_token(rest, pad_left=tokenizer.pad_left):
        outputs, expected = _cut_last_layer(loaded, steps, example, outputs, expected)
    module = _Stack(loaded.model, steps, outputs).eval()
    return Trace(_export(module, example, first.folder), tuple(example), outputs, loaded, tokenizer, example, expected)


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


def _example(loaded: LoadedTransformer, tokenizer: TextTokenizer, *, prompt: bool) -> dict[str, Tensor]:
    limit = min(each for each in (16, loaded.max_length, loaded.positions) if each is not None)
    ids, mask = pad(tokenizer.tokenize(list(PROBES), limit).ids, tokenizer.pad_id, left=tokenizer.pad_left)
    example = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
    if "token_type_ids" in loaded.inputs:
        example["token_type_ids"] = torch.zeros_like(example["input_ids"])
    if prompt:
        example["prompt_length"] = torch.tensor([1])
    return example


def _run(steps: Sequence[Step], features: Features) -> Features:
    with torch.inference_mode():
        for step in steps:
            features = step(features)
    return features


def _outputs(written: Mapping[str, Any]) -> tuple[str, ...]:
    """The feature that the stack is for; the vectors of tokens too, where they are not logits of a vocabulary."""
    if "scores" in written:
        return ("scores",)
    if "sentence_embedding" not in written:
        return ("token_embeddings",)
    return ("sentence_embedding",) + (("token_embeddings",) if "token_embeddings" in written else ())


def _steps(loaded: LoadedTransformer, first: Transformer, rest: Sequence[Module]) -> list[Step]:
    backend = TorchBackend(torch.device("cpu"), "float32")
    modules = list(rest)
    steps: list[Step] = []
    if modules and isinstance(modules[0], SpladePooling):
        steps.append(_splade_step(loaded, modules[0]))
        del modules[0]
    else:
        steps.append(lambda features: features | {first.writes: _logits(loaded, features)})
    return steps + [
        _pooling_step(module) if isinstance(module, Pooling) else backend.step(module, torch.float32)
        for module in modules
    ]


def _hidden(loaded: LoadedTransformer, features: Features) -> Tensor:
    """What the model puts out first. As on torch, a text without any token is read as one of padding."""
    mask = features["attention_mask"]
    positions = torch.arange(mask.shape[1])[None, :]
    stand_in = positions == (mask.shape[1] - 1 if loaded.tokenizer.pad_left else 0)
    attended = torch.where((mask.sum(dim=1, keepdim=True) == 0) & stand_in, 1, mask)
    inputs = {name: features[name] for name in loaded.inputs if name in features} | {"attention_mask": attended}
    if loaded.places:
        inputs["position_ids"] = (attended.cumsum(dim=1) - 1).clamp(min=0)
    states: Tensor = loaded.model(**inputs)[0]
    return states


def _logits(loaded: LoadedTransformer, features: Features) -> Tensor:
    """The same behind the head, where the model was made to stop before it."""
    states = _hidden(loaded, features)
    return states if loaded.decoder is None else functional.linear(states, *loaded.decoder)


def _pooling_step(module: Pooling) -> Step:
    def step(features: Features) -> Features:
        vectors, mask = features["token_embeddings"], features["attention_mask"]
        counted = mask if module.include_prompt else without_prompt(mask, features["prompt_length"])
        pooled = torch.cat([POOLS[mode](vectors, counted, mask, None) for mode in module.modes], dim=-1)
        return features | {"sentence_embedding": pooled}

    return step


def _splade_step(loaded: LoadedTransformer, module: SpladePooling) -> Step:
    """Vocabulary, maximum and saturation block by block; see :func:`st_core.backends.torch.backend.splade_from_hidden`, whose numbers these are."""
    if loaded.decoder is None:
        logger.warning("%s: its head is of a form that needs all logits at once in memory", type(loaded.model).__name__)
        return lambda features: (
            features | {"sentence_embedding": splade(module, _logits(loaded, features), features["attention_mask"])}
        )
    weight, bias = loaded.decoder
    blocks = [slice(start, start + VOCABULARY_BLOCK) for start in range(0, weight.shape[0], VOCABULARY_BLOCK)]
    parts = [(weight[block].clone(), None if bias is None else bias[block].clone()) for block in blocks]

    def highest(hidden: Tensor, mask: Tensor) -> Tensor:
        first = hidden[torch.arange(hidden.shape[0]), first_real(mask)][:, None, :]
        real = torch.where(mask[:, :, None] == 0, first, hidden)
        found = torch.cat([functional.linear(real, part).amax(dim=1) for part, _ in parts], dim=1)
        return saturate(module, found if bias is None else found + bias)

    def total(hidden: Tensor, mask: Tensor) -> Tensor:
        counted = mask[:, :, None].to(hidden.dtype)
        return torch.cat(
            [(saturate(module, functional.linear(hidden, *part)) * counted).sum(dim=1) for part in parts], dim=1
        )

    pooled = total if module.summed else highest
    return lambda features: (
        features | {"sentence_embedding": pooled(_hidden(loaded, features), features["attention_mask"])}
    )


def _cut_last_layer(
    loaded: LoadedTransformer,
    steps: Sequence[Step],
    example: Mapping[str, Tensor],
    outputs: tuple[str, ...],
    expected: tuple[Tensor, ...],
) -> tuple[tuple[str, ...], tuple[Tensor, ...]]:
    """Let the last layer compute position 0 alone, where that leaves the result as it is; the vectors of tokens are no output then."""
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


def _export(module: nn.Module, example: Mapping[str, Tensor], folder: Path) -> Any:
    dynamic = torch.export.Dim.DYNAMIC
    shapes = {name: {0: dynamic, 1: dynamic} if value.ndim == 2 else None for name, value in example.items()}
    try:
        with torch.no_grad(), hushed():
            return torch.export.export(module, (), dict(example), dynamic_shapes=shapes, strict=False)
    except Exception as error:  # the tracer runs into errors of every type in code that was not written for it
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelUnsupported(
            f"{folder}: the model cannot be traced; load it with backend='torch' ({reason})"
        ) from error


def _written(chosen: Any, backend: str, model: Path, traced: Trace, folder: Path) -> str:
    """The name of the graph's file; raises ModelUnsupported where the runtime has no form for something that the model computes."""
    try:
        with hushed():
            file: str = chosen.write(traced.program, folder, traced.outputs)
    except (ImportError, MemoryError, OSError):
        raise
    except Exception as error:  # each converter has error types of its own
        reason = " ".join((str(error).strip() or type(error).__name__).split())[:300]
        raise ModelUnsupported(
            f"{model}: {backend} has no graph of it; load it with backend='torch' ({reason})"
        ) from error
    return file


def _compare(session: Any, traced: Trace) -> None:
    """Raise ModelUnsupported where a new graph gives other numbers than torch."""
    found = session({name: value.numpy() for name, value in traced.example.items()})
    real = traced.example["attention_mask"].numpy().astype(bool)
    for name, computed, expected in zip(traced.outputs, found, traced.expected, strict=True):
        # What padding holds is read by nobody, and differs.
        read = real if name == "token_embeddings" else slice(None)
        given, wanted = computed[read], expected.numpy()[read]
        allowed = NEAR * max(1.0, float(np.abs(wanted).max(initial=0)))
        apart = float(np.abs(given - wanted).max(initial=0))
        if not apart <= allowed:
            raise ModelUnsupported(
                f"the exported graph's {name} differs from torch's by {apart:.1e}; load the model with backend='torch'"
            )
