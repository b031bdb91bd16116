"""Who is timed: a contender is a line here, a package with sentence-transformers' class names and the arguments that make it this contender."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

__all__ = ["BARE", "THEIRS", "Contender", "contenders"]


@dataclass(frozen=True, slots=True)
class Contender:
    """``load`` goes to the model's constructor, ``call`` to every call. ``bits`` under 32 are held to the looser parity of that many.

    ``sizes`` are batch sizes of which the fastest is found first, on texts of no round. ``works`` names what it takes part in, ``form`` what of a
    checkpoint it reads, by its name in ``bench.checkpoints.FORMS``.
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
        """Packages that are not installed."""
        return [package for package in (self.engine, *self.needs) if not _installed(package)]

    @property
    def device(self) -> str:
        """Where it computes."""
        return str(self.load.get("device", "cpu"))


def _installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # of a.b, a is not there
        return False


THEIRS = "sentence-transformers"
BARE = "bare forward pass"
CPU = {"device": "cpu"}
FASTEMBED = "bench.fastembed_models"

THROUGHPUT = frozenset({"dense", "splade", "pairs"})
TRANSFORMER = THROUGHPUT | {"query", "start", "splade-memory"}
STATIC = frozenset({"sparse-query", "sparse-queries", "static", "start-static"})
EXACT = {"ov_config": {"INFERENCE_PRECISION_HINT": "f32"}}
"""Without it OpenVINO computes in bfloat16 on processors that have it."""

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
    # What sentence-transformers' OpenVINO computes in by itself, where the processor has it.
    Contender(
        "st_core openvino bfloat16",
        "st_core",
        {"backend": "openvino", "dtype": "bfloat16"},
        needs=("openvino",),
        bits=16,
        works=THROUGHPUT,
    ),
    Contender("st_core numpy", "st_core", CPU, works=STATIC),
    # Its default of 256 texts in a batch takes 16 GB for 64 SPLADE documents, so that there only its best size takes part.
    Contender(
        "fastembed", FASTEMBED, needs=("fastembed",), works=frozenset({"dense", "pairs", "query", "start"}), form="onnx"
    ),
    Contender(
        "fastembed, best size", FASTEMBED, needs=("fastembed",), sizes=(8, 16, 32), works=THROUGHPUT, form="onnx"
    ),
    Contender(BARE, "transformers", CPU, needs=("torch",), works=frozenset({"query"})),
)


def contenders(device: str = "cpu") -> tuple[Contender, ...]:
    """All who can compute on a device; the first is what all others are compared with."""
    return ON_CPU if device == "cpu" else _on_card(device)


def _on_card(device: str) -> tuple[Contender, ...]:
    """Both engines in torch, in each type; other runtimes need builds of their own for a card."""
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
