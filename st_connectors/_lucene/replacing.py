"""Put another index in the place of a collection's index, in one request.

The new index ``books@2`` is filled behind an alias of its own, ``books@copy``, while searches use ``books@1``, which
refuses writes. One request then moves the aliases and deletes ``books@1``. If the process ends before that request, the
collection is what it was, except that it refuses writes; the same call made again starts over.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from st_connectors._lucene.client import Connection
from st_connectors._lucene.engine import Engine, OpenEngine
from st_connectors._lucene.forms import Form, layout_of, options_of, with_tokens
from st_connectors._lucene.layout import Body
from st_connectors._lucene.names import copy_alias, index_path, is_index_of, next_index
from st_connectors._lucene.queries import ServerT
from st_connectors._lucene.store import IndexPlace, LuceneStore, closing_on_error, look_up, own_schema
from st_connectors.errors import NotFound, Refused, SchemaMismatch, StoreError, Unavailable
from st_connectors.plugin import Address, Replacement
from st_connectors.schema import Schema

__all__ = ["replacing", "swap_actions"]

_OPERATION = "alter"
_UNKNOWN = (
    "whether the copy has taken its place is unknown: look at the collection (st-connectors info), and make the same "
    "alter again if it has not changed"
)
_KEPT = ("number_of_shards", "number_of_replicas")
"""The settings of an index that its successor has too."""


@dataclass(frozen=True, slots=True)
class _Old:
    """The index of a collection: its schema and form, its settings, and its aliases with their options."""

    index: str
    schema: Schema
    form: Form
    settings: Body
    aliases: Mapping[str, Body]


@contextmanager
def replacing(
    open_engine: OpenEngine[ServerT], address: Address, collection: str, schema: Schema, client: object | None
) -> Iterator[Replacement]:
    """Yield the store of a new index for a collection, and the function that puts it in place.

    The new index has the options of the address, and otherwise those of the collection. Until it is in place, the
    collection refuses writes; if the block ends before, also by an error, the new index is deleted and the collection
    accepts writes again.
    """
    engine = open_engine(address, client)
    with closing_on_error(engine.connection):
        old = _read_old(engine, address, collection)
        store = _successor(engine, old, schema)
    connection, copy = engine.connection, copy_alias(collection)
    may_be_in_place = False

    def put_in_place() -> None:
        nonlocal may_be_in_place
        # Until the server says no: it may move the aliases after a lost answer, and deleting the copy would then delete
        # the collection.
        may_be_in_place = True
        actions = swap_actions(old.index, next_index(old.index), copy, old.aliases)
        try:
            connection.send(_OPERATION, "POST", "/_aliases", {"actions": actions}, expect="acknowledged")
        except Unavailable as error:
            message = f"{error.message}; {_UNKNOWN}"
            raise Unavailable(message, store=connection.name, operation=_OPERATION, status=error.status) from error
        except StoreError:
            may_be_in_place = False
            raise

    try:
        _delete_copy(connection, copy)
        _refuse_writes(connection, old.index, refuse=True)
        try:
            yield Replacement(store, put_in_place)
        finally:
            if not may_be_in_place:
                with suppress(StoreError):  # the next call deletes what is left
                    _delete_copy(connection, copy)
                _refuse_writes(connection, old.index, refuse=False)
    finally:
        store.close()


def swap_actions(old: str, new: str, copy: str, aliases: Mapping[str, Body]) -> list[Body]:
    """Return the actions of the request that gives the aliases of one index to another, and deletes the first."""
    add = [{"add": {"index": new, "alias": alias, **options}} for alias, options in sorted(aliases.items())]
    return [{"remove": {"index": new, "alias": copy}}, *add, {"remove_index": {"index": old}}]


def _read_old(engine: Engine[ServerT], address: Address, collection: str) -> _Old:
    """Return the index of a collection; raise ``Refused`` unless the name is its own and it has one index."""
    connection = engine.connection
    _, mappings = look_up(engine, address, collection, _OPERATION)
    schema, form = own_schema(connection, collection, mappings, _OPERATION)
    index, *others = mappings
    if others or not is_index_of(index, collection):
        names = ", ".join(mappings)
        message = f"{collection!r} is an alias of {names}: name the collection itself, with one index"
        raise Refused(message, store=connection.name, operation=_OPERATION)
    _check_form(engine, form)
    settings = connection.send(_OPERATION, "GET", f"{index_path(index)}/_settings")
    aliases = connection.send(_OPERATION, "GET", f"{index_path(index)}/_alias")
    try:
        kept = {name: value for name, value in settings[index]["settings"]["index"].items() if name in _KEPT}
        return _Old(index, schema, form, kept, aliases[index]["aliases"])
    except (LookupError, TypeError, AttributeError) as error:
        raise connection.unexpected(_OPERATION) from error


def _check_form(engine: Engine[ServerT], form: Form) -> None:
    """Raise ``SchemaMismatch`` if the address does not say what the collection does not store."""
    if "seismic" in form.sparse.values() and "sparse" not in engine.options.form:
        message = "the parameters of seismic are not stored: name sparse=seismic and its parameters in the address"
        raise SchemaMismatch(message, store=engine.connection.name, operation=_OPERATION)


def _successor(engine: Engine[ServerT], old: _Old, schema: Schema) -> LuceneStore[ServerT]:
    """Return the store of the new index, which does not exist yet."""
    vocabulary = engine.options.vocabulary
    options: dict[str, Any] = {**options_of(old.schema, old.form, engine.dense_option), **engine.options.form}
    form = with_tokens(engine.form_for(schema, **options), vocabulary)
    place = IndexPlace(next_index(old.index), copy_alias(schema.collection), old.settings)
    return LuceneStore(engine, schema, form, layout_of(schema, form, vocabulary), place=place)


def _delete_copy(connection: Connection, copy: str) -> None:
    """Delete the index behind the alias of copies, which an interrupted call may have left."""
    try:
        indices = connection.send(_OPERATION, "GET", f"{index_path(copy)}/_alias")
    except NotFound:
        return
    for index, options in indices.items():
        if set(options["aliases"]) == {copy}:
            connection.send(_OPERATION, "DELETE", index_path(index), expect="acknowledged")


def _refuse_writes(connection: Connection, index: str, *, refuse: bool) -> None:
    body = {"index.blocks.write": True if refuse else None}
    connection.send(_OPERATION, "PUT", f"{index_path(index)}/_settings", body, expect="acknowledged")
