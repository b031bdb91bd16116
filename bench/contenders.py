"""The contenders: each is a package with sentence-transformers' class names and the arguments to load and call it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

__all__ = ["BARE", "THEIRS", "Contender", "contenders"]


@dataclass(frozen=True, slots=True)
class Contender:
    """A contender: ``load`` are arguments of the model's constructor, ``call`` of every call.

    ``bits`` below 32 lower the required parity. ``sizes`` are batch sizes of which the fastest is chosen first, on
    texts of no round. ``works`` names the works to take part in, ``form`` the form of checkpoint to read, by its name
    in ``bench.checkpoints.FORMS``.
    """

    name: str
    engine: str
    load: Mapping[str, Any] = field(default_factory=dict)
    call: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    bits: int = 32
    sizes: tuple[int, ...] = ()
    works: frozenset[str] = frozenset()
    form: str = "checkpoint"

    @property
    def missing(self) -> list[str]:
        """Return the packages that are not installed."""
        return [package for package in (self.engine, *self.needs) if not _installed(package)]

    @property
    def device(self) -> str:
        """Return the device of the contender."""
        return str(self.load.get("device", "cpu"))


def _installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # the parent package is missing
        return False


THEIRS = "sentence-transformers"
BARE = "bare forward pass"
CPU = {"device": "cpu"}
FASTEMBED = "bench.fastembed_models"

THROUGHPUT = frozenset({"dense", "splade", "pairs"})
TRANSFORMER = THROUGHPUT | {"query", "start", "splade-memory"}
STATIC = frozenset({"sparse-query", "sparse-queries", "static", "start-static"})
EXACT = {"ov_config": {"INFERENCE_PRECISION_HINT": "f32"}}
"""Without this option OpenVINO computes in bfloat16 on processors that support it."""

ON_CPU = (
    Contender(THEIRS, "sentence_transformers", CPU, works=TRANSFORMER | STATIC),
    Contender(f"{THEIRS}, best size", "sentence_transformers", CPU, sizes=(8, 16, 32, 64), works=THROUGHPUT),
    *(
        Contender(
            f"{THEIRS} openvino{name}",
            "sentence_transformers",
            {**CPU, "backend": "openvino", "model_kwargs": options},
            needs=("optimum.intel", "openvino"),
            bits=bits,
            works=THROUGHPUT | {"query"},
        )
        for name, options, bits in ((" float32", EXACT, 32), ("", {}, 16))
    ),
    Contender("st_core torch", "st_core", CPU, needs=("torch",), works=TRANSFORMER),
    *(
        Contender(
            f"st_core {backend} {dtype}",
            "st_core",
            {"backend": backend, "dtype": dtype},
            needs=(package,),
            bits=bits,
            works=works,
        )
        for backend, package in (("openvino", "openvino"), ("onnx", "onnxruntime"))
        for dtype, bits, works in (("float32", 32, TRANSFORMER), ("int8", 8, THROUGHPUT | {"splade-memory"}))
    ),
    # The default of sentence-transformers' OpenVINO backend on processors that support it.
    Contender(
        "st_core openvino bfloat16",
        "st_core",
        {"backend": "openvino", "dtype": "bfloat16"},
        needs=("openvino",),
        bits=16,
        works=THROUGHPUT,
    ),
    Contender("st_core numpy", "st_core", CPU, works=STATIC),
    # Its default batch of 256 texts takes 16 GB for 64 SPLADE documents, so only its best size takes part there.
    Contender(
        "fastembed", FASTEMBED, needs=("fastembed",), works=frozenset({"dense", "pairs", "query", "start"}), form="onnx"
    ),
    Contender(
        "fastembed, best size", FASTEMBED, needs=("fastembed",), sizes=(8, 16, 32), works=THROUGHPUT, form="onnx"
    ),
    Contender(BARE, "transformers", CPU, needs=("torch",), works=frozenset({"query"})),
)


def contenders(device: str = "cpu") -> tuple[Contender, ...]:
    """All contenders on a device; the first is the baseline of all comparisons."""
    return ON_CPU if device == "cpu" else _on_card(device)


def _on_card(device: str) -> tuple[Contender, ...]:
    """Return both engines in torch, in each dtype; other runtimes need their own builds for a GPU."""
    exact, half = {"device": device}, THROUGHPUT | {"query"}
    types = ("float16", "bfloat16")
    return (
        Contender(THEIRS, "sentence_transformers", exact, works=TRANSFORMER),
        Contender(f"{THEIRS}, best size", "sentence_transformers", exact, sizes=(32, 64, 128, 256), works=THROUGHPUT),
        *(
            Contender(
                f"{THEIRS} {dtype}",
                "sentence_transformers",
                {**exact, "model_kwargs": {"dtype": dtype}},
                bits=16,
                works=half,
            )
            for dtype in types
        ),
        Contender("st_core torch", "st_core", exact, works=TRANSFORMER),
        *(
            Contender(f"st_core torch {dtype}", "st_core", {**exact, "dtype": dtype}, bits=16, works=half)
            for dtype in types
        ),
        Contender(BARE, "transformers", exact, works=frozenset({"query"})),
    )
