"""Read and write the folders of graphs: one file that ONNX Runtime or OpenVINO runs, with everything needed to feed it.

A graph's folder is named by its key, a hash of everything that its numbers depend on. It contains ``graph.json``
(inputs, outputs, and the size and hash of every other file), ``tokenizer.json`` and the graph itself, and is stored in
the ``graphs`` folder of an exported model or in the cache. A folder is written under a temporary name and renamed in
one step, so that two processes at once are safe. Reading needs no torch.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from st_core.backends.dtypes import STATIC
from st_core.errors import ModelBroken
from st_core.modules.transformer import Transformer
from st_core.text.tokens import TextTokenizer, read_layout
from st_core.text.word_pieces import read_word_pieces

if TYPE_CHECKING:
    from st_core.modules import Module

__all__ = [
    "FOLDER",
    "GraphSpec",
    "cache_root",
    "copy_graph",
    "graph_key",
    "has_weights",
    "read_spec",
    "read_tokenizer",
    "write_graph",
    "write_tokenizer",
]

logger = logging.getLogger(__name__)

FOLDER = "graphs"
"""The folder of graphs in an exported model, and in the cache."""

FORMAT = 3
"""Increased whenever older graphs would give other numbers or could not be read."""

SPEC = "graph.json"
TOKENIZER = "tokenizer.json"
WEIGHTS = ("*.safetensors", "*.bin")
SETTINGS = ("*.json", "*.txt", "*.model", "*.jinja", "*.bpe", "*.codes", "*.spm", "*.tiktoken", "*.tokenizer")
READ = (
    *(
        "config*.json",
        "*_config.json",
        "*.index.json",
        "*token*.json",
        "*vocab*.json",
        "*vocab*.txt",
        "chat_template.json",
    ),
    *("merges.txt", "dict.txt", "emoji.json", "normalizer.json", "byte_maps.json", "tekken.json", "word_*.json"),
)
"""The names of JSON and text files in a transformer's folder that transformers 5 reads.

Other files there do not count.
"""

SPLIT = "split_special_tokens"
"""Set where special tokens in a text are read as text; the tokenizers library does not save this setting."""
_FIELDS = ("pad_id", "pad_type", "pad_left", "keep_left", "wants_types", "model_max_length")


TokenizerSettings: TypeAlias = dict[str, Any]
"""Fields of :class:`TextTokenizer` that the tokenizers library does not save, as JSON."""


@dataclass(frozen=True, slots=True)
class GraphSpec:
    """The content of ``graph.json``.

    ``inputs`` are names of int64 arrays [n, t], or [1] for ``prompt_length``; ``outputs`` are features. ``labels`` is
    the number of scores of a pair, ``positions`` the number of position vectors, ``max_length`` the maximum tokens of a
    text; the last two are None for no limit. ``files`` contains size and hash of each other file, ``tokenizer`` the
    settings that its file lacks. ``calibrated`` is the number of texts that the ranges of int8 activations were fixed
    on, 0 for dynamic ranges. ``words`` is the number of token vectors, None where unknown; ``even`` means that padding
    would change a text.
    """

    backend: str
    dtype: str
    file: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    labels: int
    positions: int | None
    max_length: int | None
    tokenizer: TokenizerSettings
    files: Mapping[str, tuple[int, str]]
    calibrated: int = 0
    words: int | None = None
    even: bool = False

    @property
    def precision(self) -> str:
        """The dtype with everything that changes numbers, for fingerprints."""
        return self.dtype + STATIC * bool(self.calibrated)


def cache_root() -> Path | None:
    """Return the cache folder: ``ST_CONNECTORS_CACHE``, else ``st-connectors`` in the user's cache folder.

    None where neither is set and the user has no home folder, as in a container that runs as an unknown user.
    """
    configured, user = os.environ.get("ST_CONNECTORS_CACHE"), os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return Path(configured).expanduser() if configured else Path(user).expanduser() / "st-connectors"
    except RuntimeError:  # pathlib's error without a home folder
        return None


def graph_key(stack: Iterable[Module], backend: str, dtype: str) -> str:
    """Return the name of a graph: runtime, dtype, and a hash of the modules' configurations and files.

    Library versions do not count: graphs stay valid across them.
    """
    from xxhash import xxh3_128

    state = xxh3_128(f"{FORMAT} {backend} {dtype}".encode())
    for module in stack:
        state.update(type(module).__name__.encode())
        for each in fields(module):
            value = getattr(module, each.name)
            if isinstance(value, np.ndarray):
                state.update(
                    f"{each.name} {value.dtype} {value.shape}".encode() + np.ascontiguousarray(value).tobytes()
                )
            elif not isinstance(value, Path) and each.name != "tokenizer":
                state.update(f"{each.name} {_canonical(value)}".encode())
        if isinstance(module, Transformer):
            for path in _read_files(module):
                state.update(f"{path.name} {_hash(path)}".encode())
    return f"{backend}-{dtype}-{state.hexdigest()[:24]}"


def _canonical(value: object) -> str:
    return json.dumps(
        value,
        sort_keys=True,
        default=lambda other: sorted(map(str, other)) if isinstance(other, frozenset) else str(other),
    )


def has_weights(module: Transformer) -> bool:
    """Return whether the folder of a transformer contains weights that transformers can read."""
    return any(any((module.base or module.folder).glob(pattern)) for pattern in ("*.safetensors", "pytorch_model*.bin"))


def _read_files(module: Transformer) -> list[Path]:
    """Return the files that a transformer's numbers depend on, with those of an adapter's model.

    All files where custom code may read any.
    """
    files = [*_files(module.folder), *(_files(module.base) if module.base is not None else [])]
    if module.trust_remote_code:
        return files
    return [path for path in files if path.suffix not in (".json", ".txt") or any(map(path.match, READ))]


def _files(folder: Path) -> list[Path]:
    """Return the settings and weights in a folder, without the files that describe a whole checkpoint."""
    weights = next((found for pattern in WEIGHTS if (found := sorted(folder.glob(pattern)))), [])
    listings = ("modules.json", "config_sentence_transformers.json")
    settings = {path for pattern in SETTINGS for path in folder.glob(pattern) if path.name not in listings}
    return [path for path in (*sorted(settings), *weights) if path.is_file()]


def _hash(path: Path) -> str:
    """Return the hash of a file's bytes."""
    from xxhash import xxh3_128

    state = xxh3_128()
    if path.stat().st_size:
        data = np.memmap(path, np.uint8, mode="r")
        for start in range(0, data.size, 1 << 24):
            state.update(data[start : start + (1 << 24)].data)
    return state.hexdigest()


