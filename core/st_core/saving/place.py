"""Replace the model in a folder: all files of the new one or, on failure, none."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path

__all__ = ["MODEL_FILES", "replacing"]

MODEL_FILES = (
    "adapter_config.json",
    "adapter_model.bin",
    "adapter_model.safetensors",
    "added_tokens.json",
    "bpe.codes",
    "chat_template.jinja",
    "chat_template.json",
    "colbert_linear.pt",
    "config.json",
    "generation_config.json",
    "merges.txt",
    "model-*-of-*.safetensors",
    "model.safetensors",
    "model.safetensors.index.json",
    "preprocessor_config.json",
    "processor_config.json",
    "pytorch_model-*-of-*.bin",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "quantization_ranges.json",
    "router_config.json",
    "sentence_*_config.json",
    "sentencepiece.bpe.model",
    "sparse_linear.pt",
    "special_tokens_map.json",
    "spiece.model",
    "spm.model",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
)
"""Files that are read wherever they are present: those of an earlier model would change the numbers of the new one."""

_MARKS = ("modules.json", "config.json", "adapter_config.json")
"""Every folder of a model contains at least one of these."""


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Yield an empty folder for a model's files; at the end they replace those in ``folder``, on an error none does.

    Files of an earlier model that the new one lacks are removed, other files stay. A folder that did not exist is not
    left behind empty.
    """
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    workspace = Path(tempfile.mkdtemp(prefix=".saving-", dir=folder))
    new, old = workspace / "new", workspace / "old"
    try:
        new.mkdir()
        yield new
        files = [path.relative_to(new) for path in sorted(new.rglob("*")) if path.is_file()]
        replaced = [path for path in (*_stale(folder, files), *files) if (folder / path).is_file()]
        _rename([(folder / path, old / path) for path in replaced] + [(new / path, folder / path) for path in files])
    finally:
        shutil.rmtree(workspace, ignore_errors=True)
        if is_new:
            with suppress(OSError):  # raised where the folder has files, as it should
                folder.rmdir()


def _stale(folder: Path, files: Sequence[Path]) -> list[Path]:
    """Return an earlier model's files beside ``files``; none in a folder without a model, where they are the user's."""
    if not any((folder / name).is_file() for name in _MARKS):
        return []
    places = dict.fromkeys([Path(), *(path.parent for path in files)])
    present = [path.relative_to(folder) for place in places for path in sorted((folder / place).glob("*"))]
    return [path for path in present if path not in files and any(fnmatch(path.name, each) for each in MODEL_FILES)]


def _rename(pairs: Sequence[tuple[Path, Path]]) -> None:
    """Rename files to free names, all of them or none."""
    done: list[tuple[Path, Path]] = []
    try:
        for source, target in pairs:
            target.parent.mkdir(parents=True, exist_ok=True)
            source.rename(target)
            done.append((source, target))
    except BaseException:
        for source, target in reversed(done):
            target.rename(source)
        raise
