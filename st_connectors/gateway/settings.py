"""The settings of a gateway: nodes, limits and rules, from options or a TOML file."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar

from st_connectors.plugin import Address
from st_connectors.registry import parse_address
from st_core.home import expand_home

__all__ = ["Limits", "OnFailure", "Rule", "Settings", "addresses_of", "read_settings", "rule_for"]

T = TypeVar("T")
ENGINES = ("elasticsearch", "opensearch")


class OnFailure(StrEnum):
    """What happens with a document for which there are no vectors."""

    FAIL = "fail"
    """It is refused, with the reason."""
    STORE = "store"
    """It is stored without vectors."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What the gateway does for indices that st-connectors did not create.

    ``index`` is a pattern such as ``books-*``. ``dense`` and ``sparse`` are fields of the mapping, computed by
    ``dense_model`` and ``sparse_model``: built-in models, folders, Hub names, or addresses of a server such as
    ``http://host:8080#name``. ``text`` is the key of the texts. ``on_failure`` is about texts that cannot be encoded,
    and ``without_text`` about documents that have none.
    """

    index: str
    text: str = "text"
    dense: str | None = None
    dense_model: str | None = None
    sparse: str | None = None
    sparse_model: str | None = None
    reranker: str | None = None
    backend: str = "torch"
    dtype: str | None = None
    on_failure: OnFailure = OnFailure.FAIL
    without_text: OnFailure = OnFailure.FAIL

    def __post_init__(self) -> None:
        """Raise ValueError for a field without a model, a model without a field, and a rule without either."""
        for name in ("dense", "sparse"):
            if (getattr(self, name) is None) != (getattr(self, f"{name}_model") is None):
                raise ValueError(f"{name} and {name}_model: expected both or neither")
        if self.dense is None and self.sparse is None:
            raise ValueError("expected dense and dense_model, or sparse and sparse_model")
        for name in ("on_failure", "without_text"):
            object.__setattr__(self, name, OnFailure(getattr(self, name)))


@dataclass(frozen=True, slots=True)
class Limits:
    """What the gateway reads and how long it waits.

    A bulk request with vectors is divided into parts of up to ``part_documents`` documents and about ``part_bytes``
    bytes. Up to ``whole_bytes`` are read before a bulk request without vectors is passed on; single documents and
    searches are at most as large. ``rewriting`` requests are read at a time, the others wait. What is known of an index
    is valid for ``mapping_s`` seconds. Nodes are checked every ``check_s`` seconds. A client has ``header_s`` seconds
    for a header, and ``pause_s`` between two pieces of a body that it sends or reads.
    """

    part_documents: int = 512
    part_bytes: int = 4_000_000
    whole_bytes: int = 16_000_000
    bulk_bytes: int = 104_857_600
    rewriting: int = 32
    connections: int = 1000
    header_s: float = 30.0
    pause_s: float = 60.0
    connect_s: float = 5.0
    check_s: float = 5.0
    mapping_s: float = 5.0
    timeout_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a gateway.

    ``nodes`` are addresses of one engine, such as ``elasticsearch+https://host:9200?ca=ca.pem``. ``unreadable`` is
    about writes of users who may not read the mapping of the index: they fail, or are stored as they are.
    """

    nodes: tuple[str, ...]
    host: str = "127.0.0.1"
    port: int = 9280
    rules: tuple[Rule, ...] = ()
    limits: Limits = Limits()
    unreadable: OnFailure = OnFailure.FAIL

    def __post_init__(self) -> None:
        """Raise ValueError for addresses of no engine or of several, and for a port that is none."""
        addresses_of(self.nodes)
        object.__setattr__(self, "unreadable", OnFailure(self.unreadable))
        if not 0 <= self.port <= 65535:
            raise ValueError(f"port {self.port}: expected a number from 0 to 65535")


def addresses_of(nodes: tuple[str, ...]) -> list[Address]:
    """Return the parsed addresses of nodes; raise ValueError unless they are nodes of one engine."""
    if not nodes:
        raise ValueError("no node: name one, such as elasticsearch://localhost:9200")
    parsed = [parse_address(each) for each in nodes]
    for address in parsed:
        if address.name not in ENGINES:
            raise ValueError(f"{address.scheme}: the gateway is for nodes of {' or '.join(ENGINES)}")
        if address.name != parsed[0].name:
            raise ValueError(f"nodes of {parsed[0].name} and of {address.name}: expected those of one engine")
    return parsed


def rule_for(rules: tuple[Rule, ...], *names: str) -> Rule | None:
    """Return the first rule whose pattern fits one of the names."""
    return next((rule for rule in rules if any(fnmatchcase(name, rule.index) for name in names)), None)


def read_settings(path: str | Path, *nodes: str) -> Settings:
    """Return the settings in a TOML file; raise ValueError for an unknown or malformed entry, with its name.

    ``nodes`` replace those of the file.
    """
    file = Path(expand_home(path))
    try:
        values = tomllib.loads(file.read_text("utf-8"))
        rules = values.pop("rules", [])
        limits = values.pop("limits", {})
        read = _checked(Settings, {"nodes": (), **values, **({"nodes": nodes} if nodes else {})}, "")
        own = [_checked(Rule, each, f"rules[{number}].") for number, each in enumerate(rules)]
        return replace(read, rules=tuple(own), limits=_checked(Limits, limits, "limits."))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: not a TOML file: {error}") from error
    except (TypeError, ValueError) as error:
        raise ValueError(f"{file}: {error}") from error


def _checked(kind: type[T], values: Any, place: str) -> T:
    """Return a value of a class from a table; raise ValueError for an unknown name or another type."""
    if not isinstance(values, Mapping):
        raise ValueError(f"{place.rstrip('.') or 'the file'}: expected a table")  # noqa: TRY004 - a mistake in a file
    types = {each.name: str(each.type) for each in fields(kind)}  # type: ignore[arg-type]
    for name, value in values.items():
        if name not in types:
            raise ValueError(f"unknown setting {place}{name}; expected one of {', '.join(types)}")
        if not _fits(value, types[name]):
            raise ValueError(f"{place}{name}: expected {types[name]}, got {value!r}")
    try:
        return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
    except TypeError as error:
        raise ValueError(f"{place or 'settings'}: {str(error).partition(') ')[2] or error}") from error
    except ValueError as error:
        raise ValueError(f"{place}{error}") from error


def _fits(value: Any, annotation: str) -> bool:
    if isinstance(value, list | tuple):
        return annotation.startswith("tuple[str") and all(isinstance(each, str) for each in value)
    if isinstance(value, bool):
        return False
    names = {"int": int, "float": (int, float)}
    return isinstance(value, names.get(annotation, str))  # type: ignore[arg-type]
