"""The whole suite in one class; a store that passes can take the place of any other within what it declares.

    from st_connectors.testing import StoreConformance

    class TestMyStore(StoreConformance):
        @classmethod
        def address(cls, folder):
            return f"mystore:{folder}"

``folder`` is empty and exists as long as the class. A store that needs a fixture (such as a server to start)
overrides the class-scoped fixture ``make`` instead, and returns ``opener(address)``. Tests that a store cannot pass
are listed, never overridden:

        gaps = {"test_truth_table[long]": Gap("mystore cuts keywords at 8,191 bytes", AssertionError)}

A gap is a strict expected failure: the run fails unless the test fails with that exception. ``client_modules`` are
modules that importing the plugin must not load, ``promises`` capabilities beyond the minimum that the store must keep
declaring. The groups may also be used alone.
"""

from __future__ import annotations

from st_connectors.testing.border import Border
from st_connectors.testing.dense import Dense
from st_connectors.testing.fidelity import Fidelity
from st_connectors.testing.filtering import Filtering
from st_connectors.testing.fusion import Fusing
from st_connectors.testing.life import Life
from st_connectors.testing.machine import Machine
from st_connectors.testing.scan import Scan
from st_connectors.testing.shape import Shape
from st_connectors.testing.sparse import Sparse
from st_connectors.testing.text import Text
from st_connectors.testing.threads import Threads
from st_connectors.testing.writes import Writes

__all__ = ["StoreConformance"]


class StoreConformance(
    Shape, Life, Writes, Border, Fidelity, Dense, Sparse, Text, Filtering, Fusing, Scan, Threads, Machine
):
    """All groups of the suite."""
