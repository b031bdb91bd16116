"""What can go wrong with a model: one small tree.

ModelError
├── ModelNotFound      no such folder, Hub name, file or built-in
├── ModelUnsupported   the checkpoint is there but asks for something this engine does not do
├── ModelBroken        the checkpoint contradicts itself: missing, truncated or mis-shaped files
└── InputTooLong       a text is over a limit that the caller asked to be enforced

Wrong arguments stay ``ValueError`` and ``TypeError``; a missing extra is an ``ImportError`` with the install command.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = [
    "InputTooLong",
    "ModelBroken",
    "ModelError",
    "ModelNotFound",
    "ModelUnsupported",
    "missing_extra",
    "missing_packages",
]


class ModelError(Exception):
    """Something is wrong with a model, not with the arguments of a call."""


class ModelNotFound(ModelError):
    """Neither a folder, nor a built-in name, nor a Hub repository that can be reached."""


class ModelUnsupported(ModelError):
    """The checkpoint asks for a module, file type or code that this engine does not run; the message names it."""


class ModelBroken(ModelError):
    """A file of the checkpoint is missing, truncated or contradicts another; the message names file and reason."""


class InputTooLong(ModelError):
    """A text is longer than a limit that the caller asked to be enforced."""


def missing_extra(extra: str, need: str) -> ImportError:
    """The error for a feature whose optional dependencies are not installed."""
    return ImportError(f"{need} needs the extra {extra!r}: pip install 'st-connectors[{extra}]'")


def missing_packages(names: Iterable[str], need: str) -> ImportError:
    """The error for a step that a few packages are enough for, by the names they are imported with; an extra may hold far more."""
    wanted = [name.replace("_", "-") for name in names]
    return ImportError(
        f"{need} needs the package{'s' * (len(wanted) > 1)} {' and '.join(wanted)}: pip install {' '.join(wanted)}"
    )
