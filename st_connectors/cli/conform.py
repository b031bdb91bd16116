"""``st-connectors conform``."""

from __future__ import annotations

from typing import Annotated

import typer

from st_connectors.cli.options import AsJson, silence_retry_logging
from st_connectors.cli.output import FAILURE, SUCCESS, print_json, print_line

__all__ = ["conform"]


def conform(
    address: Annotated[
        str, typer.Argument(metavar="URL", callback=silence_retry_logging, help="Address of the store to test.")
    ],
    as_json: AsJson = False,
) -> None:
    """Run the conformance suite on a store; needs the extra 'testing'.

    The suite creates collections of its own and drops them afterwards. The exit status is 3 if a test fails.

    Example: st-connectors conform qdrant+edge:/tmp/conform
    """
    from st_connectors.registry import parse_address
    from st_connectors.testing import run

    parse_address(address)
    report = run(address)
    if as_json:
        print_json(report.to_json())
    else:
        print_line(report.table())
    raise typer.Exit(SUCCESS if report.passed else FAILURE)
