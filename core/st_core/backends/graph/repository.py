"""Graphs of a transformer alone, as repositories hold them in the folders ``onnx`` and ``openvino``: sentence-transformers' and optimum's layout.

Such a graph ends at the vectors of tokens or at logits; the modules behind the transformer run on numpy. What goes in, what comes out and which type
the weights have is read from the graph itself. No torch is needed; where transformers is installed the tokenizer is made by it, as on torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from st_core.backends import StackInfo
from st_core.backends.graph.child_process import is_installed
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

    from st_core.modules import Module
    from st_core.text.tokens import AnyTokenizer

__all__ = ["DEFAULTS", "find_given", "given_runner", "patterns_of"]

DEFAULTS = {"onnx": "onnx/model.onnx", "openvino": "openvino/openvino_model.xml"}
"""What is read where no file is named."""

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
OUTPUTS = {
    "feature-extraction": ("last_hidden_state", "token_embeddings"),
    "fill-mask": ("logits",),
    "sequence-classification": ("logits",),
}
"""Names of what is used, by the transformer's task; a graph with other names has its first output used."""

POSITIONED = frozenset(("albert", "bert", "camembert", "distilbert", "electra", "mpnet", "roberta", "xlm-roberta"))
FROM_PADDING = frozenset(("camembert", "mpnet", "roberta", "xlm-roberta"))
"""Families with a table of positions, and those of them that number positions from behind the padding's."""


def patterns_of(backend: str, file_name: str | None = None) -> tuple[str, ...]:
    """What to ask the Hub for to have a graph, and the file of weights beside it, in a repository's own folder or in that of a module."""
    name = file_name or DEFAULTS[backend]
    if "/" not in name:
        name = f"{DEFAULTS[backend].partition('/')[0]}/{name}"
    beside = name.removesuffix(".xml") + ".bin" if name.endswith(".xml") else f"{name}_data"
    return name, f"*/{name}", beside, f"*/{beside}"


def find_given(folder: Path, backend: str, file_name: str | None) -> Path | None:
    """The graph of that name in a transformer's folder or its folder of the runtime; without a name the default one, or None.

    Raises ModelNotFound where a name leads to nothing, saying what is there, and ValueError for one that the runtime does not read.
    """
    default = DEFAULTS[backend]
    wanted = file_name or default
    inner, _, plain = default.partition("/")
    ending = Path(plain).suffix
    if not wanted.endswith(ending):
        raise ValueError(f"file_name={wanted!r} is not the name of an {ending} file, which backend={backend!r} reads")
    for path in (folder / wanted, folder / inner / wanted):
        if path.is_file():
            return path
    if file_name is None:
        return None
    there = ", ".join(listed(folder, backend)) or "none"
    raise ModelNotFound(f"{folder} holds no graph {file_name!r}; there are: {there}")


def listed(folder: Path, backend: str) -> list[str]:
    """The graphs of a runtime in a transformer's folder, by the names they are asked for with."""
    inner, _, plain = DEFAULTS[backend].partition("/")
    found = [path for place in (folder, folder / inner) for path in place.glob(f"*{Path(plain).suffix}")]
    return sorted(path.relative_to(folder).as_posix() for path in found)


@dataclass(frozen=True, slots=True)
class _Attending:
    """A session that gives one of its outputs; a text without any token is read as one of padding, as on torch."""

    session: Any
    index: int
    last: bool

    def __call__(self, feed: Mapping[str, NDArray[np.int64]]) -> list[NDArray[np.float32]]:
        """The output, as float32."""
        mask = feed["attention_mask"]
        empty = ~mask.any(axis=1)
        if empty.any():
            mask = mask.copy()
            mask[empty, -1 if self.last else 0] = 1
        found = self.session({**feed, "attention_mask": mask})[self.index]
        return [np.asarray(found, np.float32)]


