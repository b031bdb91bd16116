"""Read and write graph folders: a graph for ONNX Runtime or OpenVINO, with all files needed to run it.

The name of a graph folder is its key, a hash of everything that its results depend on. It contains ``graph.json``
(inputs, outputs, and the size and hash of every other file), ``tokenizer.json`` and the graph itself, and is stored in
the ``graphs`` folder of an exported model or in the cache. A folder is written under a temporary name and renamed in
one step, so that two processes may write it at the same time. Reading does not need torch.
"""

from __future__ import annotations

import errno
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
from st_core.home import expand_home
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
    "is_out_of_space",
    "read_spec",
    "read_tokenizer",
    "write_graph",
    "write_tokenizer",
]

logger = logging.getLogger(__name__)

FOLDER = "graphs"
"""Name of the folder that contains graphs, in an exported model and in the cache."""

FORMAT = 3
"""Version of graph folders, increased whenever older graphs would give other results or could not be read."""

FULL = 1_000_000
"""The free space in bytes below which a disk counts as full after a failed write."""

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
"""The JSON and text files in the folder of a transformer that transformers 5 reads.

Other JSON and text files do not affect the key of a graph.
"""

SPLIT = "split_special_tokens"
"""Key of the setting that special tokens in a text are read as text; the tokenizers library does not save it."""
_FIELDS = ("pad_id", "pad_type", "pad_left", "keep_left", "wants_types", "model_max_length")


TokenizerSettings: TypeAlias = dict[str, Any]
"""Fields of :class:`TextTokenizer` that the tokenizers library does not save, as JSON values."""


@dataclass(frozen=True, slots=True)
class GraphSpec:
    """The content of ``graph.json``.

    ``inputs`` are the names of int64 arrays [n, t], or [1] for ``prompt_length``; ``outputs`` are features. ``labels``
    is the number of scores of a pair. ``positions`` is the number of position embeddings and ``max_length`` the maximum
    number of tokens of a text, each None for no limit. ``files`` contains the size and hash of each other file,
    ``tokenizer`` the settings that the tokenizer's file lacks. ``calibrated`` is the number of texts that fixed the
    ranges of int8 activations, 0 for dynamic ranges. ``words`` is the number of token embeddings, None where unknown.
    ``even`` means that padding would change results, so that all texts of a batch must have the same length.
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
        """The dtype with a suffix for any other setting that changes vectors, for fingerprints."""
        return self.dtype + STATIC * bool(self.calibrated)


def cache_root() -> Path | None:
    """Return the cache folder: ``ST_CONNECTORS_CACHE``, else ``st-connectors`` in the user's cache folder.

    None where no variable is set and the user has no home folder, as in a container that runs as an unknown user.
    """
    configured, user = os.environ.get("ST_CONNECTORS_CACHE"), os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return Path(expand_home(configured)) if configured else Path(expand_home(user), "st-connectors")
    except ValueError:
        return None


def graph_key(stack: Iterable[Module], backend: str, dtype: str) -> str:
    """Return the name of a graph: runtime, dtype, and a hash of the modules' configurations and files.

    Library versions are not part of the hash, because graphs stay valid across them.
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
    """Return the files that the results of a transformer depend on, with those of the base model of an adapter.

    For a model with custom code these are all files, because the code may read any of them.
    """
    files = [*_files(module.folder), *(_files(module.base) if module.base is not None else [])]
    if module.trust_remote_code:
        return files
    return [path for path in files if path.suffix not in (".json", ".txt") or any(map(path.match, READ))]


def _files(folder: Path) -> list[Path]:
    """Return the files with settings and weights in a folder, without those that describe a complete checkpoint."""
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
    """Write a graph folder: ``write`` fills an empty folder, which is then renamed to ``place`` in one step.

    A complete graph at ``place`` is left in place; a damaged graph is replaced. Raises OSError if the disk is full,
    whatever error the writing library raises then.
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
    except Exception as error:
        check_space(error, temporary)  # before the folder is removed, which frees space
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def is_out_of_space(error: Exception, folder: Path) -> bool:
    """Return whether writing to a folder failed with ``error`` because its disk is full."""
    is_named = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    return is_named or shutil.disk_usage(folder).free < FULL


def check_space(error: Exception, folder: Path) -> None:
    """Raise OSError if writing to ``folder`` failed with ``error`` because its disk is full; return otherwise.

    Libraries report a full disk by errors of any type, so that the free space decides.
    """
    if not is_out_of_space(error, folder):
        return
    free = shutil.disk_usage(folder).free
    written = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    root = cache_root()
    is_cached = root is not None and folder.is_relative_to(root)
    advice = "set ST_CONNECTORS_CACHE to a folder" if is_cached else "choose a folder"
    raise OSError(
        errno.ENOSPC,
        f"the graph cannot be stored in {folder.parent}: its disk has {free / 1e6:.1f} MB left after "
        f"{written / 1e6:.1f} MB were written; free some space, or {advice} on another disk",
    ) from error


def _put(temporary: Path, place: Path) -> None:
    """Rename a folder to ``place``; a damaged graph at that path is removed first."""
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
            except FileNotFoundError:  # another process removed it first
                continue
            finally:
                shutil.rmtree(damaged, ignore_errors=True)


def read_spec(place: Path) -> GraphSpec | None:
    """Return the description of a graph, None if the folder is missing.

    Raises ModelBroken for a damaged graph and for another format version.
    """
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
    """Write the file of a tokenizer and return the settings that this file cannot contain."""
    tokenizer.backend.save(str(folder / TOKENIZER))
    settings: TokenizerSettings = {name: getattr(tokenizer, name) for name in _FIELDS}
    if tokenizer.backend.encode_special_tokens:
        settings[SPLIT] = True
    return settings | {"special_ids": sorted(tokenizer.special_ids)}


def read_tokenizer(folder: Path, settings: TokenizerSettings) -> TextTokenizer:
    """Return the tokenizer of a graph folder; raise ModelBroken where its file cannot be used."""
    return tokenizer_of(folder / TOKENIZER, settings)


def tokenizer_of(path: Path, settings: TokenizerSettings) -> TextTokenizer:
    """Return a tokenizer from its file and from ``settings``: fields of :class:`TextTokenizer`, and ``SPLIT``.

    Raises ModelBroken for a file that cannot be used.
    """
    from tokenizers import Tokenizer

    try:
        backend = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises plain Exception
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
