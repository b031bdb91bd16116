"""Assemble a node once and cache it, outside the source tree, for all later runs."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from integration.nodes.collect import AssemblyError, collect
from integration.nodes.jdk import Jdk, choose, installed
from integration.nodes.recipes import Module, Recipe
from st_core.home import expand_home

__all__ = ["AssemblyError", "assemble", "cached", "jdk_for"]

_HERE = Path(__file__).parent
_EMPTY_FOLDERS = ("bin", "config", "data", "lib", "logs", "modules", "plugins", "tmp")
_INGREDIENTS = ("assemble.py", "collect.py", "recipes.py", "config/*", "java/*", "maven/*")
"""Files that determine an assembled node; if one changes, nodes are assembled again."""


def cached(recipe: Recipe, environ: Mapping[str, str] = os.environ) -> Path | None:
    """Return the folder of the node assembled by this recipe, if there is one."""
    home = _place(recipe, environ)
    return home if home.is_dir() else None


def assemble(recipe: Recipe, environ: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of the assembled node, assembled now if it is missing; raise ``AssemblyError``."""
    if home := cached(recipe, environ):
        return home
    jdk = jdk_for(recipe, environ)
    place = _place(recipe, environ)
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".assembling-", dir=place.parent) as scratch:
        home = Path(scratch) / "home"
        work = Path(scratch) / "work"
        work.mkdir()
        _fill(recipe, jdk, home, work)
        _put(home, place)
    _sweep(recipe, place)
    return place


def jdk_for(recipe: Recipe, environ: Mapping[str, str] = os.environ) -> Jdk:
    """Return the Java installation that compiles and runs the node; raise ``AssemblyError`` if none fits."""
    jdks = installed(environ)
    jdk = choose(*recipe.java, jdks)
    if jdk is None:
        lowest, highest = recipe.java
        there = ", ".join(f"{found.major} at {found.home}" for found in jdks) or "none"
        raise AssemblyError(
            f"{recipe.title}: needs a JDK of version {lowest} to {highest}, found {there}; "
            "install one, or let JAVA_HOME name it"
        )
    return jdk


def _place(recipe: Recipe, environ: Mapping[str, str]) -> Path:
    default = Path.home() / ".cache" / "st-connectors" / "nodes"
    return Path(expand_home(environ.get("ST_NODES_CACHE") or default)) / f"{recipe.title}-{_key(recipe)}"


def _key(recipe: Recipe) -> str:
    digest = hashlib.sha256(recipe.title.encode())
    for pattern in _INGREDIENTS:
        for path in sorted(_HERE.glob(pattern)):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def _fill(recipe: Recipe, jdk: Jdk, home: Path, work: Path) -> None:
    for name in _EMPTY_FOLDERS:
        (home / name).mkdir(parents=True)
    folders = {"lib": recipe.lib, "plugins": recipe.plugins} if recipe.plugins else {"lib": recipe.lib}
    folders |= {module.name: module.artifacts for module in recipe.modules}
    files = collect(recipe.title, folders, work)
    for jar in files["lib"]:
        jar.rename(home / "lib" / jar.name)
    for module in recipe.modules:
        _fill_module(module, files[module.name], home)
    for archive in files.get("plugins", []):
        with zipfile.ZipFile(archive) as opened:
            opened.extractall(home / "plugins" / archive.name.removesuffix(".zip"))
    shutil.copy(_HERE / "config" / "log4j2.properties", home / "config")
    if recipe.launcher:
        _compile(recipe, jdk, home, work / "classes")


def _fill_module(module: Module, jars: list[Path], home: Path) -> None:
    folder = home / "modules" / module.name
    folder.mkdir()
    shared = {jar.name for jar in (home / "lib").iterdir()}
    for jar in jars:
        if jar.name not in shared:
            jar.rename(folder / jar.name)
    lines = [f"{key}={value}\n" for key, value in module.descriptor.items()]
    (folder / "plugin-descriptor.properties").write_text("".join(lines), encoding="utf-8")
    if module.policy:
        shutil.copy(_HERE / "config" / module.policy, folder / "plugin-security.policy")


def _compile(recipe: Recipe, jdk: Jdk, home: Path, classes: Path) -> None:
    source = _HERE / "java" / str(recipe.launcher)
    options = ["--release", str(recipe.java[0]), "-nowarn", "-proc:none", "-cp", f"{home}/lib/*", "-d", str(classes)]
    command = [str(jdk.javac), *options, str(source)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise AssemblyError(f"{recipe.title}: {source.name} does not compile with Java {jdk.major}:\n{done.stdout}")
    with zipfile.ZipFile(home / "lib" / "launcher.jar", "w") as jar:
        for path in sorted(classes.glob("*.class")):
            jar.write(path, path.name)


def _put(home: Path, place: Path) -> None:
    """Move the finished node to its place in one step; if another process was faster, its node stays."""
    try:
        home.rename(place)
    except OSError:
        if not place.is_dir():
            raise


def _sweep(recipe: Recipe, place: Path) -> None:
    """Remove nodes of the same version from earlier recipes; running ones have their own links."""
    for old in place.parent.glob(f"{recipe.title}-*"):
        if old != place:
            shutil.rmtree(old, ignore_errors=True)
