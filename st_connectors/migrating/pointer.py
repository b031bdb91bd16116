"""Record for which collection a name stands, in the metadata of the first one, and open the others of a migration."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, closing, suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from urllib.parse import quote

from st_connectors.errors import NotFound, Refused, SchemaMismatch
from st_connectors.index import Index
from st_connectors.ingest.locks import locked
from st_connectors.registry import absolute_address, open_store, stored_schema
from st_connectors.schema import Migration, Schema, schema_difference
from st_connectors.store import Parts, Store

__all__ = ["drop_old", "lock_migration", "migration_of", "next_name", "open_collection", "open_new", "point", "refusal"]


def drop_old(index: Index) -> str:
    """Drop the collection before the last migration, and return its name; the migration can then not be undone.

    The first collection is emptied instead, because its metadata stores for which collection its name stands. Indexes
    that were opened before the migration must be opened again first. Raises ValueError if there is no such collection.
    """
    migration = migration_of(index)
    if migration.previous is None:
        raise ValueError(f"{migration.root!r} has no previous collection to drop")
    with lock_migration(index):
        with suppress(NotFound), closing(open_collection(index, migration.previous)) as store:
            if migration.previous == migration.root:
                _delete_all(store)
            else:
                store.drop()
        point(index, replace(migration, previous=None))
    return migration.previous


def lock_migration(index: Index) -> AbstractContextManager[None]:
    """Return the lock of the migrations of a collection, which holds for the processes of one user on one machine.

    A store that exists in this process only has its own.
    """
    is_shared = index.store.capabilities.persistent and index.client is None
    parts = ("migration", "" if is_shared else str(os.getpid()), absolute_address(index.address), index.collection)
    message = f"{index.collection!r} is being migrated by another process"
    return locked(Path(*(quote(each, safe="") for each in parts)), message)


def migration_of(index: Index) -> Migration:
    """Return for which collection the name of an index stands; raise an error unless it is that of the index."""
    if not index.address:
        raise ValueError("expected an index that was opened by Index.open or Index.create")
    schema = stored_schema(index.address, index.collection, client=index.client)
    migration = schema.migration or Migration(schema.collection, schema.collection)
    if migration.root != schema.collection and migration.current == schema.collection:
        raise refusal(f"{schema.collection!r} is a collection of {migration.root!r}: migrate that")
    if migration.root != schema.collection:  # a copy of the schema of another collection
        migration = Migration(schema.collection, schema.collection)
    if migration.current != index.schema.collection:
        message = f"{migration.root!r} was migrated to {migration.current!r} in the meantime: open it again"
        raise SchemaMismatch(message, store="index", operation="migrate")
    return migration


def point(index: Index, migration: Migration) -> None:
    """Write the migration to the metadata of the first collection, which is one atomic change."""
    with closing(open_collection(index, migration.root)) as store:
        store.alter(replace(store.schema, migration=migration))


def open_collection(index: Index, collection: str) -> Store:
    """Open the collection of exactly this name, at the address of an index and with its client."""
    return open_store(index.address, collection, client=index.client, follow=False)


def open_new(index: Index, schema: Schema) -> Store:
    """Return the store of the new collection, which exists only if an interrupted migration has created it."""
    with suppress(NotFound):
        stored = stored_schema(index.address, schema.collection, client=index.client)
        if stored.migration != schema.migration:
            raise refusal(f"the collection {schema.collection!r} is in the way: copy it to another name and drop it")
        if schema_difference(stored, schema):
            message = (
                f"{schema.collection!r} is of an unfinished migration to other models or settings: continue that one, "
                f"or drop it (st-connectors drop --in {index.address} --collection {schema.collection})"
            )
            raise SchemaMismatch(message, store="index", operation="migrate")
    return open_store(index.address, schema.collection, schema, client=index.client)


def next_name(migration: Migration) -> str:
    """Return the name of the collection that follows the current one: ``books~2`` after ``books``."""
    number = migration.current.removeprefix(f"{migration.root}~")
    return f"{migration.root}~{int(number) + 1 if number.isdecimal() and number != migration.current else 2}"


def refusal(message: str) -> Refused:
    """Return the error of a migration that is refused."""
    return Refused(message, store="index", operation="migrate")


def _delete_all(store: Store) -> None:
    while ids := [record.id for record in islice(store.scan(parts=Parts.NONE), 1000)]:
        store.delete(ids)
        store.refresh()
