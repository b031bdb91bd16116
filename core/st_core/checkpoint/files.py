"""Read JSON files of a checkpoint and check the paths they name."""

from __future__ import annotations

import json
import os
from pathlib import Path, PurePosixPath
from typing import Any

from st_core.errors import ModelBroken

__all__ = ["inside", "is_there", "last_name", "read_json", "read_object"]


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


def read_object(path: Path) -> dict[str, Any]:
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
