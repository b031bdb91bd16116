"""The settings of a server: models, limits, keys and TLS, from options or a TOML file."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from st_connectors.server.batching import QueueLimits
from st_core import builtin
from st_core.home import expand_home
from st_core.protocols import ModelKind

__all__ = ["BUILTIN", "Limits", "ModelSettings", "Settings", "Tls", "model_of_option", "read_settings"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """A model to serve and how it is loaded.

    ``path`` is a built-in model, a folder or a Hub name. ``kind`` None is detected from its files. ``devices`` are
    those that compute it, each with a copy; empty for the default device. ``aliases`` are further names, for clients
    that cannot choose one.
    """

    name: str
    path: str
    kind: ModelKind | None = None
    backend: str = "torch"
    dtype: str | None = None
    devices: tuple[str, ...] = ()
    revision: str | None = None
    max_seq_length: int | None = None
    truncate_dim: int | None = None
    max_active_dims: int | None = None
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    aliases: tuple[str, ...] = ()
    trust_remote_code: bool = False


BUILTIN = (
    ModelSettings("dense", builtin.DENSE, ModelKind.DENSE),
    ModelSettings("sparse", builtin.SPARSE, ModelKind.SPARSE),
)
"""The models that are served if none is named."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may contain, and how long it may take to arrive.

    ``request_tokens`` limits the tokens of all texts of a request. ``connections`` limits open connections.
    ``header_s`` and ``body_s`` are the seconds in which the header and the body must arrive; an answer must be read in
    ``body_s`` too. A connection may be idle for ``idle_s``. Running requests have ``drain_s`` when the server stops.
    """

    texts: int = 2048
    body_bytes: int = 10_000_000
    request_tokens: int = 1_000_000
    connections: int = 1000
    header_s: float = 10.0
    body_s: float = 60.0
    idle_s: float = 75.0
    drain_s: float = 30.0
    auto_truncate: bool = True


@dataclass(frozen=True, slots=True)
class Tls:
    """The files of a certificate chain and of its private key; the password of the key comes from the environment."""

    certificate: str
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a server.

    ``key_file`` contains one API key per line, and is read again when it changes. ``workers`` is the number of
    processes; each has its own models and queues.
    """

    models: tuple[ModelSettings, ...] = BUILTIN
    host: str = "127.0.0.1"
    port: int = 8080
    workers: int = 1
    limits: Limits = Limits()
    queue: QueueLimits = field(default_factory=QueueLimits)
    key_file: str | None = None
    tls: Tls | None = None
    access_log: bool = True
    cors: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raise ValueError for settings that contradict each other."""
        if not self.models:
            raise ValueError("no model to serve: name one with --model, or in the settings under [[models]]")
        names = [name for model in self.models for name in (model.name, *model.aliases)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two models have the name {twice[0]!r}; choose names with --model NAME=MODEL")
        if not 0 <= self.port <= 65535:
            raise ValueError(f"port {self.port}: expected a number from 0 to 65535")
        if self.workers < 1:
            raise ValueError(f"workers must be a positive integer, got {self.workers}")


def model_of_option(option: str, **settings: Any) -> ModelSettings:
    """Return the settings of a model from ``NAME=MODEL`` or ``MODEL``, whose name is then the end of its path."""
    name, separator, path = option.partition("=")
    if not separator:
        name, path = _short_name(option), option
    if not name or not path:
        raise ValueError(f"--model {option!r}: expected NAME=MODEL or MODEL")
    known = {each.path: each.kind for each in BUILTIN}
    return ModelSettings(name, path, **{"kind": known.get(path), **settings})


def _short_name(path: str) -> str:
    return path.removeprefix(builtin.PREFIX) if path.startswith(builtin.PREFIX) else Path(path).name


def read_settings(path: str | Path) -> Settings:
    """Return the settings in a TOML file; raise ValueError for an unknown or malformed entry, with its name."""
    file = Path(expand_home(path))
    try:
        values = tomllib.loads(file.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: not a TOML file: {error}") from error
    tables = {"models": _models, "limits": _table(Limits), "queue": _table(QueueLimits), "tls": _table(Tls)}
    try:
        plain = {name: value for name, value in values.items() if name not in tables}
        read = {name: tables[name](value) for name, value in values.items() if name in tables}
        return replace(_checked(Settings, plain, ""), **read)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{file}: {error}") from error


def _models(values: Any) -> tuple[ModelSettings, ...]:
    if not isinstance(values, list):
        raise ValueError("models: expected tables [[models]]")  # noqa: TRY004 - a mistake in a file
    return tuple(_model(each, f"models[{number}]") for number, each in enumerate(values))


def _model(values: Any, place: str) -> ModelSettings:
    if not isinstance(values, Mapping) or not isinstance(values.get("path"), str):
        raise ValueError(f"{place}: expected a table with path")  # noqa: TRY004 - a mistake in a file
    named = {"name": _short_name(values["path"]), **values}
    kind = named.pop("kind", None)
    if kind is not None and kind not in list(ModelKind):
        raise ValueError(f"{place}.kind: unknown kind {kind!r}; expected one of {', '.join(ModelKind)}")
    known = {each.path: each.kind for each in BUILTIN}
    model = _checked(ModelSettings, named, f"{place}.")
    return replace(model, kind=known.get(model.path) if kind is None else ModelKind(kind))


def _table(kind: type[T]) -> Any:
    place = {Limits: "limits.", QueueLimits: "queue.", Tls: "tls."}[kind]
    return lambda values: _checked(kind, values, place)


def _checked(kind: type[T], values: Any, place: str) -> T:
    """Return a value of a class from a table, with lists as tuples; raise ValueError for an unknown name or a type."""
    if not isinstance(values, Mapping):
        raise ValueError(f"{place.rstrip('.')}: expected a table")  # noqa: TRY004 - a mistake in a file
    types = {each.name: str(each.type) for each in fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(types))
    if unknown:
        raise ValueError(f"unknown setting {place}{unknown[0]}; expected one of {', '.join(types)}")
    for name, value in values.items():
        if not _fits(value, types[name]):
            raise ValueError(f"{place}{name}: expected {_described(types[name])}, got {value!r}")
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


_TYPES: Mapping[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "tuple": (list,),
    "Mapping": (dict,),
}
_NAMES: Mapping[str, str] = {
    "str": "a text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "tuple": "a list of texts",
    "Mapping": "a table of texts",
}


def _first_type(annotation: str) -> str:
    return annotation.partition("[")[0].partition(" ")[0]


def _described(annotation: str) -> str:
    return _NAMES.get(_first_type(annotation), "another value")


def _fits(value: Any, annotation: str) -> bool:
    """Return whether a value of a TOML file has the type of a field."""
    kind = _first_type(annotation)
    if isinstance(value, bool):
        return kind == "bool"
    parts: Sequence[Any] = ()
    if isinstance(value, list):
        parts = value
    elif isinstance(value, dict):
        parts = list(value.values())
    return isinstance(value, _TYPES.get(kind, ())) and all(isinstance(each, str) for each in parts)
