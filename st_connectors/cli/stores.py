"""``st-connectors stores``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from st_connectors.cli.cards import wrapped
from st_connectors.cli.options import AsJson
from st_connectors.cli.output import print_json, print_line

if TYPE_CHECKING:
    from st_connectors.plugin import Plugin
    from st_connectors.store import Capabilities

__all__ = ["markdown", "stores"]

WIDTH = 80
"""The width of the text output: that of the narrowest terminal in common use."""


def stores(
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown table.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the installed stores and their capabilities.

    Capabilities are the upper bound across server versions. --markdown prints one table, with a column per store.

    Example: st-connectors stores --markdown
    """
    from st_connectors.registry import plugins

    installed = plugins()
    if as_json:
        print_json({name: _plugin_json(plugin) for name, plugin in installed.items()})
    elif as_markdown:
        print_line(markdown(installed))
    else:
        print_line(_cards(installed))


def markdown(installed: Mapping[str, Plugin]) -> str:
    """Return a Markdown table of capabilities with one column per store."""
    rows = _rows(installed)
    lines = [
        "| capability | " + " | ".join(f"`{name}`" for name in installed) + " |",
        "|---" * (len(installed) + 1) + "|",
    ]
    lines += [f"| {label} | " + " | ".join(cells) + " |" for label, cells in rows]
    return "\n".join(lines)


def _cards(installed: Mapping[str, Plugin]) -> str:
    """Return a paragraph per store with one capability per line, no wider than ``WIDTH``."""
    paragraphs = []
    for name, plugin in installed.items():
        rows = [(label, cell(plugin)) for label, cell in _CELLS.items()]
        paragraphs.append("\n".join([name, *wrapped(rows, width=WIDTH, indent="  ")]))
    return "\n\n".join(paragraphs)


def _rows(installed: Mapping[str, Plugin]) -> list[tuple[str, list[str]]]:
    """Return a label and one cell per store for each capability."""
    return [(label, [cell(plugin) for plugin in installed.values()]) for label, cell in _CELLS.items()]


def _names(values: Any) -> str:
    return ", ".join(sorted(str(getattr(value, "value", value)) for value in values)) or "–"  # noqa: RUF001


def _yes_no(value: bool) -> str:
    return "yes" if value else "no"


def _limit(value: int | None) -> str:
    return "unlimited" if value is None else f"{value:,}"


_CELLS: dict[str, Callable[[Plugin], str]] = {
    "addresses": lambda p: ", ".join(f"{p.name}+{v}:" if v else f"{p.name}:" for v in p.variants),
    "install": lambda p: "included" if p.extra is None else f"st-connectors[{p.extra}]",
    "dense metrics": lambda p: _names(p.capabilities.metrics),
    "quantization": lambda p: _names(p.capabilities.quantizations),
    "sparse": lambda p: _yes_no(p.capabilities.sparse),
    "text": lambda p: _yes_no(p.capabilities.text),
    "optional vectors": lambda p: _yes_no(p.capabilities.optional_vectors),
    "native fusion": lambda p: _names(p.capabilities.fusion),
    "filters": lambda p: _names(p.capabilities.filters),
    "search effort": lambda p: _names(p.capabilities.efforts),
    "persistent": lambda p: _yes_no(p.capabilities.persistent),
    "reports single refused records": lambda p: _yes_no(p.capabilities.partial_failure),
    "bulk-loading settings": lambda p: _names(p.capabilities.bulk_loading),
    "max dimension": lambda p: _limit(p.capabilities.max_dimension),
    "max hits": lambda p: _limit(p.capabilities.max_limit),
    "max query terms": lambda p: _limit(p.capabilities.max_query_terms),
    "max filter values": lambda p: _limit(p.capabilities.max_filter_values),
    "max query and filter clauses": lambda p: _limit(p.capabilities.max_clauses),
}


def _plugin_json(plugin: Plugin) -> dict[str, Any]:
    """Return a plugin as plain values for JSON."""
    return {
        "extra": plugin.extra,
        "variants": dict(plugin.variants),
        "contract": plugin.contract,
        "capabilities": _capabilities_json(plugin.capabilities),
    }


def _capabilities_json(capabilities: Capabilities) -> dict[str, Any]:
    from dataclasses import fields

    plain: dict[str, Any] = {}
    for entry in fields(capabilities):
        item = getattr(capabilities, entry.name)
        if isinstance(item, frozenset):
            plain[entry.name] = sorted(str(getattr(member, "value", member)) for member in item)
        elif isinstance(item, Mapping):
            plain[entry.name] = {
                key: {"exact": precision.exact, "score_rtol": precision.score_rtol} for key, precision in item.items()
            }
        else:
            plain[entry.name] = item
    return plain
