"""Read JSON files of a checkpoint, narrow their values and check the paths they contain."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from st_core.errors import ModelBroken

__all__ = ["JsonObject", "inside", "is_present", "last_name", "read_json", "read_object", "read_optional_object"]


def last_name(type_path: str) -> str:
    """Return the class name at the end of a dotted path; type paths of different versions differ only before it."""
    return type_path.rsplit(".", 1)[-1]


@dataclass(frozen=True, slots=True)
class JsonObject(Mapping[str, object]):
    """A JSON object and the file it comes from; typed getters raise ModelBroken with file and key.

    Getters without a default raise KeyError for a missing key. Numbers are converted as ``int`` and ``float`` do: old
    checkpoints store some of them as text.
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
        """Return a whole number."""
        return self._as_integer(key, self[key] if default is None else self.get(key, default))

    def optional_integer(self, *keys: str) -> int | None:
        """Return the whole number of the first key that has a value, or None."""
        key = next((key for key in keys if self.get(key) is not None), None)
        return None if key is None else self.integer(key)

    def number(self, key: str, default: float) -> float:
        """Return a number."""
        try:
            return float(self.get(key, default))  # type: ignore[arg-type] # other types raise TypeError
        except (TypeError, ValueError) as error:
            raise self.broken(key, "a number") from error

    def text(self, key: str, default: str) -> str:
        """Return a text; ``default`` where the key is missing, null or empty."""
        return str(self.get(key) or default)

    def boolean(self, key: str, *, default: bool) -> bool:
        """Return the truth of a value."""
        return bool(self.get(key, default))

    def array(self, key: str) -> list[object]:
        """Return a list."""
        value = self[key]
        if not isinstance(value, list):
            raise self.broken(key, "a list")
        return value

    def optional_array(self, key: str) -> list[object]:
        """Return a list; empty where the key is missing or null."""
        return self.array(key) if self.get(key) else []

    def integers(self, key: str) -> list[int]:
        """Return a list of whole numbers."""
        return [self._as_integer(key, value) for value in self.array(key)]

    def nested(self, key: str) -> JsonObject:
        """Return a nested object; empty where the key is missing or null."""
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
        """Return the error for a value of another type."""
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
    """Return whether a path exists; broken links and folders count, so that reading them reports the reason."""
    return os.path.lexists(path)


def read_object(path: Path) -> JsonObject:
    """Return the object in a JSON file; raises ModelBroken where the file is missing or contains another value."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise ModelBroken(f"{path}: expected a JSON object, got {type(value).__name__}")
    return JsonObject(path, value)


def read_optional_object(path: Path) -> JsonObject:
    """Return the object in a JSON file; empty where there is no such file."""
    return read_object(path) if is_present(path) else JsonObject(path, {})


def inside(root: Path, path: object, listing: Path) -> Path:
    """Return the folder ``path`` below ``root``, as listed in the file ``listing``.

    Raises ModelBroken where it lies outside, also by a link, where it is a file, and where ``path`` is not text.
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
    """Return whether a path lies in a folder when links are followed; files may be links, as in the Hub's cache."""
    try:
        return path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError, ValueError):  # a link to itself, a zero byte
        return False
