"""Quantises an OpenVINO graph, activations too, by what it is fed: ``python -m st_core.backends.graph.openvino.int8 FILE FEEDS MADE``.

A program of its own, since importing nncf 3.4 replaces functions of torch, and it reports to its makers unless its environment forbids it.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from typing import Any

ALPHA = 0.85
"""How much of the range of activations is moved into the weights. Measured on MiniLM: the worst cosine rises from 0.92 to 0.99."""


def read_feeds(path: str) -> list[dict[str, Any]]:
    """The feeds that :func:`st_core.backends.graph.openvino.session.reduce` wrote: arrays named ``number/input``."""
    import numpy as np

    feeds: dict[int, dict[str, Any]] = defaultdict(dict)
    with np.load(path) as arrays:
        for key in arrays.files:
            number, _, name = key.partition("/")
            feeds[int(number)][name] = arrays[key]
    return [feeds[number] for number in sorted(feeds)]


def main(file: str, feeds: str, made: str) -> int:
    """Read a float32 graph, write the quantised one."""
    import nncf
    import openvino as ov
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, AdvancedSmoothQuantParameters

    given = read_feeds(feeds)
    quantised = nncf.quantize(
        ov.Core().read_model(file),
        nncf.Dataset(given),
        model_type=nncf.ModelType.TRANSFORMER,
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(given),
        advanced_parameters=AdvancedQuantizationParameters(
            smooth_quant_alphas=AdvancedSmoothQuantParameters(matmul=ALPHA)
        ),
    )
    ov.save_model(quantised, made, compress_to_fp16=False)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
