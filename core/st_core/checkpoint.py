"""A model's name becomes a local folder, and the folder's files become checked values."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files as package_files
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from st_core.errors import ModelBroken, ModelError, ModelNotFound, ModelUnsupported, missing_extra

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "ADAPTER",
    "Checkpoint",
    "Fetch",
    "ModuleEntry",
    "adapter_base",
    "find_checkpoint",
    "is_there",
    "last_name",
    "read_checkpoint",
    "read_json",
    "read_tensors",
    "read_weights",
]

HUB_PATTERNS = (
    "*.jinja",
    "*.json",
    "*.py",
    "*.txt",
    "*.model",
    "*.safetensors",
    "*.spm",
    "*.tiktoken",
    "*.bpe",
    "*.codes",
    "*.tokenizer",
    "[1-9]_*/pytorch_model.bin",
    "*_linear.pt",
    "adapter_model.bin",
)
"""What is fetched from the Hub; the transformer's ``*.bin`` follows only where it has no safetensors. The small modules behind it often
have nothing else, even where the transformer was converted. Code is read only where the caller trusts it."""

OTHER_FORMATS = ("onnx/*", "openvino/*", "coreml/*", "tf/*", "graphs/*")


@dataclass(frozen=True, slots=True)
class Fetch:
    """What to fetch of a repository on the Hub: with ``weights`` or without those of the transformer, and ``graphs``, patterns of file names."""

    weights: bool = True
    graphs: tuple[str, ...] = ()

    @property
    def allowed(self) -> list[str]:
        """The patterns to fetch."""
        plain = [each for each in HUB_PATTERNS if self.weights or not each.startswith("*.safetensors")]
        return [*plain, *([] if self.weights else ["*/*.safetensors"]), *self.graphs]

    @property
    def ignored(self) -> list[str]:
        """The patterns to leave out of these."""
        folders = {each.removeprefix("*/").partition("/")[0] for each in self.graphs}
        other = [each for each in OTHER_FORMATS if each.partition("/")[0] not in folders and "*" not in folders]
        return [*other, *([] if self.weights else ["*Transformer/*.safetensors"])]

    def met(self, folder: Path) -> bool:
        """Whether what was fetched holds a graph, or none was asked for."""
        return not self.graphs or any(any(folder.glob(each)) for each in self.graphs)


# Names published without an organisation before organisations existed; a bare name outside this list gets the family's organisation.
_BARE_NAMES = frozenset(
    """
    albert-base-v1 albert-base-v2 albert-large-v1 albert-large-v2 albert-xlarge-v1 albert-xlarge-v2 albert-xxlarge-v1 albert-xxlarge-v2
    bert-base-cased-finetuned-mrpc bert-base-cased bert-base-chinese bert-base-german-cased bert-base-german-dbmdz-cased
    bert-base-german-dbmdz-uncased bert-base-multilingual-cased bert-base-multilingual-uncased bert-base-uncased bert-large-cased
    bert-large-cased-whole-word-masking bert-large-cased-whole-word-masking-finetuned-squad bert-large-uncased
    bert-large-uncased-whole-word-masking bert-large-uncased-whole-word-masking-finetuned-squad camembert-base ctrl
    distilbert-base-cased distilbert-base-cased-distilled-squad distilbert-base-german-cased distilbert-base-multilingual-cased
    distilbert-base-uncased distilbert-base-uncased-distilled-squad distilbert-base-uncased-finetuned-sst-2-english distilgpt2
    distilroberta-base gpt2 gpt2-large gpt2-medium gpt2-xl openai-gpt roberta-base roberta-base-openai-detector roberta-large
    roberta-large-mnli roberta-large-openai-detector t5-11b t5-3b t5-base t5-large t5-small transfo-xl-wt103 xlm-clm-ende-1024
    xlm-clm-enfr-1024 xlm-mlm-100-1280 xlm-mlm-17-1280 xlm-mlm-en-2048 xlm-mlm-ende-1024 xlm-mlm-enfr-1024 xlm-mlm-enro-1024
    xlm-mlm-tlm-xnli15-1024 xlm-mlm-xnli15-1024 xlm-roberta-base xlm-roberta-large xlm-roberta-large-finetuned-conll02-dutch
    xlm-roberta-large-finetuned-conll02-spanish xlm-roberta-large-finetuned-conll03-english
    xlm-roberta-large-finetuned-conll03-german xlnet-base-cased xlnet-large-cased
    """.split()  # noqa: SIM905 - eighty names read better as text
)

BUILTIN = "builtin:"


@dataclass(frozen=True, slots=True)
class ModuleEntry:
    """One line of ``modules.json``: the type as written and the module's folder."""

    type_name: str
    folder: Path


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A local folder whose top-level files have been read and checked.

    ``entries`` is empty for a plain Hugging Face folder. ``settings`` is ``config_sentence_transformers.json``, ``config`` the transformer's
    ``config.json``; both are empty where the file is missing.
    """

    name: str
    revision: str | None
    folder: Path
    entries: tuple[ModuleEntry, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def family(self) -> str:
        """``SentenceTransformer``, ``SparseEncoder``, ``CrossEncoder`` or another; what old checkpoints without the key are is the first."""
        return str(self.settings.get("model_type", "SentenceTransformer"))


def last_name(type_name: str) -> str:
    """The class name at the end of a dotted path: old and new module types differ only before it."""
    return type_name.rsplit(".", 1)[-1]


def read_json(path: Path) -> Any:
    """The value in a JSON file; raises ModelBroken naming file and reason."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelBroken(
            f"{path}: {'the link leads nowhere' if path.is_symlink() else 'the file is missing'}"
        ) from error
    except OSError as error:
        raise ModelBroken(f"{path}: the file cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ModelBroken(f"{path}: not JSON: {error}") from error


def is_there(path: Path) -> bool:
    """Whether there is anything of that name; a link to nothing and a folder are not a file that is missing, and reading them says so."""
    return os.path.lexists(path)


def _read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file, empty where there is no such file."""
    if not is_there(path):
        return {}
    value = read_json(path)
    if not isinstance(value, dict):
        raise ModelBroken(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def inside(root: Path, path: object, where: Path) -> Path:
    """The folder that ``path`` names under ``root``; raises ModelBroken where it lies outside, also by a link, or is no text."""
    if not isinstance(path, str):
        raise ModelBroken(f"{where}: the path {path!r} of a module must be text")
    parts = PurePosixPath(path.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or ":" in path or not _really_inside(root, root / parts):
        raise ModelBroken(f"{where}: the path {path!r} leaves the checkpoint's folder")
    try:
        is_file = not (root / parts).is_dir() and (root / parts).exists()
    except OSError as error:
        raise ModelBroken(
            f"{where}: the path {path[:200]!r} of a module cannot be looked for: {error.strerror}"
        ) from error
    if is_file:
        raise ModelBroken(f"{where}: the path {path!r} of a module is a file, expected a folder")
    return root / parts


def _really_inside(root: Path, path: Path) -> bool:
    """Whether a path lies in a folder when all links are followed. Files of a folder may be links to elsewhere: the Hub's cache has such."""
    try:
        return path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError, ValueError):  # a link to itself, a zero byte
        return False


