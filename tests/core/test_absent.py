"""Functions of sentence-transformers that are not there name what takes their place."""

from __future__ import annotations

import re
import subprocess
import sys
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


@pytest.mark.parametrize(
    "code",
    [
        "from st_core.distilling import train_on_scores",
        "from st_core.distilling import with_layers",
        "from st_core import SentenceTransformerTrainer",
        "import st_core; st_core.losses.MSELoss",
        "from st_connectors.cli import run; sys.exit(run(['distill', 'layers', '--teacher', 'm', '--out', 'o']))",
    ],
)
def test_what_trains_names_the_extra_that_is_missing(code):
    """Also on the command line, before anything is loaded."""
    hidden = f"import sys; sys.modules['torch'] = None; {code}"

    outcome = subprocess.run([sys.executable, "-c", hidden], capture_output=True, text=True, check=False)

    assert outcome.returncode != 0
    assert re.search(r"torch is missing: .*\[train\]", outcome.stderr.splitlines()[-1])
