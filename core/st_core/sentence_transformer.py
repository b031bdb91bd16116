"""Dense vectors of texts, with the names and arguments of sentence-transformers 6.2."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack

import numpy as np

from st_core.checkpoint.files import read_json
from st_core.encoder import Encoder
from st_core.engine.batches import joined, restore
from st_core.engine.call import Call
from st_core.engine.engine import UNSET
from st_core.engine.inputs import given_inputs, one_or_many
from st_core.errors import ModelBroken, missing_extra
from st_core.model import LoadArguments, Placement
from st_core.multi import OUTPUTS, Heads, MultiOutput

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from st_core.backends import Features
    from st_core.quantize import Precision
    from st_core.similarity import SimilarityFunction

__all__ = ["SentenceTransformer"]

RANGES = "quantization_ranges.json"
"""Where a model keeps its calibration."""

PRECISIONS = ("float32", "int8", "uint8", "binary", "ubinary")


class SentenceTransformer(Encoder):
    """A model that turns texts into dense vectors.

    ``model_name_or_path`` is a folder, a Hub name (a bare name gets ``sentence-transformers/`` in front) or a built-in (``builtin:dense``).
    A model of static modules runs on numpy; others need torch. ``device`` None takes CUDA where there is one. ``dtype`` None computes in
    float32 on the CPU, whatever the checkpoint's type, and in the checkpoint's type elsewhere. Safe in threads.

    Raises ModelNotFound, ModelUnsupported or ModelBroken, each saying what is wrong with the checkpoint.
    """

    family = "SentenceTransformer"
    organisation = "sentence-transformers"
    default_similarity = "cosine"

    def __init__(
        self,
        model_name_or_path: str | PathLike[str] | None = None,
        *,
        similarity_fn_name: str | SimilarityFunction | None = None,
        truncate_dim: int | None = None,
        **loading: Unpack[LoadArguments],
    ) -> None:
        """Find the checkpoint, read it and make it ready to run; the other arguments are those of ``LoadArguments``."""
        self._load(model_name_or_path, **loading)
        self._truncate_dim = truncate_dim if truncate_dim is not None else self._settings.get("truncate_dim")
        self._truncate_here: ContextVar[Any] = ContextVar("truncate_dim", default=UNSET)
        self._set_similarity(similarity_fn_name)
        self.quantization_ranges = _read_ranges(self.checkpoint.folder / RANGES, self._dimension())

    def encode(  # noqa: PLR0917 - the order of sentence-transformers
        self,
        inputs: Any = UNSET,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
        output_value: Literal["sentence_embedding", "token_embeddings"] | None = "sentence_embedding",
        precision: Precision | None = "float32",
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: Any = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        pool: Any = None,
        chunk_size: int | None = None,
        **kwargs: Any,
    ) -> Any:
        """The vectors of texts [n, d] in order, as a float32 array; of a single text, one vector [d].

        ``convert_to_tensor`` gives a tensor, both conversions off a list of tensors. Batches are cut by a budget of tokens that suits the
        machine; ``batch_size`` can only make them smaller, and None leaves it to the budget. ``output_value="token_embeddings"`` gives a list
        of [tokens, d], None a list of all features of each input. ``truncate_dim`` cuts vectors before ``normalize_embeddings`` makes their
        length one. ``precision`` "int8" and "uint8" need :meth:`calibrate` first. Extra arguments: ``task``, which picks a router's route,
        and ``processing_kwargs`` with ``max_length`` and ``truncation`` for this call alone. ``sentences`` is the old name of ``inputs``.

        ``device`` moves the model there; a list of devices computes in a process on each, for this call alone, and ``pool`` in those of
        :meth:`start_multi_process_pool`, ``chunk_size`` inputs at a time: a text's numbers may differ from those of one process in the last
        digits, and tensors come back on the CPU.

        Raises ValueError for arguments nobody takes and for inputs that are not text.
        """
        listed, single = one_or_many(given_inputs(inputs, kwargs))
        if precision is not None and precision not in PRECISIONS:
            raise ValueError(f"{precision!r} is no precision; there are {', '.join(PRECISIONS)}")
        placement = Placement(device, pool, chunk_size)
        call = self._call(
            kwargs, prompt=prompt, prompt_name=prompt_name, batch_size=batch_size, show_progress_bar=show_progress_bar
        )
        if output_value != "sentence_embedding":
            found = [
                each
                for part in self._everywhere(placement, SentenceTransformer._features, listed, call, output_value)
                for each in part
            ]
            return found[0] if single else found
        dimension = truncate_dim if truncate_dim is not None else self.truncate_dim
        if dimension is not None and dimension < 1:
            raise ValueError(f"truncate_dim must be a positive integer, got {dimension}")
        tensors = convert_to_tensor or not convert_to_numpy
        quantized = precision not in (None, "float32")
        plain = tensors and not (quantized and len(listed))
        vectors = joined(
            self._everywhere(
                placement, SentenceTransformer._vectors, listed, call, dimension, normalize_embeddings, plain
            )
        )
        if quantized and len(listed):
            vectors = self._quantize(vectors, precision)
        if tensors:
            vectors = _as_tensors(vectors, stacked=convert_to_tensor)
        return vectors[0] if single else vectors

    def _vectors(self, listed: list[Any], call: Call, dimension: int | None, normalize: bool, tensors: bool) -> Any:
        if not listed:
            return _no_tensor(self.device) if tensors else np.array([])
        runner = self._engine.runner(call.task)
        result: Any = None
        for positions, features in self._engine.run(listed, call, pooled=True):
            part = runner.finish(_embedding(features), dimension, normalize=normalize)
            part = part if tensors else _as_array(part)
            if tensors and isinstance(part, np.ndarray):
                part = _tensor(part)
            if result is None:
                result = _room(part, len(listed))
            result[positions] = part
        return result

    def _features(self, listed: list[Any], call: Call, output_value: str | None) -> list[Any]:
        if output_value not in (None, "token_embeddings"):
            raise ValueError(
                f"there is no output_value {output_value!r}; there are sentence_embedding, token_embeddings and None"
            )
        cut = self.backend != "torch" and "token_embeddings" not in getattr(
            self._engine.runner(call.task), "outputs", ("token_embeddings",)
        )
        if output_value is not None and cut:
            raise ValueError(
                f"the graph for backend={self.backend!r} gives no {output_value}: it computes only the token that the model's "
                "pooling reads; load the model with backend='torch'"
            )
        parts = [
            (positions, [_item(features, row, output_value) for row in range(positions.size)])
            for positions, features in self._engine.run(listed, call)
        ]
        return restore(parts, len(listed))

    def encode_multi(
        self,
        inputs: Sequence[str],
        prompt_name: str | None = None,
        prompt: str | None = None,
        *,
        outputs: Collection[str] = ("dense", "sparse"),
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
        **kwargs: Any,
    ) -> MultiOutput:
        """Dense, sparse and multi-vector results of a list of texts from one forward pass, for a model like BGE-M3.

        ``outputs`` names what is wanted: "dense" as :meth:`encode` gives it, "sparse" the weight of each token, "multi_vector" a unit vector
        for each token but the first. The other arguments are :meth:`encode`'s. Raises ModelUnsupported where the checkpoint has no such output,
        and for others than "dense" on onnx and openvino.
        """
        unknown = set(outputs) - set(OUTPUTS)
        if unknown or not outputs or isinstance(outputs, str):
            raise ValueError(f"outputs must be some of {', '.join(OUTPUTS)}, got {outputs!r}")
        listed, single = one_or_many(inputs)
        if single:
            raise ValueError("encode_multi takes a list of texts, and one text came: put it into a list")
        call = self._call(
            kwargs, prompt=prompt, prompt_name=prompt_name, batch_size=batch_size, show_progress_bar=show_progress_bar
        )
        heads = Heads.of(self._engine, call.task, self.checkpoint.folder, outputs)
        parts = [
            (positions, heads.read(features, self._engine.runner(call.task), self.truncate_dim))
            for positions, features in self._engine.run(listed, call)
        ]
        return heads.together(parts)

    def calibrate(self, inputs: Any, **kwargs: Any) -> NDArray[np.float32]:
        """Fix the ranges that ``precision`` "int8" and "uint8" cut into steps: the least and greatest value of each dimension [2, d].

        ``inputs`` are typical texts, or their vectors [n, d]; the other arguments are :meth:`encode`'s. The ranges are kept with the model as
        ``quantization_ranges``, so that vectors of different calls agree, and saved with it.
        """
        from st_core.quantize import quantization_ranges

        vectors = inputs if isinstance(inputs, np.ndarray) and inputs.ndim == 2 else self.encode(inputs, **kwargs)
        self.quantization_ranges = np.asarray(quantization_ranges(vectors), np.float32)
        return self.quantization_ranges

    def _now_saved(self) -> dict[str, Any]:
        return super()._now_saved() | {"truncate_dim": self._truncate_dim}

    def _saved_files(self) -> dict[str, Any]:
        ranges = self.quantization_ranges
        return {} if ranges is None else {RANGES: {"least": ranges[0].tolist(), "greatest": ranges[1].tolist()}}

    def _quantize(self, vectors: Any, precision: Any) -> Any:
        from st_core.quantize import quantize_embeddings

        ranges = self.quantization_ranges
        if precision in ("int8", "uint8"):
            if ranges is None:
                raise ValueError(
                    f"precision={precision!r} needs ranges that hold for every call: call model.calibrate(typical_texts) first, "
                    "or quantize_embeddings(vectors, precision) to take them from these vectors"
                )
            if ranges.shape[1] < vectors.shape[1]:
                raise ValueError(
                    f"the ranges were found for {ranges.shape[1]} dimensions and the vectors have {vectors.shape[1]}: calibrate again"
                )
            ranges = ranges[:, : vectors.shape[1]]
        return quantize_embeddings(vectors, precision, ranges)

    @property
    def truncate_dim(self) -> int | None:
        """The width vectors are cut to where a call says nothing, None for all of it."""
        here = self._truncate_here.get()
        return self._truncate_dim if here is UNSET else here

    @truncate_dim.setter
    def truncate_dim(self, value: int | None) -> None:
        self._truncate_dim = value

    @contextmanager
    def truncate_embeddings(self, truncate_dim: int | None) -> Iterator[None]:
        """Within the block, and in this thread alone, vectors are cut to another width."""
        before = self._truncate_here.set(truncate_dim)
        try:
            yield
        finally:
            self._truncate_here.reset(before)

    def get_embedding_dimension(self) -> int | None:
        """The width of the vectors."""
        width = self._dimension()
        if self.truncate_dim is None:
            return width
        return self.truncate_dim if width is None else min(width, self.truncate_dim)


def _read_ranges(path: Path, width: int | None) -> NDArray[np.float32] | None:
    """The calibration kept with a model [2, d], or None where there is none; raises ModelBroken where it is no such thing."""
    if not path.is_file():
        return None
    value = read_json(path)
    try:
        ranges = np.array([value["least"], value["greatest"]], np.float32)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelBroken(f"{path}: expected two lists of numbers, least and greatest") from error
    if ranges.ndim != 2 or not np.isfinite(ranges).all() or (ranges[0] > ranges[1]).any():
        raise ModelBroken(f"{path}: least and greatest are not the ends of ranges")
    if width is not None and ranges.shape[1] > width:
        raise ModelBroken(f"{path}: ranges of {ranges.shape[1]} dimensions for vectors of {width}")
    return ranges


def _embedding(features: Features) -> Any:
    try:
        return features["sentence_embedding"]
    except KeyError as error:
        raise ValueError("the model's modules give no sentence_embedding; a pooling module is missing") from error


def _as_array(part: Any) -> NDArray[Any]:
    if isinstance(part, np.ndarray):
        return part
    from st_core.backends.torch.library import as_numpy

    array: NDArray[Any] = as_numpy(part)
    return array


def _room(part: Any, rows: int) -> Any:
    """An empty array or tensor of the kind of ``part`` with ``rows`` rows."""
    if isinstance(part, np.ndarray):
        return np.empty((rows, *part.shape[1:]), part.dtype)
    return part.new_empty((rows, *part.shape[1:]))


def _tensor(array: NDArray[Any]) -> Any:
    try:
        import torch
    except ImportError as error:
        raise missing_extra("torch", "a tensor") from error
    return torch.from_numpy(np.ascontiguousarray(array))


def _no_tensor(device: Any) -> Any:
    tensor = _tensor(np.empty(0, np.float32))
    return tensor.to(device)


def _as_tensors(vectors: Any, *, stacked: bool) -> Any:
    tensor = _tensor(vectors) if isinstance(vectors, np.ndarray) else vectors
    return tensor if stacked else list(tensor)


def _item(features: Features, row: int, output_value: str | None) -> Any:
    """One input's features, without padding."""
    tokens = features["tokens"]
    mask = features.get("attention_mask")
    real = slice(None) if mask is None else mask[row] > 0
    width = None if mask is None else mask.shape[1]
    if output_value is not None:
        if output_value not in features:
            raise ValueError(f"the model has no {output_value}: its vectors are not made from vectors of tokens")
        return features[output_value][row][real]
    item: dict[str, Any] = {}
    for name, value in features.items():
        if name == "tokens":
            continue
        if not hasattr(value, "shape") or value.shape[:1] != (len(tokens),):
            item[name] = value
        elif value.ndim > 1 and value.shape[1] == width and name != "sentence_embedding":
            item[name] = value[row][real]
        else:
            item[name] = value[row]
    return item
