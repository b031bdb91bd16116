"""Replace the model in a folder completely or, on failure, not at all."""

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
"""Files that are read if they exist, so that those of an earlier model would change the results of a new model."""

_MARKS = ("modules.json", "config.json", "adapter_config.json")
"""Files of which every model folder contains at least one."""


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Yield an empty folder for the files of a model, which replace those in ``folder`` at the end of the block.

    If an error occurs, no file is replaced. Files of an earlier model that the new model lacks are removed; other files
    stay. If ``folder`` did not exist, it is not left behind empty.
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
            with suppress(OSError):  # raised where the folder contains files, which is the normal case
                folder.rmdir()


def _stale(folder: Path, files: Sequence[Path]) -> list[Path]:
    """Return the files of an earlier model other than ``files``.

    In a folder without a model there are none, because all files belong to the user.
    """
    if not any((folder / name).is_file() for name in _MARKS):
        return []
    places = dict.fromkeys([Path(), *(path.parent for path in files)])
    present = [path.relative_to(folder) for place in places for path in sorted((folder / place).glob("*"))]
    return [path for path in present if path not in files and any(fnmatch(path.name, each) for each in MODEL_FILES)]


def _rename(pairs: Sequence[tuple[Path, Path]]) -> None:
    """Rename files to free names: all of them or, on an error, none."""
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
