"""Options of an address that both engines have; raises ValueError for what they cannot be."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from st_connectors._lucene.faults import seconds
from st_connectors._lucene.vocabulary import Vocabulary, read
from st_connectors.plugin import Address

__all__ = ["authorities", "check_names", "index_settings", "timeout", "vocabulary"]

TIMEOUT = 60.0
"""Seconds; the clients' own 10 are too few for a large batch."""


def check_names(address: Address, names: Collection[str]) -> None:
    """Refuse options that there are not."""
    if unknown := address.options.keys() - set(names):
        raise ValueError(f"{address.scheme} has no option {min(unknown)!r}; there are {', '.join(names)}")


def index_settings(address: Address) -> dict[str, int]:
    """What ``shards`` and ``replicas`` ask of a new index."""
    wanted = (("shards", 1), ("replicas", 0))
    return {f"number_of_{name}": _whole(address, name, least) for name, least in wanted if name in address.options}


def timeout(address: Address) -> float:
    """Seconds that a request may take."""
    given = address.options.get("timeout", str(TIMEOUT))
    found = seconds(given)
    if not found:
        raise ValueError(f"timeout is a number of seconds above 0, not {given!r}")
    return found


def authorities(address: Address) -> str | None:
    """The file of certificates that ``ca`` names, by which the server's own is judged instead of by those that the client trusts."""
    path = address.options.get("ca")
    if path is None:
        return None
    if "https" not in address.variants:
        raise ValueError(f"ca is for TLS: write {address.name}+https://, or leave it out")
    if not Path(path).is_file():
        raise ValueError(f"ca names a file of PEM certificates, and there is no file {path!r}")
    return path


def vocabulary(address: Address) -> Vocabulary | None:
    """The vocabulary that ``vocabulary`` names, whose tokens are the keys of sparse fields; None where those are indices."""
    place = address.options.get("vocabulary")
    return None if place is None else read(place)


def _whole(address: Address, name: str, least: int) -> int:
    given = address.options[name]
    if not given.isdecimal() or int(given) < least:
        raise ValueError(f"{name} is a whole number of at least {least}, not {given!r}")
    return int(given)
