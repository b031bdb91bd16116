"""Compute dense, sparse and multi-vector results in one forward pass, for models with the heads of BGE-M3.

The checkpoint of such a model contains a dense model and the files of two linear layers: ``sparse_linear.pt``, which
computes the weight of each token, and ``colbert_linear.pt``, which computes the vector of each token. Each file
contains the tensors ``weight`` and ``bias``.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from st_core.checkpoint.tensors import read_tensors
from st_core.engine.batches import restore
from st_core.errors import ModelBroken, ModelUnsupported
from st_core.modules.stack import flatten
from st_core.modules.transformer import HEAD_FILES, Transformer
from st_core.vectors import MIN_WEIGHT, SparseMatrix

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

    from st_core.backends import Features, Runner
    from st_core.engine.engine import Engine

__all__ = ["OUTPUTS", "Head", "Heads", "MultiOutput"]

OUTPUTS = ("dense", "sparse", "multi_vector")


@dataclass(frozen=True, slots=True, eq=False)
class MultiOutput:
    """The outputs for texts; outputs that were not requested are None.

    ``dense`` is [n, d]. ``sparse`` is [n, V], where V is the size of the vocabulary. ``multi_vector`` contains, for
    each text, a matrix [tokens, d'] of unit vectors.
    """

    dense: NDArray[np.float32] | None = None
    sparse: SparseMatrix | None = None
    multi_vector: list[NDArray[np.float32]] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """A linear layer over token states: ``weight`` [out, d] and ``bias`` [out]."""

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]


def head_file(folder: Path, output: str) -> Path:
    """Return the path of the file of an output's head; raise ModelUnsupported if there is no such file."""
    path = folder / HEAD_FILES[output]
    if not path.is_file():
        raise ModelUnsupported(f"{folder}: the model has no {output} output: {path.name} is missing")
    return path


def read_head(folder: Path, output: str, width: int | None) -> Head:
    """Read the head for an output; code in the file is never run.

    ``width`` is the width of the token states that the head must accept, None if it is unknown. Raises ModelUnsupported
    if the checkpoint has no such head, and ModelBroken if the file does not contain a suitable linear layer.
    """
    path = head_file(folder, output)
    tensors = read_tensors(path)
    shapes = {name: array.shape for name, array in tensors.items()}
    weight, bias = tensors.get("weight"), tensors.get("bias")
    if set(tensors) != {"weight", "bias"} or weight is None or weight.ndim != 2 or bias is None:
        raise ModelBroken(f"{path}: expected the tensors weight and bias of a linear layer, got {shapes}")
    if bias.shape != weight.shape[:1] or (output == "sparse" and bias.size != 1):
        raise ModelBroken(f"{path}: weight and bias do not match each other or a {output} output: {shapes}")
    if width is not None and weight.shape[1] != width:
        raise ModelBroken(f"{path}: the layer reads states of {weight.shape[1]} dimensions, the model has {width}")
    return Head(weight.astype(np.float32), bias.astype(np.float32))


@dataclass(frozen=True, slots=True)
class Heads:
    """The heads for the outputs that a call requests, None for outputs that were not requested.

    ``dense`` is whether dense vectors were requested. ``width`` is the width of sparse vectors, the size of the
    vocabulary. ``ignored`` are ids of tokens without a sparse weight.
    """

    dense: bool
    sparse: Head | None
    multi_vector: Head | None
    width: int
    ignored: frozenset[int]

    @classmethod
    def of(cls, engine: Engine, task: str | None, folder: Path, outputs: Collection[str]) -> Heads:
        """Read a model's heads for the requested outputs.

        Raises the errors of :func:`read_head`. Raises ModelUnsupported if the model has no transformer, and if it runs
        as a graph and outputs other than "dense" are requested.
        """
        first = flatten(engine.modules, task)[0]
        if not isinstance(first, Transformer):
            raise ModelUnsupported(
                f"{folder}: only a transformer has several outputs, and this is a {type(first).__name__}"
            )
        requested = [name for name in HEAD_FILES if name in outputs]
        if requested and engine.graphs is not None:
            for name in requested:
                head_file(folder, name)
            raise ModelUnsupported(
                f"{folder}: {' and '.join(requested)} outputs are computed by torch from token states, and the model "
                "runs on "
                f"{engine.graphs.name}; load it with backend='torch', or use outputs=['dense']"
            )
        heads = {name: read_head(folder, name, first.dimension) for name in requested}
        sparse = heads.get("sparse")
        return cls(
            "dense" in outputs,
            sparse,
            heads.get("multi_vector"),
            0 if sparse is None else int(first.config["vocab_size"]),
            frozenset() if sparse is None else _special(engine.runner(task).info.tokenizer.shown),
        )

    def read(self, features: Features, runner: Runner, dimension: int | None) -> MultiOutput:
        """Return the outputs of one batch; dense vectors are truncated to ``dimension`` unless it is None."""
        dense = runner.finish(features["sentence_embedding"], dimension, normalize=False) if self.dense else None
        return MultiOutput(
            dense if dense is None or isinstance(dense, np.ndarray) else dense.float().cpu().numpy(),
            None if self.sparse is None else lexical_weights(features, self.sparse, self.ignored, self.width),
            None if self.multi_vector is None else token_vectors(features, self.multi_vector),
        )

    def together(self, parts: Sequence[tuple[NDArray[np.int64], MultiOutput]]) -> MultiOutput:
        """Return the outputs of all batches in the order of the inputs; each part has the positions of its inputs."""
        count = sum(positions.size for positions, _ in parts)
        order = np.argsort(np.concatenate([np.empty(0, np.int64), *(positions for positions, _ in parts)]))
        dense = [part.dense for _, part in parts if part.dense is not None]
        sparse = [row for _, part in parts if part.sparse is not None for row in part.sparse.rows()]
        vectors = [(positions, part.multi_vector) for positions, part in parts if part.multi_vector is not None]
        return MultiOutput(
            (np.concatenate(dense)[order] if dense else np.zeros((0, 0), np.float32)) if self.dense else None,
            None if self.sparse is None else SparseMatrix.from_rows([sparse[index] for index in order], self.width),
            None if self.multi_vector is None else restore(vectors, count),
        )


def _special(shown: PreTrainedTokenizerBase) -> frozenset[int]:
    """Return the ids of the tokens for beginning, end, padding and unknown text."""
    special = (shown.cls_token_id, shown.eos_token_id, shown.pad_token_id, shown.unk_token_id)
    return frozenset(token for token in special if token is not None)


def lexical_weights(features: Features, head: Head, ignored: frozenset[int], width: int) -> SparseMatrix:
    """Return the weight of each distinct token of each text [n, width].

    The weight of a token that occurs several times is the largest of the weights at its positions. Tokens in
    ``ignored`` have no weight.
    """
    weights = _linear(features["token_embeddings"], head)[:, :, 0]
    ids = features["input_ids"].cpu().numpy()
    real = (features["attention_mask"].cpu().numpy() > 0) & ~np.isin(ids, list(ignored)) & (weights >= MIN_WEIGHT)
    rows, places = np.nonzero(real)
    cells = rows * width + ids[rows, places]
    distinct, inverse = np.unique(cells, return_inverse=True)
    greatest = np.zeros(distinct.size, np.float32)
    np.maximum.at(greatest, inverse, weights[rows, places])
    indptr = np.zeros(len(ids) + 1, np.int64)
    np.cumsum(np.bincount(distinct // width, minlength=len(ids)), out=indptr[1:])
    return SparseMatrix(indptr, (distinct % width).astype(np.uint32), greatest, (len(ids), width))


def token_vectors(features: Features, head: Head) -> list[NDArray[np.float32]]:
    """Return, for each text, the unit vectors [tokens - 1, d'] of its tokens.

    The first token is left out, because it represents the text as a whole.
    """
    vectors = _linear(features["token_embeddings"], head)
    real = features["attention_mask"].cpu().numpy() > 0
    lengths = np.sqrt(np.einsum("ntd,ntd->nt", vectors, vectors))[..., None]
    vectors = vectors / np.maximum(lengths, 1e-12)
    return [np.ascontiguousarray(rows[mask][1:], np.float32) for rows, mask in zip(vectors, real, strict=True)]


def _linear(states: torch.Tensor, head: Head) -> NDArray[np.float32]:
    import torch

    with torch.inference_mode():
        weight = torch.from_numpy(head.weight).to(states.device)
        bias = torch.from_numpy(head.bias).to(states.device)
        result: NDArray[np.float32] = torch.nn.functional.linear(states.float(), weight, bias).cpu().numpy()
    return result