def given_runner(file: Path, backend: str, dtype: str | None, stack: Sequence[Module]) -> GraphRunner:
    """A stack whose transformer is the graph in a file.

    Raises ValueError for a ``dtype`` that is not the graph's, ModelUnsupported for a graph or modules that cannot be run so.
    """
    first, *rest = stack
    _check(first, rest)
    assert isinstance(first, Transformer)
    chosen = runtime(backend)
    kind = _kind(chosen.weight_types(file))
    if dtype is not None and dtype != kind:
        raise ValueError(f"{file} holds weights in {kind}, not in {dtype}; leave out dtype, or name another file")
    session = chosen.open_session(file, "int8" if kind == "int8" else "float32", None)
    unknown = set(session.inputs) - set(INPUTS)
    if unknown or "input_ids" not in session.inputs:
        raise ModelUnsupported(
            f"{file}: a graph of {', '.join(INPUTS)} was expected, and this one takes {session.inputs}"
        )
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
    runner = GraphRunner(_Attending(session, index, tokenizer.pad_left), session.inputs, outputs, info, tuple(rest))
    labels = _tried(runner, file, first, session.outputs[index])
    equal = mixes_padding(runner, first.config.get("model_type"))
    return replace(runner, info=replace(info, labels=labels), has_equal_lengths=equal)


def _check(first: Module, rest: Sequence[Module]) -> None:
    if not isinstance(first, Transformer) or first.task not in OUTPUTS:
        what = first.task if isinstance(first, Transformer) else type(first).__name__
        raise ModelUnsupported(
            f"a graph of a transformer alone does not do {what}; load the model with backend='torch'"
        )
    for module in rest:
        if not numpy_backend.can_run([module]):
            kind = getattr(module, "activation", type(module).__name__)
            raise ModelUnsupported(
                f"{first.folder}: {kind} does not run on numpy behind a graph of the transformer; "
                "write a graph of the whole model with `st-connectors export`"
            )


def _kind(types: frozenset[str]) -> str:
    """The type of a graph, by its weights: that of the fewest bits."""
    order = ("int4", "int8", "bfloat16", "float16", "float32")
    return next((each for each in order if each in types), "float32")


def _tried(runner: GraphRunner, file: Path, first: Transformer, name: str) -> int:
    """How many scores the graph gives; raises ModelUnsupported where one text shows that it gives something else than the modules want."""
    tokenizer = runner.info.tokenizer
    assert isinstance(tokenizer, TextTokenizer)
    feed = feed_of(tokenizer.tokenize(["text"], None), tokenizer, runner.inputs)
    (found,) = runner.session({each: feed[each] for each in runner.inputs})
    scores = first.task == "sequence-classification"
    width = first.dimension
    wanted = 2 if scores else 3
    if found.ndim != wanted or (width is not None and found.shape[-1] != width):
        form = "[texts, labels]" if scores else f"[texts, tokens, {width}]"
        raise ModelUnsupported(
            f"{file}: its output {name!r} for one text has the shape {list(found.shape)}, expected {form}"
        )
    return int(found.shape[1]) if scores else 1


def _tokenizer(module: Transformer) -> tuple[TextTokenizer, int | None]:
    """The tokenizer and the most tokens it lets through."""
    if not is_installed("torch", "transformers"):
        return from_files(module)
    found = as_transformers(module, lambda: _of_transformers(module)[0].shown)
    if found is not None:
        return found
    made, limit = _of_transformers(module)
    if not isinstance(made, TextTokenizer):
        raise ModelUnsupported(
            f"{module.folder}: its texts go through a {type(made).__name__}, which a graph is not run with; "
            "load it with backend='torch'"
        )
    return made, limit


def _of_transformers(module: Transformer) -> tuple[AnyTokenizer, int | None]:
    from st_core.backends.torch.library import tokenizer_of

    return tokenizer_of(module)


def _positions(module: Transformer, tokenizer: TextTokenizer) -> int | None:
    """The rows of the table of positions that a text can use, None where there is no such table."""
    family, rows = module.config.get("model_type"), module.config.get("max_position_embeddings")
    if family not in POSITIONED or not isinstance(rows, int):
        return None
    if family not in FROM_PADDING:
        return rows
    padding = module.config.get("pad_token_id")
    return rows - (padding if isinstance(padding, int) else tokenizer.pad_id) - 1
