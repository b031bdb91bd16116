"""``st-connectors stores``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from st_connectors.cli.options import AsJson
from st_connectors.cli.output import print_json, say

if TYPE_CHECKING:
    from st_connectors.plugin import Plugin
    from st_connectors.store import Capabilities

__all__ = ["markdown", "stores"]


def stores(
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print the table as Markdown.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the installed stores and what each can do at most.

    Example: st-connectors stores --markdown
    """
    from st_connectors.registry import plugins

    known = plugins()
    if as_json:
        print_json({name: _plain(plugin) for name, plugin in known.items()})
    elif as_markdown:
        say(markdown(known))
    else:
        say(_columns(known))


def markdown(known: Mapping[str, Plugin]) -> str:
    """The table of abilities as Markdown, one column per store."""
    rows = _rows(known)
    lines = ["| ability | " + " | ".join(f"`{name}`" for name in known) + " |", "|---" * (len(known) + 1) + "|"]
    lines += [f"| {label} | " + " | ".join(cells) + " |" for label, cells in rows]
    return "\n".join(lines)


def _columns(known: Mapping[str, Plugin]) -> str:
    rows = [("", list(known)), *_rows(known)]
    widths = [max(len(row[0]) for row in rows), *(max(len(cells[i]) for _, cells in rows) for i in range(len(known)))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip([label, *cells], widths, strict=True)).rstrip()
        for label, cells in rows
    )


def _rows(known: Mapping[str, Plugin]) -> list[tuple[str, list[str]]]:
    """What each store can do, a row per ability."""
    return [(label, [cell(plugin) for plugin in known.values()]) for label, cell in _CELLS.items()]


def _names(values: Any) -> str:
    return ", ".join(sorted(str(getattr(value, "value", value)) for value in values)) or "–"  # noqa: RUF001


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _limit(value: int | None) -> str:
    return "any" if value is None else f"{value:,}"


_CELLS: dict[str, Callable[[Plugin], str]] = {
    "addresses": lambda p: ", ".join(f"{p.name}+{v}:" if v else f"{p.name}:" for v in p.variants),
    "install": lambda p: "included" if p.extra is None else f"st-connectors[{p.extra}]",
    "dense metrics": lambda p: _names(p.capabilities.metrics),
    "quantization": lambda p: _names(p.capabilities.quantizations),
    "sparse": lambda p: _yes(p.capabilities.sparse),
    "text": lambda p: _yes(p.capabilities.text),
    "records may lack vectors": lambda p: _yes(p.capabilities.optional_vectors),
    "fuses by itself": lambda p: _names(p.capabilities.fusion),
    "filters": lambda p: _names(p.capabilities.filters),
    "efforts": lambda p: _names(p.capabilities.efforts),
    "persistent": lambda p: _yes(p.capabilities.persistent),
    "refuses single records": lambda p: _yes(p.capabilities.partial_failure),
    "bulk loading sets": lambda p: _names(p.capabilities.bulk_loading),
    "largest dimension": lambda p: _limit(p.capabilities.max_dimension),
    "most hits": lambda p: _limit(p.capabilities.max_limit),
    "most query terms": lambda p: _limit(p.capabilities.max_query_terms),
}


def _plain(plugin: Plugin) -> dict[str, Any]:
    """A plugin as plain values."""
    return {
        "extra": plugin.extra,
        "variants": dict(plugin.variants),
        "contract": plugin.contract,
        "capabilities": _capabilities(plugin.capabilities),
    }


def _capabilities(value: Capabilities) -> dict[str, Any]:
    from dataclasses import fields

    plain: dict[str, Any] = {}
    for entry in fields(value):
        item = getattr(value, entry.name)
        if isinstance(item, frozenset):
            plain[entry.name] = sorted(str(getattr(one, "value", one)) for one in item)
        elif isinstance(item, Mapping):
            plain[entry.name] = {
                key: {"exact": precision.exact, "score_rtol": precision.score_rtol} for key, precision in item.items()
            }
        else:
            plain[entry.name] = item
    return plain
