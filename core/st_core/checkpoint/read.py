"""A model's name becomes a local folder, and the folder's files become checked values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from st_core.checkpoint.files import inside, is_there, read_json, read_object
from st_core.checkpoint.find import adapter_base
from st_core.errors import ModelBroken, ModelNotFound, ModelUnsupported

__all__ = ["Checkpoint", "ModuleEntry", "read_checkpoint"]


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
    settings = read_object(folder / "config_sentence_transformers.json")
    base = adapter_base(folder, hub or {})
    config = read_object((base or folder) / "config.json")
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
