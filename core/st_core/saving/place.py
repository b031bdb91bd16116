"""Puts the files of a model that is saved into a folder: all of them or none, and in the place of those of the model that was there."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path

__all__ = ["OF_A_MODEL", "placed"]

OF_A_MODEL = (
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
"""Files that are read by their mere presence: left behind by another model, they would change the numbers of the one saved over it."""

_MARKS = ("modules.json", "config.json", "adapter_config.json")
"""One of these is in every folder that holds a model."""


@contextmanager
def placed(folder: Path) -> Iterator[Path]:
    """An empty folder to write a model into; when the block ends its files are put into ``folder``, and where it fails none of them is.

    Files of a model that was there and that this one does not have are removed; what else lies there stays. A folder that had to be made is
    not left behind empty.
    """
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    making = Path(tempfile.mkdtemp(prefix=".saving-", dir=folder))
    made, before = making / "made", making / "before"
    try:
        made.mkdir()
        yield made
        files = [path.relative_to(made) for path in sorted(made.rglob("*")) if path.is_file()]
        old = [path for path in (*_stale(folder, files), *files) if (folder / path).is_file()]
        _rename([(folder / path, before / path) for path in old] + [(made / path, folder / path) for path in files])
    finally:
        shutil.rmtree(making, ignore_errors=True)
        if is_new:
            with suppress(OSError):  # it is not empty, as it should be
                folder.rmdir()


def _stale(folder: Path, files: Sequence[Path]) -> list[Path]:
    """The files of a model that lie beside ``files`` and are none of them; none in a folder without a model, where a vocabulary is the user's own."""
    if not any((folder / name).is_file() for name in _MARKS):
        return []
    places = dict.fromkeys([Path(), *(path.parent for path in files)])
    beside = [path.relative_to(folder) for place in places for path in sorted((folder / place).glob("*"))]
    return [path for path in beside if path not in files and any(fnmatch(path.name, each) for each in OF_A_MODEL)]


def _rename(pairs: Sequence[tuple[Path, Path]]) -> None:
    """Rename files to names that are free, all of them or none."""
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
