"""``st-connectors serve``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from st_connectors.cli.options import Backend, Dtype
from st_connectors.cli.output import print_error, print_json

if TYPE_CHECKING:
    from st_connectors.server import Settings

__all__ = ["serve"]


def serve(
    *,
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]MODEL",
            help="Model to serve: builtin:dense, builtin:sparse, builtin:rerank, a folder or a Hub name. NAME is what "
            "requests call it (default: the end of MODEL). Repeat for several. Default: builtin:dense and "
            "builtin:sparse.",
        ),
    ] = None,
    settings: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="TOML file with models, limits, keys and TLS; options override it."),
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on (default: 127.0.0.1).")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on, 0 for a free one (default: 8080).")] = None,
    backend: Backend = "torch",
    dtype: Dtype = None,
    device: Annotated[
        list[str] | None,
        typer.Option(metavar="DEVICE", help="Device to compute on, such as cuda:0. Repeat for a copy on each."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(help="Number of processes, each with its own models and queues (default: 1)."),
    ] = None,
    key_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File with one API key per line; it is read again when it changes. Keys in ST_SERVER_API_KEY, "
            "separated by commas, are accepted too.",
        ),
    ] = None,
    tls_certificate: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Certificate chain (PEM); serves HTTPS.")
    ] = None,
    tls_key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Private key of the certificate (PEM), if the certificate's file lacks it."),
    ] = None,
    access_log: Annotated[
        bool | None,
        typer.Option("--access-log/--no-access-log", help="Print a line of JSON per request, without texts."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the address to standard output, as JSON.")] = False,
) -> None:
    """Serve models over HTTP, in the request shapes of TEI, OpenAI, Cohere, Jina, vLLM, Ollama and the stores.

    Example: st-connectors serve

    Example: st-connectors serve --model dense=./all-MiniLM-L6-v2 --model rerank=./ms-marco-MiniLM-L6-v2
    --backend openvino
    """
    from st_connectors.server import serve as run
    from st_connectors.server.logs import log_to_stderr

    chosen = _settings(settings, model, {"backend": backend, "dtype": dtype, "devices": tuple(device or ())})
    options = {
        "host": host,
        "port": port,
        "workers": workers,
        "key_file": None if key_file is None else str(key_file),
        "tls": _tls(tls_certificate, tls_key),
        "access_log": access_log,
    }
    chosen = replace(chosen, **{name: value for name, value in options.items() if value is not None})
    log_to_stderr()
    run(chosen, announce=lambda address: _announce(address, as_json=as_json))


def _announce(address: str, *, as_json: bool) -> None:
    """Print the address on which the server listens."""
    if as_json:
        print_json({"address": address})
    print_error(f"st-connectors: listening on {address}; Ctrl-C stops")


def _settings(file: Path | None, models: list[str] | None, loading: dict[str, Any]) -> Settings:
    """Return the settings of a file, or the default ones, with the models of the command line if there are any."""
    from st_connectors.server import Settings, read_settings
    from st_connectors.server.settings import model_of_option

    settings = Settings() if file is None else read_settings(file)
    if models:
        return replace(settings, models=tuple(model_of_option(each, **loading) for each in models))
    return settings


def _tls(certificate: Path | None, key: Path | None) -> Any:
    from st_connectors.server import Tls

    if certificate is None:
        if key is not None:
            raise ValueError("--tls-key needs --tls-certificate")
        return None
    return Tls(str(certificate), None if key is None else str(key))
