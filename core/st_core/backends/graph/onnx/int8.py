"""Convert the matrices of an ONNX file to eight bits: ``python -m st_core.backends.graph.onnx.int8 FILE``.

It runs in a separate process, because the quantization module of onnxruntime 1.32 configures logging on import.
"""

from __future__ import annotations

import sys

BLOCK = 128
"""Number of weights of a row that share a scale; with one scale per row, MiniLM's mean cosine falls to 0.987."""


def main(file: str) -> int:
    """Rewrite a file with one scale per block of a row; products are computed in eight bits as well."""
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

    config = DefaultWeightOnlyQuantConfig(block_size=BLOCK, is_symmetric=False, accuracy_level=4, bits=8)
    quantizer = MatMulNBitsQuantizer(onnx.load(file), algo_config=config)
    quantizer.process()
    onnx.save(quantizer.model.model, file)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
