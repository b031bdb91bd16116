"""Choose a real engine to test on, in a fixed order, and say why there is none."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Literal

from integration.nodes import containers
from integration.nodes.assemble import AssemblyError, cached, jdk_for
from integration.nodes.recipes import RECIPES
from integration.nodes.run import run

__all__ = ["ENGINES", "Found", "Missing", "engine_named", "find", "node", "required"]

ENGINES = tuple(sorted({*RECIPES, *containers.IMAGES}))
_SHORT = {"elasticsearch": "elasticsearch-9"}
_PROBE_S = 10.0


@dataclass(frozen=True, slots=True)
class Found:
    """An engine to test on; ``open()`` is a context manager that yields its address while it runs."""

    engine: str
    how: Literal["address", "container", "node"]
    open: Callable[[], AbstractContextManager[str]]


@dataclass(frozen=True, slots=True)
class Missing:
    """No engine, and why: one clause for each way that was tried."""

    engine: str
    reason: str


def find(
    engine: str,
    *,
    environ: Mapping[str, str] = os.environ,
    no_container: Callable[[], str | None] = containers.unavailable,
) -> Found | Missing:
    """Return the first of an address in the environment, a container, and an assembled node.

    Starts nothing. A node that was never assembled counts only if ``ST_REQUIRE`` names the engine, because assembling
    it downloads hundreds of megabytes; ``python -m integration.nodes assemble`` does it beforehand.
    """
    engine = engine_named(engine)
    reasons: list[str] = []
    for way in (_address, partial(_container, no_container=no_container), _node):
        outcome = way(engine, environ)
        if isinstance(outcome, Found):
            return outcome
        reasons.append(outcome)
    return Missing(engine, "; ".join(reasons))


def engine_named(name: str) -> str:
    """Return the engine of a name, where ``elasticsearch`` means its newest major version; raise ``ValueError``."""
    engine = _SHORT.get(name, name)
    if engine not in ENGINES:
        raise ValueError(f"no engine is named {name!r}: the names are {', '.join(ENGINES)}")
    return engine


def required(engine: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether ``ST_REQUIRE`` names the engine or, like ``elasticsearch``, all its major versions."""
    names = {name.strip() for name in environ.get("ST_REQUIRE", "").split(",")}
    return not names.isdisjoint({engine, _product(engine)})


@contextlib.contextmanager
def node(engine: str) -> Iterator[str]:
    """Yield the address of a node, assembled first if it is missing."""
    with run(RECIPES[engine_named(engine)]) as running:
        yield running.url


def _product(engine: str) -> str:
    return engine.partition("-")[0]


def _address(engine: str, environ: Mapping[str, str]) -> Found | str:
    variable = f"ST_{_product(engine).upper()}_URL"
    url = environ.get(variable)
    if not url:
        return f"{variable} is not set"
    if engine in _MAJORS and (problem := _wrong_server(url, _MAJORS[engine])):
        return f"{variable} {problem}"
    return Found(engine, "address", lambda: contextlib.nullcontext(url))


_MAJORS = {"elasticsearch-8": "8", "elasticsearch-9": "9", "opensearch": "2", "opensearch-3": "3"}
"""One variable serves all major versions of a product: the server at the address reports its own."""


def _wrong_server(url: str, major: str) -> str | None:
    try:
        with urllib.request.urlopen(url, timeout=_PROBE_S) as answer:
            number = json.load(answer)["version"]["number"]
    except (urllib.error.URLError, TimeoutError, ValueError, KeyError) as error:
        return f"names a server that does not tell its version ({error})"
    return None if number.startswith(f"{major}.") else f"names a server of version {number}, and {major}.x is wanted"


def _container(engine: str, _environ: Mapping[str, str], *, no_container: Callable[[], str | None]) -> Found | str:
    return no_container() or Found(engine, "container", partial(containers.container, engine))


def _node(engine: str, environ: Mapping[str, str]) -> Found | str:
    if engine not in RECIPES:
        return "no package registry has this server, so it cannot be assembled"
    recipe = RECIPES[engine]
    try:
        jdk_for(recipe, environ)
    except AssemblyError as error:
        return str(error)
    if cached(recipe, environ) is None:
        if shutil.which("mvn", path=environ.get("PATH")) is None:
            return f"{recipe.title}: no `mvn` on PATH to assemble it with"
        if not required(engine, environ):
            return f"{recipe.title} is not assembled yet: run `python -m integration.nodes assemble {engine}`"
    return Found(engine, "node", partial(node, engine))
