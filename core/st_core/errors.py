"""The exceptions that models raise.

ModelError
├── ModelNotFound          no such folder, Hub name, file or built-in model; also a FileNotFoundError
│   └── PathIsFile         the name is a file; also a NotADirectoryError
├── ModelUnsupported       the checkpoint needs something that this engine does not support
│   └── RequirementMissing the checkpoint lists a package that is not installed in that version; also an ImportError
├── ModelBroken            the checkpoint contradicts itself: missing, truncated or mis-shaped files
├── ModelUnavailable       the server of a remote model does not answer, or not as expected
└── InputTooLong           a text exceeds a limit that the caller enforces

TrainingInterrupted        a training was ended by Ctrl-C and can be resumed

The builtin class is the one that sentence-transformers raises in that place, so that its handlers keep working.

Wrong arguments raise ``ValueError`` and ``TypeError``; a missing extra raises ``ImportError`` with the install command.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = [
    "InputTooLong",
    "ModelBroken",
    "ModelError",
    "ModelNotFound",
    "ModelUnavailable",
    "ModelUnsupported",
    "PathIsFile",
    "RequirementMissing",
    "TrainingInterrupted",
    "missing_extra",
    "missing_packages",
]


class ModelError(Exception):
    """The base of errors that concern a model and not the arguments of a call."""


class ModelNotFound(ModelError, FileNotFoundError):
    """The name is neither a folder nor a built-in model nor an accessible repository on the Hub."""


class PathIsFile(ModelNotFound, NotADirectoryError):
    """The name is a file; a model is a folder."""


class ModelUnsupported(ModelError):
    """The checkpoint needs a module, file type or code that this engine does not support; the message names it."""


class RequirementMissing(ModelUnsupported, ImportError):
    """The checkpoint lists a required package that is not installed, or not in the required version."""


class ModelBroken(ModelError):
    """A file of the checkpoint is missing, truncated or inconsistent; the message names the file and the reason."""


class ModelUnavailable(ModelError):
    """The server of a remote model cannot be reached, fails, or answers in another form; trying again may help."""


class TrainingInterrupted(Exception):
    """A training was ended after the step ``step``, with a checkpoint from which it can be resumed."""

    def __init__(self, step: int) -> None:
        """Store the last step."""
        super().__init__(step)
        self.step = step

    def __str__(self) -> str:
        """Return the message."""
        return f"the training was ended after step {self.step}; resume it from its last checkpoint"


class InputTooLong(ModelError):
    """A text exceeds a limit that the caller enforces."""


def missing_extra(extra: str, need: str) -> ImportError:
    """Return the error for a feature whose optional dependencies are not installed.

    ``need`` describes the feature, and ``extra`` is the extra that installs the dependencies.
    """
    from st_core.install import install_command  # its imports take longer than those of the engine

    return ImportError(f"{need} needs the extra {extra!r}: {install_command(extra)}")


def missing_packages(names: Iterable[str], need: str) -> ImportError:
    """Return the error for a feature that needs a few packages, where an extra would install far more.

    ``names`` are the import names of the packages, and ``need`` describes the feature.
    """
    packages = [name.replace("_", "-") for name in names]
    plural = "s" if len(packages) > 1 else ""
    return ImportError(f"{need} needs the package{plural} {' and '.join(packages)}: pip install {' '.join(packages)}")
