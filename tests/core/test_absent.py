"""Functions of sentence-transformers that are not there name what takes their place."""

from __future__ import annotations

from importlib import import_module

import pytest


@pytest.mark.parametrize(
    ("module", "name", "instead"),
    [
        ("st_core", "export_optimized_onnx_model", "export_model.*backend='onnx', dtype='float32'"),
        ("st_core.backend", "export_dynamic_quantized_onnx_model", "export_model.*backend='onnx', dtype='int8'"),
        ("st_core.backend", "export_static_quantized_openvino_model", "backend='openvino', dtype='int8'.*calibration"),
        ("st_core.backend", "load_onnx_model", "backend='onnx'"),
    ],
)
def test_a_function_that_is_not_there_names_what_takes_its_place(module, name, instead):
    """An ImportError, as for any name that cannot be imported; other names raise AttributeError."""
    with pytest.raises(ImportError, match=f"{module} has no {name}: .*{instead}"):
        exec(f"from {module} import {name}")
    assert not hasattr(import_module(module), "no_such_name")
