"""Read the top-level files of a checkpoint's folder and check their values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from st_core.checkpoint.files import JsonObject, inside, is_present, read_json, read_optional_object
from st_core.checkpoint.find import adapter_base
from st_core.errors import ModelBroken, ModelNotFound, ModelUnsupported

__all__ = ["Checkpoint", "ModuleEntry", "read_checkpoint"]


@dataclass(frozen=True, slots=True)
class ModuleEntry:
    """One entry of ``modules.json``: the type as written and the module's folder."""

    type_path: str
    folder: Path


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A local folder whose top-level files have been read and checked.

    ``entries`` is empty for a plain Hugging Face folder. ``settings`` is ``config_sentence_transformers.json`` and
    ``config`` the transformer's ``config.json``; both are empty where the file is missing.
    """

    name: str
    revision: str | None
    folder: Path
    entries: tuple[ModuleEntry, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def family(self) -> str:
        """The class that saved it; ``SentenceTransformer`` for old checkpoints, which do not say."""
        return str(self.settings.get("model_type", "SentenceTransformer"))

    @property
    def architectures(self) -> tuple[str, ...]:
        """The transformers classes of ``config.json``, the first being the model's own."""
        return tuple(str(name) for name in self.config.get("architectures") or ())

    @property
    def is_causal_model(self) -> bool:
        """Whether the model's class is a causal language model."""
        return any(name.endswith("ForCausalLM") for name in self.architectures[:1])


def read_checkpoint(
    folder: Path,
    *,
    name: str,
    revision: str | None,
    trust_remote_code: bool = False,
    hub: Mapping[str, Any] | None = None,
) -> Checkpoint:
    """Read and check the top-level files of a folder.

    For an adapter, ``config`` is that of its base model, resolved with the options ``hub`` of ``find_checkpoint``.
    Raises ModelBroken for files that contradict themselves or paths that leave the folder, ModelNotFound for a folder
    without a checkpoint, and ModelUnsupported for one with code of its own unless ``trust_remote_code``.
    """
    listing = folder / "modules.json"
    settings = read_optional_object(folder / "config_sentence_transformers.json")
    base = adapter_base(folder, hub or {})
    config = read_optional_object((base or folder) / "config.json")
    if not is_present(listing) and not config:
        raise ModelNotFound(f"{folder}: no checkpoint; expected modules.json or config.json")
    entries = _read_entries(folder, listing) if is_present(listing) else ()
    if config.get("auto_map") and not trust_remote_code:
        raise ModelUnsupported(
            f"{folder / 'config.json'}: the model brings its own code (auto_map), which runs only with "
            "trust_remote_code=True"
        )
    _check_settings(settings)
    config.optional_array("architectures")
    _check_requirements(settings.get("requirements"), folder)
    return Checkpoint(name, revision, folder, entries, dict(settings), dict(config))


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


def _check_settings(settings: JsonObject) -> None:
    """Raise ModelBroken for a setting of the wrong type."""
    prompts = settings.get("prompts") or {}
    if not isinstance(prompts, dict) or not all(isinstance(text, (str, type(None))) for text in prompts.values()):
        raise settings.broken("prompts", "an object of texts")
    default = settings.get("default_prompt_name")
    if default is not None and not isinstance(default, str):
        raise settings.broken("default_prompt_name", "a text")
    for name in ("truncate_dim", "max_active_dims"):
        value = settings.get(name)
        if value is not None and (not isinstance(value, int) or value < 1):
            raise settings.broken(name, "a positive whole number")


def _check_requirements(requirements: object, folder: Path) -> None:
    """Raise ModelUnsupported for a package that the model requires in a version that is not installed.

    Entries that cannot be read are ignored: a mistake of the author does not make the model unusable.
    """
    if not isinstance(requirements, dict):
        return
    unmet = []
    for package, requirement in requirements.items():
        specifier = requirement.get("specifier") if isinstance(requirement, dict) else requirement
        if not isinstance(specifier, str):
            continue
        version = _installed_version(package)
        if not _satisfies(version, specifier):
            unmet.append(f"{package}{specifier} ({'installed: ' + version if version else 'not installed'})")
    if unmet:
        raise ModelUnsupported(f"{folder}: the model requires {', '.join(unmet)}")


def _installed_version(package: str) -> str | None:
    """Return the version of a package or of Python, None where it is not installed."""
    if package == "python":
        import platform

        return platform.python_version()
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("torch" if package == "pytorch" else package)
    except PackageNotFoundError:
        return None


def _satisfies(version: str | None, specifier: str) -> bool:
    """Return whether a version meets a specifier; True where either cannot be read."""
    try:
        from packaging.specifiers import InvalidSpecifier, SpecifierSet
        from packaging.version import InvalidVersion
    except ImportError:
        return True
    try:
        allowed = SpecifierSet(specifier, prereleases=True)
        return version is not None and allowed.contains(version)
    except (InvalidSpecifier, InvalidVersion):
        return True
