"""Read the address options that both engines have; the functions raise ValueError for invalid values."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from st_connectors._lucene.faults import parse_seconds
from st_connectors._lucene.vocabulary import Vocabulary, read_vocabulary
from st_connectors.plugin import Address
from st_core.home import expand_home

__all__ = [
    "CollectionOptions",
    "check_choice",
    "check_names",
    "read_authorities",
    "read_collection_options",
    "read_timeout",
]

TIMEOUT = 60.0
"""The default timeout in seconds; the default of the clients, 10, is too short for a large batch."""


@dataclass(frozen=True, slots=True)
class CollectionOptions:
    """The options for a new collection.

    ``form`` contains the options that select the types of its fields, and ``settings`` the settings of its index.
    ``vocabulary`` is None if the keys of sparse fields are indices.
    """

    form: Mapping[str, str]
    settings: Mapping[str, int]
    vocabulary: Vocabulary | None = None


def read_collection_options(address: Address, *form: str) -> CollectionOptions:
    """Return the options of an address for a new collection.

    ``form`` contains the names of the options that select field types and index kinds.
    """
    options = address.options
    place = options.get("vocabulary")
    least = {"shards": 1, "replicas": 0}
    return CollectionOptions(
        {name: options[name] for name in form if name in options},
        {f"number_of_{name}": _whole_number(address, name, least[name]) for name in least if name in options},
        None if place is None else read_vocabulary(place),
    )


def check_names(address: Address, names: Collection[str]) -> None:
    """Raise ValueError if the address has an option that is not in ``names``."""
    if unknown := address.options.keys() - set(names):
        raise ValueError(f"unknown option {min(unknown)!r} of {address.scheme}; expected one of {', '.join(names)}")


def check_choice(name: str, value: str, choices: Collection[str]) -> None:
    """Raise ValueError if the value of an option is not in ``choices``."""
    if value not in choices:
        raise ValueError(f"unknown {name} {value!r}; expected one of {', '.join(choices)}")


def read_timeout(address: Address) -> float:
    """Return the timeout of a request in seconds."""
    text = address.options.get("timeout", str(TIMEOUT))
    timeout = parse_seconds(text)
    if not timeout:
        raise ValueError(f"timeout must be a number of seconds above 0, not {text!r}")
    return timeout


def read_authorities(address: Address) -> str | None:
    """Return the path of the PEM certificates that verify the server; None if the client uses its default."""
    path = address.options.get("ca")
    if path is None:
        return None
    if "https" not in address.variants:
        raise ValueError(f"ca is for TLS: write {address.name}+https://, or leave it out")
    path = expand_home(path)
    if not Path(path).is_file():
        raise ValueError(f"ca must be the path of a file of PEM certificates, and there is no file {path!r}")
    return path


def _whole_number(address: Address, name: str, least: int) -> int:
    text = address.options[name]
    if not text.isdecimal() or int(text) < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, not {text!r}")
    return int(text)
