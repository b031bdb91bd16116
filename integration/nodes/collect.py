"""Collect artifacts with Maven as configured on the machine, in one run for all folders of a node."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from string import Template

from integration.nodes.recipes import Artifact

__all__ = ["AssemblyError", "collect"]

_TEMPLATES = Path(__file__).parent / "maven"
_GOAL = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
_PATIENCE_S = 1800
"""Half a gigabyte is downloaded the first time."""


class AssemblyError(RuntimeError):
    """A node could not be assembled; the message says what was tried and what failed."""


def collect(engine: str, folders: Mapping[str, tuple[Artifact, ...]], work: Path) -> dict[str, list[Path]]:
    """Download artifacts under the empty folder ``work``; return the files of each folder with dependencies."""
    program = shutil.which("mvn")
    if program is None:
        raise AssemblyError(f"{engine}: needs Maven to fetch its artifacts, and there is no `mvn` on PATH; install it")
    _describe(engine, folders, work)
    command = [program, "--batch-mode", "--quiet", "--file", str(work / "pom.xml"), _GOAL]
    options = ["-DincludeScope=runtime", "-DoutputDirectory=jars"]
    try:
        done = subprocess.run(
            [*command, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=_PATIENCE_S,
        )
    except subprocess.TimeoutExpired as error:
        raise AssemblyError(f"{engine}: Maven did not finish within {_PATIENCE_S} s") from error
    if done.returncode:
        raise AssemblyError(f"{engine}: Maven ended with {done.returncode}; its last lines:\n{_tail(done.stdout)}")
    return {folder: sorted((work / folder / "jars").iterdir()) for folder in folders}


def _describe(engine: str, folders: Mapping[str, tuple[Artifact, ...]], work: Path) -> None:
    modules = "\n".join(f"    <module>{folder}</module>" for folder in folders)
    (work / "pom.xml").write_text(_template("aggregate").substitute(engine=engine, folders=modules), encoding="utf-8")
    for folder, artifacts in folders.items():
        dependencies = "".join(_dependency(artifact) for artifact in artifacts)
        (work / folder).mkdir()
        text = _template("folder").substitute(folder=folder, dependencies=dependencies)
        (work / folder / "pom.xml").write_text(text, encoding="utf-8")


def _dependency(artifact: Artifact) -> str:
    return _template("dependency").substitute(
        group=artifact.group,
        name=artifact.name,
        version=artifact.version,
        kind=artifact.kind,
        exclusions=_template("alone").template if artifact.alone else "",
    )


def _template(name: str) -> Template:
    return Template((_TEMPLATES / f"{name}.xml").read_text(encoding="utf-8"))


def _tail(output: str, lines: int = 30) -> str:
    return "\n".join(output.splitlines()[-lines:])