def write_graph(place: Path, write: Callable[[Path], GraphSpec]) -> None:
    """Write a graph's folder: ``write`` fills an empty folder, which is then renamed to ``place`` in one step.

    A complete graph at ``place`` stays; a damaged one is replaced.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".making-", dir=place.parent))
    try:
        spec = write(temporary)
        listed = {
            path.name: (path.stat().st_size, _hash(path)) for path in sorted(temporary.iterdir()) if path.is_file()
        }
        (temporary / SPEC).write_text(json.dumps(asdict(spec) | {"files": listed, "format": FORMAT}, indent=1), "utf-8")
        temporary.chmod(0o755)
        _put(temporary, place)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _put(temporary: Path, place: Path) -> None:
    """Rename a folder to ``place``; a damaged one there is removed first."""
    for _ in range(3):
        try:
            temporary.rename(place)
        except OSError:
            if not place.exists():
                raise
        else:
            return
        try:
            if read_spec(place) is not None:
                return
        except ModelBroken:
            damaged = Path(tempfile.mkdtemp(prefix=".damaged-", dir=place.parent))
            try:
                place.rename(damaged / place.name)
            except FileNotFoundError:  # another process was first
                continue
            finally:
                shutil.rmtree(damaged, ignore_errors=True)


def read_spec(place: Path) -> GraphSpec | None:
    """Read a graph's description, None without a folder; raise ModelBroken for a damaged graph or another format."""
    path = place / SPEC
    if not place.is_dir():
        return None
    try:
        value = json.loads(path.read_text("utf-8"))
        if value.pop("format") != FORMAT:
            raise ModelBroken(f"{path}: written by another version of this package")
        value["files"] = {name: (int(size), str(digest)) for name, (size, digest) in value["files"].items()}
        spec = GraphSpec(**value | {"inputs": tuple(value["inputs"]), "outputs": tuple(value["outputs"])})
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelBroken(f"{path}: not a readable description of a graph: {error}") from error
    for name, (size, digest) in spec.files.items():
        file = place / name
        if Path(name).name != name or not file.is_file() or file.stat().st_size != size or _hash(file) != digest:
            raise ModelBroken(f"{file}: the file is missing or damaged")
    return spec


def copy_graph(place: Path, folder: Path) -> GraphSpec:
    """Copy the files of a graph into an empty folder and return its description.

    Raises ModelBroken for a damaged or missing graph.
    """
    spec = read_spec(place)
    if spec is None:
        raise ModelBroken(f"{place}: the graph is missing")
    for name in spec.files:
        shutil.copyfile(place / name, folder / name)
    return spec


def write_tokenizer(tokenizer: TextTokenizer, folder: Path) -> TokenizerSettings:
    """Write the tokenizer and return the settings that its file lacks."""
    tokenizer.backend.save(str(folder / TOKENIZER))
    settings: TokenizerSettings = {name: getattr(tokenizer, name) for name in _FIELDS}
    if tokenizer.backend.encode_special_tokens:
        settings[SPLIT] = True
    return settings | {"special_ids": sorted(tokenizer.special_ids)}


def read_tokenizer(folder: Path, settings: TokenizerSettings) -> TextTokenizer:
    """Return the tokenizer of a graph's folder; raise ModelBroken where its file cannot be used."""
    return tokenizer_of(folder / TOKENIZER, settings)


def tokenizer_of(path: Path, settings: TokenizerSettings) -> TextTokenizer:
    """Return a tokenizer from its file and from ``settings``: fields of :class:`TextTokenizer`, and ``SPLIT``.

    Raises ModelBroken for a file that cannot be used.
    """
    from tokenizers import Tokenizer

    try:
        backend = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception for a file it cannot read
        raise ModelBroken(f"{path}: not a readable tokenizer file: {error}") from error
    backend.no_padding()
    backend.no_truncation()
    backend.encode_special_tokens = bool(settings.get(SPLIT))
    single = read_layout(backend, pair=False)
    if single is None:
        raise ModelBroken(f"{path}: the tokenizer inserts special tokens into a text or reorders it")
    fields = {name: value for name, value in settings.items() if name != SPLIT}
    more = fields | {"special_ids": frozenset(settings["special_ids"]), "offered": backend}
    words = read_word_pieces(backend)
    return TextTokenizer(backend, single, read_layout(backend, pair=True), words=words, **more)
