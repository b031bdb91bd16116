"""``st-connectors info``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from st_connectors.cli.cards import value_text, wrapped
from st_connectors.cli.options import Address, AsJson, Collection
from st_connectors.cli.output import print_json, print_line, terminal_width

if TYPE_CHECKING:
    from st_connectors.plugin import Description
    from st_connectors.store import Store

__all__ = ["info"]


def info(address: Address, collection: Collection, as_json: AsJson = False) -> None:
    """Show what is known about a collection: its fields, its models, its size and the settings of the store.

    Models are shown as they were when the collection was created, with the fingerprints of their parts. --json prints
    the complete fingerprints.

    Example: st-connectors info --in qdrant+edge:demo-index --collection python-docs
    """
    from st_connectors.registry import describe_collection, open_store

    store = open_store(address, collection)
    try:
        count = store.count()
        description = describe_collection(address, collection)
    finally:
        store.close()
    known = _known(address, collection, count, store, description)
    if as_json:
        print_json(known)
        return
    for title, rows in _sections(known):
        if rows:
            print_line(title)
            for line in wrapped(rows, width=terminal_width(), indent="  "):
                print_line(line)


def _known(address: str, collection: str, count: int, store: Store, description: Description) -> dict[str, Any]:
    """Return everything that is known about a collection, as plain values."""
    capabilities = store.capabilities
    return {
        "address": address,
        **store.schema.to_json(),
        "collection": description.name,
        "alias": None if description.name == collection else collection,
        "aliases": list(description.aliases),
        "count": count,
        "bytes": description.size,
        "persistent": capabilities.persistent,
        "store": dict(description.options),
    }


def _sections(known: Mapping[str, Any]) -> list[tuple[str, Sequence[tuple[str, str]]]]:
    """Return the titles and rows to print."""
    models = [(name, _model_line(model)) for name, model in known["models"].items()]
    return [
        (f"{known['collection']} in {known['address']}", _general_rows(known)),
        ("fields", [(name, _field_line(field)) for name, field in known["fields"].items()]),
        ("filterable", list(known["filterable"].items())),
        ("models", models),
        ("settings of the store", [(name, value_text(value)) for name, value in known["store"].items()]),
    ]


def _general_rows(known: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = [("records", f"{known['count']:,}")]
    if known["bytes"] is not None:
        rows.append(("size", f"{known['bytes'] / 1e6:,.1f} MB"))
    if known["alias"] is not None:
        rows.append(("opened as", f"the alias {known['alias']}"))
    if known["aliases"]:
        rows.append(("aliases", ", ".join(known["aliases"])))
    if len(known["fields"]) > 1:
        rows.append(("fusion", _fusion_line(known["fusion"])))
    if not known["persistent"]:
        rows.append(("persistent", "no: the records are lost when the process ends"))
    return rows


def _fusion_line(fusion: Mapping[str, Any] | None) -> str:
    if fusion is None:
        return "rrf (default)"
    options = {name: value for name, value in fusion.items() if name != "method" and value is not None}
    return f"{fusion['method']} ({_listed(options)})"


def _field_line(field: Mapping[str, Any]) -> str:
    options = {name: value for name, value in field.items() if name != "kind"}
    return f"{field['kind']} ({_listed(options)})"


def _model_line(model: Mapping[str, Any]) -> str:
    """Return a model's name and properties on one line, with the first digits of the hashes of its fingerprint."""
    shown = {name: value for name, value in model.items() if name not in {"name", "fingerprint"} and value}
    prints = ", ".join(f"{part} {str(digest)[:12]}" for part, digest in model["fingerprint"].items())
    line = f"{model['name']} ({_listed(shown)})"
    return f"{line}; fingerprint: {prints}" if prints else line


def _listed(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value_text(value)}" for name, value in options.items())
