"""Graphs kept in folders: a stack of modules as one file that ONNX Runtime or OpenVINO runs, with all that is needed to feed it.

A graph's folder is named by its key, a hash of everything its numbers depend on, and holds ``graph.json`` (what goes in and comes out, and the
size and hash of every other file), ``tokenizer.json`` and the graph itself. It lies in the ``graphs`` folder of an exported model, or in the
cache. Folders appear whole or not at all: they are written beside their place and renamed into it, so that two processes at once are safe.
No torch is needed to read them.
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
from typing import TYPE_CHECKING, Any

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
    "keep",
    "read_spec",
    "read_tokenizer",
    "write_tokenizer",
]

logger = logging.getLogger(__name__)

FOLDER = "graphs"
"""The folder of graphs inside an exported model, and inside the cache."""

FORMAT = 3
"""Rises whenever graphs made before would give other numbers, or could not be read."""

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
"""The names of JSON and text files in a transformer's folder that the transformers library 5 reads; notes and requirements may lie there too."""

SPLIT = "split_special_tokens"
"""Says that special tokens in a text are read as text; the tokenizers library does not write it into its file."""
_FACTS = ("pad_id", "pad_type", "pad_left", "keep_left", "wants_types", "model_max_length")


@dataclass(frozen=True, slots=True)
class GraphSpec:
    """What ``graph.json`` says.

    ``inputs`` are names of int64 arrays [n, t], or [1] for ``prompt_length``; ``outputs`` are features. ``labels`` is the number of scores of a
    pair, ``positions`` how many tokens the model has position vectors for, ``max_length`` how many it reads; both are None for no limit.
    ``files`` gives size and hash of each other file, ``tokenizer`` what its file does not say. ``calibrated`` is how many texts the ranges of int8
    activations were fixed on; 0 where they are found anew for every text. ``words`` is how many tokens the model has vectors for, None where
    that is not known; ``even`` says that padding would change a text.
    """

    backend: str
    dtype: str
    file: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    labels: int
    positions: int | None
    max_length: int | None
    tokenizer: Mapping[str, Any]
    files: Mapping[str, tuple[int, str]]
    calibrated: int = 0
    words: int | None = None
    even: bool = False

    @property
    def precision(self) -> str:
        """The type with all that changes numbers, for fingerprints."""
        return self.dtype + STATIC * bool(self.calibrated)


def cache_root() -> Path | None:
    """The folder for what can be made again: ``ST_CONNECTORS_CACHE``, else ``st-connectors`` in the user's cache folder.

    None where neither is set and the user has no home folder, as in a container that runs as a user nobody has made.
    """
    given, user = os.environ.get("ST_CONNECTORS_CACHE"), os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return Path(given).expanduser() if given else Path(user).expanduser() / "st-connectors"
    except RuntimeError:  # what pathlib raises where there is no home
        return None


def graph_key(stack: Iterable[Module], backend: str, dtype: str) -> str:
    """The name of a graph: runtime, type, and a hash of the modules' configurations and weights and of the files of a transformer.

    Versions of libraries do not count: graphs are kept from one to the next.
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


def _canonical(value: Any) -> str:
    return json.dumps(
        value,
        sort_keys=True,
        default=lambda other: sorted(map(str, other)) if isinstance(other, frozenset) else str(other),
    )


def has_weights(module: Transformer) -> bool:
    """Whether the folder of a transformer holds weights that transformers may read."""
    return any(any((module.base or module.folder).glob(pattern)) for pattern in ("*.safetensors", "pytorch_model*.bin"))


def _read_files(module: Transformer) -> list[Path]:
    """The files whose content shapes a transformer's numbers, an adapter's model included; all where code of the model's own may read any."""
    files = [*_files(module.folder), *(_files(module.base) if module.base is not None else [])]
    if module.trust_remote_code:
        return files
    return [path for path in files if path.suffix not in (".json", ".txt") or any(map(path.match, READ))]


def _files(folder: Path) -> list[Path]:
    """The settings and weights in a folder, without the listings of a whole checkpoint."""
    weights = next((found for pattern in WEIGHTS if (found := sorted(folder.glob(pattern)))), [])
    listings = ("modules.json", "config_sentence_transformers.json")
    settings = {path for pattern in SETTINGS for path in folder.glob(pattern) if path.name not in listings}
    return [path for path in (*sorted(settings), *weights) if path.is_file()]


