"""A pair of texts scored by the words that they share and by the similarity of their meanings.

``config.json`` has the parameters, ``model.safetensors`` the tensors by the names of the fields, and
``tokenizer.json`` the tokenizer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from st_core.checkpoint.files import JsonObject
from st_core.errors import ModelBroken
from st_core.modules import ModuleFiles, Parts, unchangeable
from st_core.modules.bm25 import BM25, Saturation, read_number, read_saturation
from st_core.text.tokens import BARE_PAIR, TextTokenizer, load_tokenizer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Array = NDArray[np.generic]

__all__ = ["MAPS", "HybridScore"]

_TENSORS = ("term", "idf", "is_content", "table", "scale", "position")
MAPS = ("query_key_value", "attention_output", "intermediate", "output")
"""The linear maps of a layer."""

_NUMBERS = ("lexical_weight", "cosine_weight", "bias")
_PARTS = ("weight", "scale", "bias")


@unchangeable
@dataclass(frozen=True, slots=True, eq=False)
class HybridScore:
    """Computes ``lexical_weight * lexical + cosine_weight * cosine + bias`` for a query and a document.

    ``lexical`` is the BM25 score of the document divided by the sum of the query's weights; ``idf`` float32 [V] are
    those weights, and ``term`` int32 [V] and ``saturation`` are as in :class:`st_core.modules.bm25.BM25`.

    ``cosine`` is the cosine of the sums of the vectors that ``layers`` compute for each text on its own. They read the
    first ``positions`` tokens for which ``is_content`` uint8 [V] is 1, each as ``table[t] * scale[t]`` plus the vector
    of its position. ``table`` is int8 or float32 [V, d], ``scale`` float32 [V] and ``position`` float32 [positions, d].

    The layers are those of a transformer that normalizes the input of each part (pre-LN) and has ReLU as activation.
    ``layers`` contains four linear maps, each of all layers: ``query_key_value`` (d to 3a), ``attention_output`` (a to
    d), ``intermediate`` (d to h) and ``output`` (h to d). A map is ``(weight * scale) @ x + bias`` with the tensors
    ``output.weight``, int8 or float32 [layers, out, in], ``output.scale`` and ``output.bias``, float32 [layers, out].
    The gains and shifts of the layer norms, and the factor ``1 / sqrt(a / heads)`` of the queries, are part of the
    maps.
    """

    type_path: ClassVar[str] = "st_core.modules.hybrid_score.HybridScore"
    old_names: ClassVar[tuple[str, ...]] = ()
    reads_text: ClassVar[bool] = True
    is_traceable: ClassVar[bool] = False
    requires: ClassVar[str | None] = None
    writes: ClassVar[str] = "scores"

    tokenizer: TextTokenizer
    term: NDArray[np.int32]
    idf: NDArray[np.float32]
    saturation: Saturation
    is_content: NDArray[np.uint8]
    table: NDArray[np.int8 | np.float32]
    scale: NDArray[np.float32]
    position: NDArray[np.float32]
    layers: Mapping[str, Array]
    heads: int
    lexical_weight: float
    cosine_weight: float
    bias: float

    @property
    def dimension(self) -> int | None:
        """1, the number of scores."""
        return 1

    @property
    def max_length(self) -> int | None:
        """None, because the words of the whole texts are compared."""
        return None

    @property
    def query(self) -> BM25:
        """The query half of the lexical score."""
        return BM25(self.tokenizer, self.term, idf=self.idf)

    @property
    def document(self) -> BM25:
        """The document half of the lexical score."""
        return BM25(self.tokenizer, self.term, saturation=self.saturation)

    @classmethod
    def load(cls, files: ModuleFiles) -> HybridScore:
        """Return the module in a folder; raise ModelBroken for tensors whose shapes or types do not fit together."""
        tokenizer = replace(load_tokenizer(files.tokenizer_path()), pair=BARE_PAIR, wants_types=True)
        config, tensors = files.config(), files.weights()
        module = cls(
            tokenizer,
            **{name: tensors[name] for name in _TENSORS},  # type: ignore[arg-type]
            saturation=read_saturation(config),
            layers={name: tensors[name] for name in (f"{each}.{part}" for each in MAPS for part in _PARTS)},
            heads=_heads(config),
            **{name: read_number(config, name) for name in _NUMBERS},  # type: ignore[arg-type]
        )
        for name, array, kind, shape in module._expected():
            if array.dtype != kind or array.shape != shape:
                raise ModelBroken(
                    f"{files.folder}: {name}: expected {np.dtype(kind).name} {list(shape)}, got {array.dtype.name} "
                    f"{list(array.shape)}"
                )
            if not np.isfinite(array).all():
                raise ModelBroken(f"{files.folder}: {name} has values that are not finite")
        size = tokenizer.vocabulary_size
        if not -1 <= int(module.term.min()) <= int(module.term.max()) < size:
            raise ModelBroken(f"{files.folder}: term points outside the {size} entries of the vocabulary")
        for name in _NUMBERS:
            if not np.isfinite(getattr(module, name)):
                raise ModelBroken(f"{config.path}: {name}: expected a finite number, got {getattr(module, name)}")
        attention = module.layers["attention_output.weight"].shape[2]
        if attention % module.heads:
            raise ModelBroken(f"{files.folder}: {attention} dimensions cannot be split into {module.heads} heads")
        return module

    def _expected(self) -> list[tuple[str, Array, type[np.generic], tuple[int, ...]]]:
        """Return the name, array, expected type and expected shape of each tensor."""
        size, width = self.tokenizer.vocabulary_size, (*self.table.shape, 0, 0)[1]
        sizes = {name: (*self.layers[f"{name}.weight"].shape, 0, 0, 0) for name in MAPS}
        count, hidden = sizes["query_key_value"][0], sizes["intermediate"][1]
        attention = sizes["attention_output"][2]
        found: list[tuple[str, Array, type[np.generic], tuple[int, ...]]] = [
            ("term", self.term, np.int32, (size,)),
            ("idf", self.idf, np.float32, (size,)),
            ("is_content", self.is_content, np.uint8, (size,)),
            ("table", self.table, _weight_type(self.table), (size, width)),
            ("scale", self.scale, np.float32, (size,)),
            ("position", self.position, np.float32, ((*self.position.shape, 0)[0], width)),
        ]
        shapes = ((3 * attention, width), (width, attention), (hidden, width), (width, hidden))
        for name, (rows, columns) in zip(MAPS, shapes, strict=True):
            weight = self.layers[f"{name}.weight"]
            found += [
                (f"{name}.weight", weight, _weight_type(weight), (count, rows, columns)),
                (f"{name}.scale", self.layers[f"{name}.scale"], np.float32, (count, rows)),
                (f"{name}.bias", self.layers[f"{name}.bias"], np.float32, (count, rows)),
            ]
        return found

    def linear(self, name: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the matrices [layers, out, in] and the biases [layers, out] of one of ``MAPS``, in float32."""
        weight, scale, bias = (self.layers[f"{name}.{part}"].astype(np.float32) for part in _PARTS)
        return weight * scale[..., None], bias

    def save(self) -> Parts:
        """Return configuration, weights and tokenizer."""
        each = self.saturation
        config = {
            "k1": each.k1,
            "b": each.b,
            "average_length": each.average_length,
            "heads": self.heads,
        } | {name: getattr(self, name) for name in _NUMBERS}
        return Parts({"config.json": config}, {name: array for name, array, *_ in self._expected()}, self.tokenizer)


def _heads(config: JsonObject) -> int:
    heads = config["heads"]
    if isinstance(heads, bool) or not isinstance(heads, int) or heads < 1:
        raise config.broken("heads", "a positive integer")
    return heads


def _weight_type(array: Array) -> type[np.int8 | np.float32]:
    """Return the type that an array of weights should have: int8, or float32 after a training."""
    return np.int8 if array.dtype == np.int8 else np.float32
