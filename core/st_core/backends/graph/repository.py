"""Run repository graphs: graphs of a transformer alone, as sentence-transformers and optimum write them.

The output of such a graph is token vectors or logits; the modules after the transformer run on numpy. Inputs, outputs
and the dtype of the weights are read from the graph. Torch is not needed; where transformers is installed, it builds
the tokenizer, as on the torch backend.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from st_core.backends import StackInfo
from st_core.backends.graph.child_process import is_installed
from st_core.backends.graph.on_first_use import OnFirstUse
from st_core.backends.graph.runner import TOKEN_BUDGET, GraphRunner, feed_of
from st_core.backends.graph.runtimes import runtime
from st_core.backends.numpy import modules as numpy_backend
from st_core.backends.padding import mixes_padding
from st_core.backends.tokenizer_files import as_transformers, from_files
from st_core.errors import ModelNotFound, ModelUnsupported
from st_core.modules.transformer import Transformer
from st_core.text.tokens import TextTokenizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from st_core.backends.graph.runtimes import Feed, RunGraph
    from st_core.modules import Module
    from st_core.text.tokens import AnyTokenizer

__all__ = ["DEFAULTS", "find_repository_graph", "patterns_of", "repository_runner"]

DEFAULTS = {"onnx": "onnx/model.onnx", "openvino": "openvino/openvino_model.xml"}
"""The default file of a repository graph, by runtime."""

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
OUTPUTS = {
    "feature-extraction": ("last_hidden_state", "token_embeddings"),
    "fill-mask": ("logits",),
    "sequence-classification": ("logits",),
}
"""Names of the output to use, by the task of the transformer; a graph without any of them uses its first output."""

POSITIONED = frozenset(("albert", "bert", "camembert", "distilbert", "electra", "mpnet", "roberta", "xlm-roberta"))
FROM_PADDING = frozenset(("camembert", "mpnet", "roberta", "xlm-roberta"))
"""Model families that count positions from the padding id plus one."""


def patterns_of(backend: str, file_name: str | None = None) -> tuple[str, ...]:
    """Return path patterns for a graph and its weights in a Hub repository, in the root or in a module's folder."""
    name = file_name or DEFAULTS[backend]
    if "/" not in name:
        name = f"{DEFAULTS[backend].partition('/')[0]}/{name}"
    weights = name.removesuffix(".xml") + ".bin" if name.endswith(".xml") else f"{name}_data"
    return name, f"*/{name}", weights, f"*/{weights}"


def find_repository_graph(folder: Path, backend: str, file_name: str | None) -> Path | None:
    """Return the path of a repository graph, in the folder of the transformer or in the runtime's folder inside it.

    Without a file name it is the default graph, or None if that is missing. Raises ModelNotFound for an unknown file
    name, listing the existing graphs, and ValueError for a file type that the runtime does not read.
    """
    default = DEFAULTS[backend]
    name = file_name or default
    inner, _, plain = default.partition("/")
    ending = Path(plain).suffix
    if not name.endswith(ending):
        raise ValueError(f"file_name={name!r}: expected an {ending} file, which backend={backend!r} reads")
    for path in (folder / name, folder / inner / name):
        if path.is_file():
            return path
    if file_name is None:
        return None
    graphs = ", ".join(listed(folder, backend)) or "none"
    raise ModelNotFound(f"{folder} contains no graph {file_name!r}; graphs: {graphs}")


def listed(folder: Path, backend: str) -> list[str]:
    """Return the file names of a runtime's graphs in a transformer's folder, sorted."""
    inner, _, plain = DEFAULTS[backend].partition("/")
    paths = [path for place in (folder, folder / inner) for path in place.glob(f"*{Path(plain).suffix}")]
    return sorted(path.relative_to(folder).as_posix() for path in paths)


@dataclass(frozen=True, slots=True)
class _Attending:
    """A session that returns a single output.

    In a text without tokens, one padding token is attended to, as on the torch backend.
    """

    session: RunGraph
    index: int
    last: bool

    def __call__(self, feed: Feed) -> list[NDArray[np.float32]]:
        """Return a list that contains the output as float32."""
        mask = feed["attention_mask"]
        empty = ~mask.any(axis=1)
        if empty.any():
            mask = mask.copy()
            mask[empty, -1 if self.last else 0] = 1
        output = self.session({**feed, "attention_mask": mask})[self.index]
        return [np.asarray(output, np.float32)]


