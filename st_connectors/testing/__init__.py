"""The conformance suite: rules that every store must follow, as pytest classes that a plugin subclasses.

See :mod:`st_connectors.testing.suite`. Needs the extra ``testing``; nothing else in the package imports it.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module
from typing import TYPE_CHECKING, Any

from st_core.errors import missing_extra

try:
    import pytest
except ModuleNotFoundError as error:
    raise missing_extra("testing", "the conformance suite") from error

if TYPE_CHECKING:
    from st_connectors.testing.base import Gap, Group, Lab, Pair
    from st_connectors.testing.failing import HttpErrors
    from st_connectors.testing.failing_grpc import GrpcErrors
    from st_connectors.testing.faults import FaultProxy
    from st_connectors.testing.opening import Make, opener
    from st_connectors.testing.report import Report, run
    from st_connectors.testing.suite import StoreConformance

CHECKS = tuple(f"{__name__}.{module.name}" for module in pkgutil.iter_modules(__path__))
"""Modules whose assertions pytest rewrites; otherwise a failure in an installed suite reads only "AssertionError"."""
pytest.register_assert_rewrite(*CHECKS)

_WHERE = {
    "FaultProxy": "faults",
    "Gap": "base",
    "Group": "base",
    "GrpcErrors": "failing_grpc",
    "HttpErrors": "failing",
    "Lab": "base",
    "Make": "opening",
    "Pair": "base",
    "Report": "report",
    "StoreConformance": "suite",
    "opener": "opening",
    "run": "report",
}

__all__ = [
    "FaultProxy",
    "Gap",
    "Group",
    "GrpcErrors",
    "HttpErrors",
    "Lab",
    "Make",
    "Pair",
    "Report",
    "StoreConformance",
    "opener",
    "run",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use, after assertion rewriting has been registered."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
    globals()[name] = value
    return value