def read_weights(folder: Path) -> dict[str, NDArray[Any]]:
    """The tensors of ``model.safetensors``, or of ``pytorch_model.bin`` read without running any code in it.

    Half-precision tensors that numpy has no type for (bfloat16) come as float32. Raises ModelBroken naming the file.
    """
    path = folder / "model.safetensors"
    if path.is_file():
        return _read_safetensors(path)
    pickled = folder / "pytorch_model.bin"
    if pickled.is_file():
        return _read_pickle(pickled)
    raise ModelBroken(f"{folder}: neither model.safetensors nor pytorch_model.bin is there")


def read_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """The tensors of one file, by its ending a safetensors file or a pickle, of which no code is run; raises ModelBroken naming it."""
    return _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)


def _read_safetensors(path: Path) -> dict[str, NDArray[Any]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return dict(load_file(path))
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelBroken(f"{path}: not a readable safetensors file: {error}") from error
    except KeyError as error:  # numpy has no type of that name: bfloat16, float8
        return _read_with_torch(path, error)


def _read_with_torch(path: Path, reason: Exception) -> dict[str, NDArray[Any]]:
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise missing_extra("torch", f"{path} (a tensor type numpy lacks: {reason})") from error
    return {name: tensor.float().numpy() for name, tensor in load_file(path).items()}


def _read_pickle(path: Path) -> dict[str, NDArray[Any]]:
    try:
        import torch
    except ImportError as error:
        raise missing_extra("torch", f"{path} (a pickled file; safetensors need nothing)") from error
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # a damaged pickle makes its reader raise anything: struct.error, IndexError, KeyError
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelBroken(f"{path}: not a plain file of tensors (code in it is never run): {reason}") from error
    if not isinstance(tensors, dict) or not all(isinstance(value, torch.Tensor) for value in tensors.values()):
        raise ModelBroken(f"{path}: expected a mapping from names to tensors")
    try:
        return {
            str(name): (value.float() if value.dtype == torch.bfloat16 else value).detach().numpy()
            for name, value in tensors.items()
        }
    except (RuntimeError, TypeError) as error:  # sparse tensors, tensors without content
        raise ModelBroken(f"{path}: holds a tensor that is no plain array: {error}") from error


def find_checkpoint(
    name: str,
    *,
    organisation: str,
    revision: str | None = None,
    cache_folder: str | None = None,
    token: bool | str | None = None,
    local_files_only: bool = False,
    fetch: Sequence[Fetch] = (Fetch(),),
) -> tuple[Path, str, str | None]:
    """The local folder of a model, its full name and its revision: a folder, a built-in's name, or a Hub name, which is downloaded.

    A bare Hub name gets ``organisation`` in front unless it is one of the old names without one. Of ``fetch`` the first is downloaded whose graphs the
    repository has, else the last. Raises ModelNotFound.
    """
    if name.startswith(BUILTIN):
        return _find_builtin(name), name, None
    if not name:
        raise ModelNotFound("there is no folder ''; expected a folder with a checkpoint, a Hub name or a built-in")
    try:
        path = Path(name).expanduser()
        is_folder, is_file = path.is_dir(), path.is_file()
    except (OSError, RuntimeError) as error:  # no permission, a name too long, no such user
        raise ModelNotFound(f"{name[:200]!r} cannot be looked for: {error}") from error
    if is_folder:
        return path, name, revision
    if is_file:
        raise ModelNotFound(f"{name!r} is a file; expected a folder with a checkpoint, a Hub name or a built-in")
    looks_local = name.count("/") > 1 or name.startswith((".", "/", "~")) or (os.sep == "\\" and "\\" in name)
    if looks_local:
        raise ModelNotFound(
            f"there is no folder {name!r}; expected a folder with a checkpoint, a Hub name or a built-in"
        )
    if "/" not in name and name.lower() not in _BARE_NAMES:
        name = f"{organisation}/{name}"
    folder = _download(name, revision, cache_folder, token, fetch, local_files_only=local_files_only)
    return folder, name, folder.name if len(folder.name) == 40 else revision  # a commit's hash


def _find_builtin(name: str) -> Path:
    kept = name.removeprefix(BUILTIN)
    root = Path(str(package_files("st_core.builtin")))
    known = sorted(path.name for path in root.iterdir() if (path / "modules.json").is_file())
    if kept not in known:
        listed = ", ".join(BUILTIN + each for each in known) or "none"
        raise ModelNotFound(f"there is no built-in model {name!r}; there are: {listed}")
    return root / kept


def _download(
    name: str,
    revision: str | None,
    cache_folder: str | None,
    token: bool | str | None,
    wanted: Sequence[Fetch],
    *,
    local_files_only: bool,
) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    def fetch(patterns: list[str], ignored: list[str]) -> Path:
        return Path(
            snapshot_download(
                name,
                revision=revision,
                cache_dir=cache_folder or os.environ.get("SENTENCE_TRANSFORMERS_HOME"),
                token=token,
                local_files_only=local_files_only,
                allow_patterns=patterns,
                ignore_patterns=ignored,
            )
        )

    try:
        for each in wanted:
            folder = fetch(each.allowed, each.ignored)
            if each.met(folder):
                break
        if not each.weights and not each.met(folder):
            _refuse_without_graph(name, revision, token, each, local_files_only=local_files_only)
        if each.weights and _lacks_weights(folder):
            folder = fetch([*each.allowed, "*.bin"], each.ignored)
    except HFValidationError as error:
        raise ModelNotFound(f"{name!r} is neither a folder nor a possible Hub name: {error}") from error
    except ModelError:
        raise
    except Exception as error:  # the Hub's library lets all errors of its HTTP client through, and those of the disk
        raise ModelNotFound(_why_not_downloaded(name, revision, error, local_files_only=local_files_only)) from error
    return folder


def _refuse_without_graph(
    name: str, revision: str | None, token: bool | str | None, wanted: Fetch, *, local_files_only: bool
) -> None:
    """Raise ModelNotFound for a repository that lacks the graph that was asked for by name, saying what it has."""
    message = f"the Hub model {name!r} holds no graph {wanted.graphs[0]!r}"
    if local_files_only:
        raise ModelNotFound(f"{message} in the local cache (local_files_only=True)")
    from huggingface_hub import HfApi

    ending = PurePosixPath(wanted.graphs[0]).suffix
    files = HfApi(token=token).list_repo_files(name, revision=revision)
    raise ModelNotFound(f"{message}; there are: {', '.join(each for each in files if each.endswith(ending)) or 'none'}")


def _lacks_weights(folder: Path) -> bool:
    """Whether a transformer in the folder, or below it, has no safetensors."""
    transformers = [path.parent for path in folder.rglob("config.json") if "model_type" in _read_object(path)]
    return not all(any(each.glob("*.safetensors")) for each in transformers or [folder])


def _why_not_downloaded(name: str, revision: str | None, error: Exception, *, local_files_only: bool) -> str:
    what = f"{name!r}" + (f" at revision {revision!r}" if revision else "")
    if local_files_only:
        return f"no folder {name!r}, and the Hub model {what} is not in the local cache (local_files_only=True)"
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"no folder {name!r}, and the Hub model {what} cannot be fetched ({reason}); check the name, the network and the token"


ADAPTER = "adapter_config.json"
"""Marks a folder of a PEFT adapter, whose model is another checkpoint."""


def adapter_base(folder: Path, hub: Mapping[str, Any]) -> Path | None:
    """The local folder of the model that the adapter in a folder belongs to, None where there is no adapter.

    ``hub`` are options of :func:`find_checkpoint`. Raises ModelBroken for an adapter that names no model, ModelNotFound for one that is
    not there.
    """
    if not is_there(folder / ADAPTER):
        return None
    named = _read_object(folder / ADAPTER).get("base_model_name_or_path")
    if not isinstance(named, str) or not named:
        raise ModelBroken(f"{folder / ADAPTER}: base_model_name_or_path must name the adapter's model, found {named!r}")
    try:
        return find_checkpoint(named, organisation="sentence-transformers", **hub)[0]
    except ModelNotFound as error:
        raise ModelNotFound(f"{folder / ADAPTER}: the adapter's model: {error}") from error


def read_checkpoint(
    folder: Path,
    *,
    name: str,
    revision: str | None,
    trust_remote_code: bool = False,
    hub: Mapping[str, Any] | None = None,
) -> Checkpoint:
    """Read and check the top-level files of a folder; of an adapter, ``config`` is that of its model, found with the options ``hub``.

    Raises ModelBroken for files that contradict themselves or paths that leave the folder, ModelNotFound for a folder that holds no
    checkpoint, and ModelUnsupported for one that asks for code of its own while ``trust_remote_code`` is off.
    """
    listing = folder / "modules.json"
    settings = _read_object(folder / "config_sentence_transformers.json")
    base = adapter_base(folder, hub or {})
    config = _read_object((base or folder) / "config.json")
    if not is_there(listing) and not config:
        raise ModelNotFound(f"{folder} holds no checkpoint: neither modules.json nor config.json is there")
    entries = _read_entries(folder, listing) if is_there(listing) else ()
    if config.get("auto_map") and not trust_remote_code:
        raise ModelUnsupported(
            f"{folder / 'config.json'}: the model brings its own code (auto_map), which runs only with trust_remote_code=True"
        )
    _check_settings(settings, folder / "config_sentence_transformers.json")
    if not isinstance(config.get("architectures") or [], list):
        raise ModelBroken(f"{folder / 'config.json'}: architectures must be a list, found {config['architectures']!r}")
    _check_requirements(settings.get("requirements"), folder)
    return Checkpoint(name, revision, folder, entries, settings, config)


def _read_entries(folder: Path, listing: Path) -> tuple[ModuleEntry, ...]:
    value = read_json(listing)
    if not isinstance(value, list) or not value or not all(isinstance(each, dict) for each in value):
        raise ModelBroken(f"{listing}: expected a list of modules")
    entries = []
    for each in value:
        if not isinstance(each.get("type"), str):
            raise ModelBroken(f"{listing}: a module has no type")
        entries.append(ModuleEntry(each["type"], inside(folder, each.get("path", ""), listing)))
    return tuple(entries)


def _check_settings(settings: Mapping[str, Any], path: Path) -> None:
    """Raise ModelBroken for a setting of the wrong type."""
    prompts = settings.get("prompts") or {}
    if not isinstance(prompts, dict) or not all(isinstance(text, (str, type(None))) for text in prompts.values()):
        raise ModelBroken(f"{path}: prompts must be an object of texts, found {prompts!r}")
    default = settings.get("default_prompt_name")
    if default is not None and not isinstance(default, str):
        raise ModelBroken(f"{path}: default_prompt_name must be a text, found {default!r}")
    for name in ("truncate_dim", "max_active_dims"):
        value = settings.get(name)
        if value is not None and (not isinstance(value, int) or value < 1):
            raise ModelBroken(f"{path}: {name} must be a positive integer, found {value!r}")


def _check_requirements(requirements: object, folder: Path) -> None:
    """Raise ModelUnsupported for a package that the model's author asks for in a version that is not installed.

    What cannot be understood is passed over, so that a slip of the author's does not lock the model.
    """
    if not isinstance(requirements, dict):
        return
    from importlib.metadata import PackageNotFoundError, version

    unmet = []
    for package, wanted in requirements.items():
        specifier = wanted.get("specifier") if isinstance(wanted, dict) else wanted
        if not isinstance(specifier, str):
            continue
        if package == "python":
            import platform

            found: str | None = platform.python_version()
        else:
            try:
                found = version("torch" if package == "pytorch" else package)
            except PackageNotFoundError:
                found = None
        if not _satisfies(found, specifier):
            unmet.append(f"{package}{specifier} ({'found ' + found if found else 'not installed'})")
    if unmet:
        raise ModelUnsupported(f"{folder}: the model asks for {', '.join(unmet)}")


def _satisfies(found: str | None, specifier: str) -> bool:
    """Whether a version meets a specifier; True where either cannot be read."""
    try:
        from packaging.specifiers import InvalidSpecifier, SpecifierSet
        from packaging.version import InvalidVersion
    except ImportError:
        return True
    try:
        wanted = SpecifierSet(specifier, prereleases=True)
        return found is not None and wanted.contains(found)
    except (InvalidSpecifier, InvalidVersion):
        return True
