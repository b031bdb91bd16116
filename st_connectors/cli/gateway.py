"""``st-connectors gateway``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from st_connectors.cli.output import print_error, print_json

__all__ = ["gateway"]


def gateway(
    *,
    node: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="ADDRESS...",
            help="Address of a node, such as elasticsearch://localhost:9200 or opensearch+https://host:9200?ca=ca.pem. "
            "Several are those of one cluster.",
            show_default=False,
        ),
    ] = None,
    settings: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="TOML file with nodes, rules for indices of other programs, and limits."),
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on (default: 127.0.0.1).")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on, 0 for a free one (default: 9280).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the address to standard output, as JSON.")] = False,
) -> None:
    """Add vectors to what clients write to Elasticsearch or OpenSearch, and answer searches by text; a proxy.

    Example: st-connectors gateway elasticsearch://localhost:9200

    Example: st-connectors gateway --settings gateway.toml --port 9200
    """
    from st_connectors.gateway import Settings, read_settings
    from st_connectors.gateway.settings import addresses_of
    from st_connectors.registry import explain_missing
    from st_connectors.server.logs import log_to_stderr

    nodes = tuple(node or ())
    chosen = Settings(nodes) if settings is None else read_settings(settings, *nodes)
    options: dict[str, Any] = {"host": host, "port": port}
    chosen = replace(chosen, **{name: value for name, value in options.items() if value is not None})
    with explain_missing(addresses_of(chosen.nodes)[0]):
        from st_connectors.gateway import serve as run
    log_to_stderr()
    run(chosen, announce=lambda address: _announce(address, chosen.nodes, as_json=as_json))


def _announce(address: str, nodes: tuple[str, ...], *, as_json: bool) -> None:
    """Print the address on which the gateway listens."""
    if as_json:
        print_json({"address": address, "nodes": list(nodes)})
    print_error(f"st-connectors: listening on {address} for {', '.join(nodes)}; Ctrl-C stops")