def repository_runner(file: Path, backend: str, dtype: str | None, stack: Sequence[Module]) -> GraphRunner:
    """Build the runner of a stack whose transformer is the graph in a file.

    Raises ValueError for a ``dtype`` that is not the graph's, ModelUnsupported for a graph or modules that cannot be
    run this way.
    """
    first, *rest = stack
    _check(first, rest)
    assert isinstance(first, Transformer)
    chosen = runtime(backend)
    kind = _kind(chosen.weight_types(file))
    if dtype is not None and dtype != kind:
        raise ValueError(f"{file} contains weights in {kind}, not in {dtype}; leave out dtype, or use another file")
    open_session = partial(chosen.open_session, file, "int8" if kind == "int8" else "float32", None)
    session = open_session()
    again = OnFirstUse(open_session, session)
    unknown = set(session.inputs) - set(INPUTS)
    if unknown or "input_ids" not in session.inputs:
        raise ModelUnsupported(f"{file}: expected a graph with the inputs {', '.join(INPUTS)}, got {session.inputs}")
    tokenizer, limit = _tokenizer(first)
    tokenizer = replace(tokenizer, wants_types="token_type_ids" in session.inputs)
    names = OUTPUTS[first.task]
    index = next((session.outputs.index(name) for name in names if name in session.outputs), 0)
    outputs = (first.writes,)
    info = StackInfo(
        tokenizer,
        limit,
        kind if kind == "float32" else f"{kind}-{file.stem}",
        file,
        token_budget=TOKEN_BUDGET,
        positions=_positions(first, tokenizer),
        outputs=outputs,
    )
    runner = GraphRunner(
        _Attending(again, index, tokenizer.pad_left),
        session.inputs,
        outputs,
        info,
        tuple(rest),
    )
    labels = _try(runner, file, first, session.outputs[index])
    equal = mixes_padding(runner, first.config.get("model_type"))
    return replace(runner, info=replace(info, labels=labels), has_equal_lengths=equal)


def _check(first: Module, rest: Sequence[Module]) -> None:
    if not isinstance(first, Transformer) or first.task not in OUTPUTS:
        what = first.task if isinstance(first, Transformer) else type(first).__name__
        raise ModelUnsupported(f"a repository graph does not support {what}; load the model with backend='torch'")
    for module in rest:
        if not numpy_backend.can_run([module]):
            kind = getattr(module, "activation", type(module).__name__)
            raise ModelUnsupported(
                f"{first.folder}: {kind} does not run on numpy behind a repository graph; "
                "export the whole model with `st-connectors export`"
            )


def _kind(types: frozenset[str]) -> str:
    """Return the dtype of a graph, which is the dtype of its weights with the fewest bits."""
    order = ("int4", "int8", "bfloat16", "float16", "float32")
    return next((each for each in order if each in types), "float32")


def _try(runner: GraphRunner, file: Path, first: Transformer, name: str) -> int:
    """Run one text and return the number of scores, 1 for a model without scores.

    Raises ModelUnsupported for an output that the modules cannot read.
    """
    tokenizer = runner.info.tokenizer
    assert isinstance(tokenizer, TextTokenizer)
    feed = feed_of(tokenizer.tokenize(["text"], None), tokenizer, runner.inputs)
    (output,) = runner.session({each: feed[each] for each in runner.inputs})
    scores = first.task == "sequence-classification"
    width = first.dimension
    dimensions = 2 if scores else 3
    if output.ndim != dimensions or (width is not None and output.shape[-1] != width):
        form = "[texts, labels]" if scores else f"[texts, tokens, {width}]"
        raise ModelUnsupported(
            f"{file}: its output {name!r} for one text has the shape {list(output.shape)}, expected {form}"
        )
    return int(output.shape[1]) if scores else 1


def _tokenizer(module: Transformer) -> tuple[TextTokenizer, int | None]:
    """Return the tokenizer of a transformer and its maximum length."""
    if not is_installed("torch", "transformers"):
        return from_files(module)
    rebuilt = as_transformers(module, lambda: _of_transformers(module)[0].shown)
    if rebuilt is not None:
        return rebuilt
    tokenizer, limit = _of_transformers(module)
    if not isinstance(tokenizer, TextTokenizer):
        raise ModelUnsupported(
            f"{module.folder}: its texts go through a {type(tokenizer).__name__}, which graphs do not support; "
            "load it with backend='torch'"
        )
    return tokenizer, limit


def _of_transformers(module: Transformer) -> tuple[AnyTokenizer, int | None]:
    from st_core.backends.torch.library import tokenizer_of

    return tokenizer_of(module)


def _positions(module: Transformer, tokenizer: TextTokenizer) -> int | None:
    """Return the number of position embeddings that a text can use, None for a model without them."""
    family, rows = module.config.get("model_type"), module.config.get("max_position_embeddings")
    if family not in POSITIONED or not isinstance(rows, int):
        return None
    if family not in FROM_PADDING:
        return rows
    padding = module.config.get("pad_token_id")
    return rows - (padding if isinstance(padding, int) else tokenizer.pad_id) - 1