def _hash(path: Path) -> str:
    """The hash of a file's bytes."""
    from xxhash import xxh3_128

    state = xxh3_128()
    if path.stat().st_size:
        data = np.memmap(path, np.uint8, mode="r")
        for start in range(0, data.size, 1 << 24):
            state.update(data[start : start + (1 << 24)].data)
    return state.hexdigest()


def keep(place: Path, write: Callable[[Path], GraphSpec]) -> None:
    """Make a graph's folder at ``place``: ``write`` fills an empty folder, which is then renamed into its place in one step.

    What lies there already and is whole stays, whoever made it; what is damaged is replaced.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    making = Path(tempfile.mkdtemp(prefix=".making-", dir=place.parent))
    try:
        spec = write(making)
        listed = {path.name: (path.stat().st_size, _hash(path)) for path in sorted(making.iterdir()) if path.is_file()}
        (making / SPEC).write_text(json.dumps(asdict(spec) | {"files": listed, "format": FORMAT}, indent=1), "utf-8")
        making.chmod(0o755)
        _put(making, place)
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _put(making: Path, place: Path) -> None:
    """Rename a folder into its place, and a damaged one that lies there out of it."""
    for _ in range(3):
        try:
            making.rename(place)
        except OSError:
            if not place.exists():
                raise
        else:
            return
        try:
            if read_spec(place) is not None:
                return
        except ModelBroken:
            gone = Path(tempfile.mkdtemp(prefix=".damaged-", dir=place.parent))
            try:
                place.rename(gone / place.name)
            except FileNotFoundError:  # another process was first
                continue
            finally:
                shutil.rmtree(gone, ignore_errors=True)


def read_spec(place: Path) -> GraphSpec | None:
    """What lies at ``place``, None where there is nothing; raises ModelBroken for what is damaged or of another format."""
    path = place / SPEC
    if not place.is_dir():
        return None
    try:
        value = json.loads(path.read_text("utf-8"))
        if value.pop("format") != FORMAT:
            raise ModelBroken(f"{path}: made by another version of this package")
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
    """Copy the files of a graph into an empty folder and give what they are; raises ModelBroken where it is damaged or gone."""
    spec = read_spec(place)
    if spec is None:
        raise ModelBroken(f"{place}: the graph is gone")
    for name in spec.files:
        shutil.copyfile(place / name, folder / name)
    return spec


def write_tokenizer(tokenizer: TextTokenizer, folder: Path) -> dict[str, Any]:
    """Write the tokenizer as it is used; gives what its file does not say."""
    tokenizer.backend.save(str(folder / TOKENIZER))
    facts = {name: getattr(tokenizer, name) for name in _FACTS}
    if tokenizer.backend.encode_special_tokens:
        facts[SPLIT] = True
    return facts | {"special_ids": sorted(tokenizer.special_ids)}


def read_tokenizer(folder: Path, facts: Mapping[str, Any]) -> TextTokenizer:
    """The tokenizer of a graph's folder; raises ModelBroken where its file cannot be used."""
    return tokenizer_of(folder / TOKENIZER, facts)


def tokenizer_of(path: Path, facts: Mapping[str, Any]) -> TextTokenizer:
    """A tokenizer from its file and from ``facts``, fields of :class:`TextTokenizer` and ``SPLIT``; raises ModelBroken for a file that cannot be used."""
    from tokenizers import Tokenizer

    try:
        backend = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception for a file it cannot read
        raise ModelBroken(f"{path}: not a readable tokenizer file: {error}") from error
    backend.no_padding()
    backend.no_truncation()
    backend.encode_special_tokens = bool(facts.get(SPLIT))
    single = read_layout(backend, pair=False)
    if single is None:
        raise ModelBroken(f"{path}: the tokenizer does not keep a text's tokens together and in order")
    fields = {name: value for name, value in facts.items() if name != SPLIT}
    more = fields | {"special_ids": frozenset(facts["special_ids"]), "offered": backend}
    words = read_word_pieces(backend)
    return TextTokenizer(backend, single, read_layout(backend, pair=True), words=words, **more)
