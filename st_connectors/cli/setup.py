"""``st-connectors setup``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from st_connectors.cli.options import AsJson, FusionMethod, parse_fusion
from st_connectors.cli.output import FAILURE, PARTIAL, SUCCESS, confirm, print_error, print_json, print_line

if TYPE_CHECKING:
    from st_connectors.setup.base import Done, Report, SetUp
    from st_connectors.setup.components import Component
    from st_connectors.setup.options import Options
    from st_connectors.setup.stores import Wish

__all__ = ["setup"]

ENCODER = "http://127.0.0.1:8080"
_WAYS = ("reindex", "scan")


def setup(
    *,
    store: Annotated[
        str, typer.Argument(metavar="STORE", help="opensearch, elasticsearch, qdrant, milvus, vespa or weaviate.")
    ],
    address: Annotated[
        str | None,
        typer.Option("--in", metavar="URL", help="Address of the store, such as opensearch://HOST:9200."),
    ] = None,
    collection: Annotated[
        str | None, typer.Option("--collection", metavar="NAME", help="Name of the index or collection.")
    ] = None,
    encoder: Annotated[
        str,
        typer.Option(
            metavar="URL",
            help="Address of the encoder server (st-connectors serve) under which the store reaches it. Its key is "
            "read from ST_REMOTE_API_KEY.",
        ),
    ] = ENCODER,
    encoder_here: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Address of the encoder server for this command (default: --encoder)."),
    ] = None,
    dense: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Dense model of the server, or none (default: its only dense model)."),
    ] = None,
    sparse: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Sparse model of the server, or none (default: its only sparse model)."),
    ] = None,
    reranker: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Reranker of the server, or none (default: its only reranker)."),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(help="Beginning of the names of pipelines, models and connectors (default: --collection)."),
    ] = None,
    text_field: Annotated[str, typer.Option(metavar="NAME", help="Field of the texts.")] = "text",
    fusion: FusionMethod = None,
    timeout: Annotated[
        int, typer.Option(metavar="SECONDS", help="How long the store waits for vectors of a batch of texts.")
    ] = 60,
    two_phase: Annotated[
        bool, typer.Option("--two-phase", help="OpenSearch: faster, approximate sparse search in two phases.")
    ] = False,
    semantic: Annotated[
        bool,
        typer.Option("--semantic", help="Use a semantic field (OpenSearch 3.1, Elasticsearch) in place of a pipeline."),
    ] = False,
    backfill: Annotated[
        str | None,
        typer.Option(metavar="INDEX", help="Copy the documents of this index of the same server."),
    ] = None,
    backfill_by: Annotated[
        str, typer.Option(metavar="WAY", help="reindex: by the server. scan: by this command, with retries.")
    ] = "reindex",
    allow_settings: Annotated[
        bool, typer.Option("--allow-settings", help="Change settings of the cluster that forbid it to call the server.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the requests and send none that change.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Send a text through, and compare with the library's vectors.")
    ] = False,
    remove: Annotated[
        bool, typer.Option("--remove", help="Remove what setup created, with the collection and its documents.")
    ] = False,
    keep_collection: Annotated[
        bool, typer.Option("--keep-collection", help="With --remove: leave the collection with its documents.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --remove: do not ask for confirmation.")] = False,
    as_json: AsJson = False,
) -> None:
    """Let a store encode texts itself, by calling an encoder server.

    Documents then arrive with their text alone, by any client, and are searched by text. Running it again changes only
    what differs. For vespa and weaviate it prints configuration for their files.

    Example: st-connectors setup opensearch --in opensearch://localhost:9200 --collection books
    --encoder http://10.0.0.5:8080 --allow-settings

    Example: st-connectors setup opensearch --in opensearch://localhost:9200 --collection books --check
    """
    modes = {"--dry-run": dry_run, "--check": check, "--remove": remove}
    if len(chosen := [mode for mode, is_set in modes.items() if is_set]) > 1:
        raise ValueError(f"{' and '.join(chosen)} exclude each other: choose one")
    if backfill_by not in _WAYS:
        raise ValueError(f"--backfill-by {backfill_by!r}: expected reindex or scan")
    if (keep_collection or yes) and not remove:
        raise ValueError("--keep-collection and --yes need --remove")
    from st_connectors.schema import Rrf
    from st_connectors.setup.components import COMPONENTS
    from st_connectors.setup.encoder import Encoder, read_encoder
    from st_connectors.setup.options import Options
    from st_connectors.setup.stores import PORTS, Wish
    from st_core.protocols import ModelKind

    if store not in (*PORTS, *COMPONENTS):
        raise ValueError(f"unknown store {store!r}; expected one of {', '.join((*PORTS, *COMPONENTS))}")
    if store in PORTS and (address is None or collection is None):
        raise ValueError(f"setup {store} needs --in, such as {store}://localhost:{PORTS[store]}, and --collection")
    key, local = os.environ.get("ST_REMOTE_API_KEY") or None, encoder_here or encoder
    chosen_models = {ModelKind.DENSE: dense, ModelKind.SPARSE: sparse, ModelKind.RERANKER: reranker}
    # Removal sends nothing to the encoder server, which may be gone.
    found = Encoder(encoder) if remove else read_encoder(local, key, chosen_models, encoder)
    if address is None or collection is None:
        _print_component(COMPONENTS[store](found), as_json=as_json)
        return
    options = Options(
        collection,
        name or "",
        text_field,
        parse_fusion(fusion) or Rrf(),
        timeout_s=timeout,
        is_two_phase=two_phase,
        is_semantic=semantic,
    )
    with _opened(store, address, Wish(options, found, local, key, allow_settings)) as opened:
        if dry_run:
            _print_requests(opened, as_json=as_json)
        elif check:
            _check(opened, as_json=as_json)
        elif remove:
            _remove(opened, options, keeps_collection=keep_collection, yes=yes, as_json=as_json)
        else:
            _apply(opened, backfill, by_scan=backfill_by == "scan", as_json=as_json)


@contextmanager
def _opened(store: str, address: str, wish: Wish) -> Iterator[SetUp]:
    """Yield the set-up of a store; raise ValueError if the address is that of another store."""
    from st_connectors.registry import parse_address
    from st_connectors.setup.stores import open_setup

    parsed = parse_address(address)
    if parsed.name != store:
        raise ValueError(f"setup {store}: expected an address of {store}, got {address}")
    opened = open_setup(parsed, wish)
    try:
        yield opened
    finally:
        opened.close()


def _print_requests(opened: SetUp, *, as_json: bool) -> None:
    requests, notes = opened.requests(), opened.notes()
    if as_json:
        print_json({"requests": [request.to_json() for request in requests], "notes": list(notes)})
        return
    for note in notes:
        print_line(f"# {note}")
    for request in requests:
        print_line(f"{request}\n")


def _apply(opened: SetUp, backfill: str | None, *, by_scan: bool, as_json: bool) -> None:
    done: list[Done] = []
    for note in opened.notes():
        print_error(f"st-connectors: {note}")
    opened.apply(_reporter(done, as_json=as_json))
    filled = None if backfill is None else opened.fill(backfill, by_scan=by_scan)
    if as_json:
        print_json({"done": [each.to_json() for each in done], "filled": None if filled is None else filled.to_json()})
    elif filled is not None:
        print_line(str(filled))
    for reason in () if filled is None else filled.reasons:
        print_error(f"refused: {reason}")
    if not as_json:
        print_line("\nTry it:\n")
        for request in opened.example():
            print_line(f"{request}\n")
    raise typer.Exit(PARTIAL if filled is not None and filled.refused else SUCCESS)


def _reporter(done: list[Done], *, as_json: bool) -> Report:
    """Return a function that collects what happened, and prints it at once unless JSON follows."""

    def report(each: Done) -> None:
        done.append(each)
        if not as_json:
            print_line(str(each))

    return report


def _check(opened: SetUp, *, as_json: bool) -> None:
    findings = list(opened.check())
    if as_json:
        print_json([finding.to_json() for finding in findings])
    else:
        for finding in findings:
            print_line(str(finding))
    raise typer.Exit(FAILURE if any(finding.problem for finding in findings) else SUCCESS)


def _remove(opened: SetUp, options: Options, *, keeps_collection: bool, yes: bool, as_json: bool) -> None:
    count = None if keeps_collection else opened.count()
    if count:
        confirm(f"remove the set-up {options.name!r} with {count:,} documents of {options.collection!r}", yes=yes)
    done: list[Done] = []
    opened.remove(_reporter(done, as_json=as_json), keeps_collection=keeps_collection)
    if as_json:
        print_json({"done": [each.to_json() for each in done]})
    elif not done:
        print_line(f"there is no set-up {options.name!r}")


def _print_component(component: Component, *, as_json: bool) -> None:
    if as_json:
        print_json(component.to_json())
    else:
        print_line(str(component))
