"""Run a module of this package in a separate process, for libraries that modify the process that imports them."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec

from st_core.errors import ModelError, missing_packages

__all__ = ["is_installed", "run_module"]


def is_installed(*packages: str) -> bool:
    """Return whether all packages are installed, without importing them."""
    try:
        return all(find_spec(package) is not None for package in packages)
    except ValueError:  # sys.modules contains a substitute without a specification, as in tests
        return False


def run_module(module: str, *arguments: str, needs: tuple[str, ...], environment: dict[str, str] | None = None) -> None:
    """Run ``python -m module`` with arguments, to convert a graph to int8.

    ``needs`` are the packages that the module imports; ``environment`` adds environment variables. Raises ImportError
    where one of the packages is missing, ModelError where the module fails.
    """
    missing = [package for package in needs if not is_installed(package)]
    if missing:
        raise missing_packages(missing, "converting a graph to int8")
    process = subprocess.run(  # noqa: S603 - a module of this package
        [sys.executable, "-m", module, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **(environment or {})},
    )
    if process.returncode:
        lines = process.stderr.strip().splitlines() or [f"exit status {process.returncode}"]
        raise ModelError(f"converting the graph to int8 failed: {lines[-1]}")
