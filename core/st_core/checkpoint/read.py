"""Read the files at the top level of a checkpoint's folder and check their values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from st_core.checkpoint.files import JsonObject, inside, is_present, read_json, read_optional_object
from st_core.checkpoint.find import adapter_base
from st_core.errors import ModelBroken, ModelNotFound, ModelUnsupported, RequirementMissing

__all__ = ["Checkpoint", "ModuleEntry", "check_requirements", "installed_version", "read_checkpoint"]


@dataclass(frozen=True, slots=True)
class ModuleEntry:
    """One entry of ``modules.json``: the type path as written there, and the folder of the module."""

    type_path: str
    folder: Path


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A local folder whose top-level files have been read and checked.

    ``entries`` is empty for a folder without ``modules.json``, such as that of a plain transformers model. ``settings``
    is the content of ``config_sentence_transformers.json``, and ``config`` that of the transformer's ``config.json``;
    each is empty if the file is missing.
    """

    name: str
    revision: str | None
    folder: Path
    entries: tuple[ModuleEntry, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def family(self) -> str:
        """The name of the model class that saved the checkpoint; ``SentenceTransformer`` if none is recorded."""
        return str(self.settings.get("model_type", "SentenceTransformer"))

    @property
    def architectures(self) -> tuple[str, ...]:
        """The classes of transformers that ``config.json`` lists; the first one is the class of the model."""
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

    ``name`` and ``revision`` are stored in the result. For an adapter, ``config`` is that of its base model, which is
    looked up with ``hub``, options of ``find_checkpoint``. Raises ModelBroken for invalid values and for paths that
    lead out of the folder, ModelNotFound for a folder without a checkpoint, and ModelUnsupported for a model with code
    of its own unless ``trust_remote_code`` is set, RequirementMissing for requirements that are not installed.
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
    check_requirements(settings.get("requirements"), folder)
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
    """Raise ModelBroken for a setting whose value has the wrong type."""
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


def check_requirements(requirements: object, source: object) -> None:
    """Raise RequirementMissing if a package that the model requires is missing or has the wrong version.

    Entries that cannot be parsed are ignored, so that a mistake of the model's author does not make it unusable.
    """
    if not isinstance(requirements, dict):
        return
    unmet = []
    for package, requirement in requirements.items():
        specifier = requirement.get("specifier") if isinstance(requirement, dict) else requirement
        if not isinstance(specifier, str):
            continue
        version = installed_version(package)
        if not _satisfies(version, specifier):
            unmet.append(f"{package}{specifier} ({'installed: ' + version if version else 'not installed'})")
    if unmet:
        raise RequirementMissing(f"{source}: the model requires {', '.join(unmet)}")


def installed_version(package: str) -> str | None:
    """Return the installed version of a package, or of Python; None if the package is not installed."""
    if package == "python":
        import platform

        return platform.python_version()
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("torch" if package == "pytorch" else package)
    except PackageNotFoundError:
        return None


def _satisfies(version: str | None, specifier: str) -> bool:
    """Return whether a version satisfies a specifier; True if either cannot be parsed."""
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
