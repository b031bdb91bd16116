"""What is found, or not found, where a collection should be: errors that both engines tell in the same words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn, Protocol

from st_connectors._lucene.forms import Form, stored
from st_connectors._lucene.names import index_of
from st_connectors.errors import NotFound, SchemaMismatch, Unsupported
from st_connectors.plugin import Address
from st_connectors.schema import Schema

__all__ = ["closing_on_error", "no_alias", "not_there", "ours", "refuse_drop"]


class Closable(Protocol):
    """Something that was opened."""

    def close(self) -> None:
        """Close it."""
        ...


@contextmanager
def closing_on_error(opened: Closable) -> Iterator[None]:
    """Close what was opened if there will be no store to close it."""
    try:
        yield
    except BaseException:
        opened.close()
        raise


def ours(collection: str, mappings: Mapping[str, Any], *, store: str, operation: str) -> tuple[Schema, Form]:
    """What the mapping of one of our collections says; ``SchemaMismatch`` where somebody else made the index."""
    kept = stored(mappings)
    if kept is None:
        told = f"the index {collection!r} was not made by st-connectors; use Index.adopt to search or fill it as it is"
        raise SchemaMismatch(told, store=store, operation=operation)
    return kept


def not_there(collection: str, address: Address, *, store: str, operation: str) -> NoReturn:
    """Say that there is no such collection."""
    told = f"there is no collection {collection!r} at {address}: create it first, or look at its spelling"
    raise NotFound(told, store=store, operation=operation)


def no_alias(collection: str, *, store: str) -> NoReturn:
    """Say that a collection's index has lost the alias that it is reached by."""
    told = f"the index {index_of(collection)!r} is there without the alias {collection!r}: add the alias, or remove the index"
    raise SchemaMismatch(told, store=store, operation="create")


def refuse_drop(*, store: str) -> NoReturn:
    """Say that an adopted index is not ours to remove."""
    told = "the index was adopted, not made here: remove it with the tool that made it"
    raise Unsupported(told, store=store, operation="drop")
