"""The commands that add an extra, or other packages, to the installation that runs."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

__all__ = ["install_command", "package_command"]

PACKAGE = "st-connectors"


def install_command(extra: str) -> str:
    """Return the shell command that adds an extra to this installation, with the tool that installed the package.

    An installation from a checkout, an archive or a repository is extended from the same place, because no package
    index may have this version.
    """
    try:
        package = distribution(PACKAGE)
    except PackageNotFoundError:  # the source folder is on the path, without an installation
        return f"pip install {shlex.quote(f'{PACKAGE}[{extra}]')}"
    return f"{_tool(package)} install {_requirement(_origin(package), extra)}"


def package_command(packages: Iterable[str]) -> str:
    """Return the shell command that installs other packages beside this one, with the tool that installed this one."""
    try:
        tool = _tool(distribution(PACKAGE))
    except PackageNotFoundError:
        tool = "pip"
    return f"{tool} install {' '.join(map(shlex.quote, packages))}"


def _tool(package: Distribution) -> str:
    return "uv pip" if (package.read_text("INSTALLER") or "").strip() == "uv" else "pip"


def _origin(package: Distribution) -> dict[str, Any]:
    """Return where a package was installed from as described by PEP 610; empty for a package index."""
    try:
        origin: dict[str, Any] = json.loads(package.read_text("direct_url.json") or "{}")
    except ValueError:
        return {}
    return origin


def _requirement(origin: dict[str, Any], extra: str) -> str:
    """Return the arguments of ``pip install`` for the package from its origin with an extra."""
    url = str(origin.get("url", ""))
    if not url:
        return shlex.quote(f"{PACKAGE}[{extra}]")
    if "dir_info" in origin:
        folder = shlex.quote(f"{Path(unquote(urlsplit(url).path))}[{extra}]")
        return f"-e {folder}" if origin["dir_info"].get("editable") else folder
    if "vcs_info" in origin:
        url = f"{origin['vcs_info']['vcs']}+{url}@{origin['vcs_info']['commit_id']}"
    return shlex.quote(f"{PACKAGE}[{extra}] @ {url}")
