"""``st-connectors conform``."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["conform"]


def conform(
    address: Annotated[str, typer.Argument(metavar="URL", help="The store to put to the test.")],
    pytest_arguments: Annotated[
        list[str] | None, typer.Argument(metavar="PYTEST...", help="Handed on to pytest.")
    ] = None,
) -> int:
    """Run the conformance suite on a store; it makes collections of its own and removes them.

    Example: st-connectors conform qdrant+edge:/tmp/conform
    """
    from st_core.errors import missing_extra

    try:
        from st_connectors.testing import run
    except ModuleNotFoundError as error:
        raise missing_extra("testing", "conform") from error
    return int(run(address, pytest_arguments or []))
