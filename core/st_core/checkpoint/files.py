"""Read the JSON files of a checkpoint, check the types of their values, and check the paths that they contain."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from st_core.errors import ModelBroken

__all__ = ["JsonObject", "inside", "is_present", "last_name", "read_json", "read_object", "read_optional_object"]


def last_name(type_path: str) -> str:
    """Return the class name at the end of a dotted path.

    Type paths written by different versions of sentence-transformers differ only in front of the class name.
    """
    return type_path.rsplit(".", 1)[-1]


@dataclass(frozen=True, slots=True)
class JsonObject(Mapping[str, object]):
    """A JSON object and the path of its file.

    Typed getters raise ModelBroken, naming file and key, for a value of another type. For a missing key they return the
    default, or raise KeyError if they have none. Numbers are converted with ``int`` and ``float``, because old
    checkpoints store some numbers as text.
    """

    path: Path
    content: Mapping[str, object]

    def __getitem__(self, key: str) -> object:
        return self.content[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.content)

    def __len__(self) -> int:
        return len(self.content)

    def integer(self, key: str, default: int | None = None) -> int:
        """Return the value of a key as an integer."""
        return self._as_integer(key, self[key] if default is None else self.get(key, default))

    def optional_integer(self, *keys: str) -> int | None:
        """Return the value of the first of several keys that is not null as an integer, or None if there is none."""
        key = next((key for key in keys if self.get(key) is not None), None)
        return None if key is None else self.integer(key)

    def number(self, key: str, default: float) -> float:
        """Return the value of a key as a float."""
        try:
            return float(self.get(key, default))  # type: ignore[arg-type] # other types raise TypeError
        except (TypeError, ValueError) as error:
            raise self.broken(key, "a number") from error

    def text(self, key: str, default: str) -> str:
        """Return the value of a key as text; ``default`` if the key is missing, null or empty."""
        return str(self.get(key) or default)

    def boolean(self, key: str, *, default: bool) -> bool:
        """Return the truth value of a key's value."""
        return bool(self.get(key, default))

    def array(self, key: str) -> list[object]:
        """Return the value of a key, a list."""
        value = self[key]
        if not isinstance(value, list):
            raise self.broken(key, "a list")
        return value

    def optional_array(self, key: str) -> list[object]:
        """Return the value of a key, a list; empty if the key is missing or null."""
        return self.array(key) if self.get(key) else []

    def integers(self, key: str) -> list[int]:
        """Return the value of a key as a list of integers."""
        return [self._as_integer(key, value) for value in self.array(key)]

    def nested(self, key: str) -> JsonObject:
        """Return the value of a key, an object; empty if the key is missing or null."""
        value = self.get(key) or {}
        if not isinstance(value, dict):
            raise self.broken(key, "an object")
        return JsonObject(self.path, value)

    def _as_integer(self, key: str, value: object) -> int:
        try:
            return int(value)  # type: ignore[call-overload, no-any-return] # other types raise TypeError
        except (TypeError, ValueError, OverflowError) as error:
            raise self.broken(key, "a whole number") from error

    def broken(self, key: str, expected: str) -> ModelBroken:
        """Return the error for a key whose value does not have the expected type."""
        return ModelBroken(f"{self.path}: {key}: expected {expected}, got {self.get(key)!r}")


def read_json(path: Path) -> object:
    """Return the value in a JSON file; raises ModelBroken with file and reason."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        reason = "the link points to nothing" if path.is_symlink() else "the file is missing"
        raise ModelBroken(f"{path}: {reason}") from error
    except OSError as error:
        raise ModelBroken(f"{path}: the file cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ModelBroken(f"{path}: not JSON: {error}") from error


def is_present(path: Path) -> bool:
    """Return whether a path exists, also as a broken link or a folder, so that reading it reports what is wrong."""
    return os.path.lexists(path)


def read_object(path: Path) -> JsonObject:
    """Return the object in a JSON file; raises ModelBroken if the file is missing or contains another type of value."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise ModelBroken(f"{path}: expected a JSON object, got {type(value).__name__}")
    return JsonObject(path, value)


def read_optional_object(path: Path) -> JsonObject:
    """Return the object in a JSON file; empty if the file does not exist."""
    return read_object(path) if is_present(path) else JsonObject(path, {})


def inside(root: Path, path: object, listing: Path) -> Path:
    """Return the folder ``path`` below ``root``, as listed in the file ``listing``.

    Raises ModelBroken if the path leads out of ``root``, directly or through a link, if it is a file, and if ``path``
    is not text.
    """
    if not isinstance(path, str):
        raise ModelBroken(f"{listing}: path of a module: expected text, got {path!r}")
    parts = PurePosixPath(path.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or ":" in path or not _is_inside(root, root / parts):
        raise ModelBroken(f"{listing}: path of a module leaves the checkpoint's folder: {path!r}")
    try:
        is_file = not (root / parts).is_dir() and (root / parts).exists()
    except OSError as error:
        raise ModelBroken(f"{listing}: path of a module cannot be read: {path[:200]!r}: {error.strerror}") from error
    if is_file:
        raise ModelBroken(f"{listing}: path of a module: expected a folder, got the file {path!r}")
    return root / parts


def _is_inside(root: Path, path: Path) -> bool:
    """Return whether a path is inside a folder after links in both paths are resolved."""
    try:
        return path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError, ValueError):  # a link to itself, or a zero byte in the path
        return False
