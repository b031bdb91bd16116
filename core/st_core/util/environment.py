"""The device, packages and groups of processes, under the import path of ``sentence_transformers.util.environment``."""

from __future__ import annotations

import os
import sys
from importlib.metadata import PackageNotFoundError, metadata
from importlib.util import find_spec

from st_core.checkpoint.read import check_requirements, installed_version
from st_core.util._absent import refusals

__all__ = [
    "check_package_availability",
    "check_version_requirements",
    "get_device_name",
    "get_installed_version",
    "is_accelerate_available",
    "is_datasets_available",
    "is_dist_initialized",
    "is_training_available",
]

__getattr__ = refusals(__name__)


def get_device_name() -> str:
    """Return the device that a model is loaded on by default: "cuda:0", that of ``LOCAL_RANK``, or "cpu"."""
    from st_core.backends.torch.backend import pick_device

    device = pick_device(None)
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if device.type == "cuda" else device.type


def is_dist_initialized() -> bool:
    """Return whether this process belongs to a group of ``torch.distributed``."""
    torch = sys.modules.get("torch")
    return torch is not None and torch.distributed.is_available() and torch.distributed.is_initialized()


def get_installed_version(package_name: str) -> str | None:
    """Return the version of a package, or of Python for "python"; None if the package is not installed."""
    return installed_version(package_name)


def check_version_requirements(requirements: dict[str, object] | None, source: str | None = None) -> None:
    """Raise RequirementMissing, an ImportError, if a package is missing or of a version that a model does not allow.

    ``requirements`` has a specifier such as ">=4.50" for each package, or an object with one as its "specifier";
    entries that cannot be parsed are ignored. ``source`` is the model's name in the error.
    """
    check_requirements(requirements, source or "requirements")


def check_package_availability(package_name: str, owner: str) -> bool:
    """Return whether a package is installed whose home page names its owner."""
    try:
        about = metadata(package_name)
    except PackageNotFoundError:
        return False
    return about["Name"] == package_name and owner in (about["Home-page"] or "")


def is_accelerate_available() -> bool:
    """Return whether accelerate is installed."""
    return find_spec("accelerate") is not None


def is_datasets_available() -> bool:
    """Return whether datasets is installed."""
    return find_spec("datasets") is not None


def is_training_available() -> bool:
    """Return whether the packages of the extra ``train`` are installed; ``datasets`` is not one of them."""
    return is_accelerate_available() and find_spec("transformers") is not None
