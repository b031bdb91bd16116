"""``st-connectors conform``."""

from __future__ import annotations

from typing import Annotated

import typer

from st_connectors.cli.options import AsJson, quietly
from st_connectors.cli.output import DONE, FAILED, print_json, say

__all__ = ["conform"]


def conform(
    address: Annotated[str, typer.Argument(metavar="URL", callback=quietly, help="The store to put to the test.")],
    as_json: AsJson = False,
) -> None:
    """Run the conformance suite on a store; it makes collections of its own and removes them. Needs the extra 'testing'.

    Example: st-connectors conform qdrant+edge:/tmp/conform
    """
    from st_connectors.registry import parse_address
    from st_connectors.testing import run

    parse_address(address)
    report = run(address)
    if as_json:
        print_json(report.to_json())
    else:
        say(report.table())
    raise typer.Exit(DONE if report.passed else FAILED)
