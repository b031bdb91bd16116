"""The whole suite in one class; a store that passes can take the place of any other within what it declares.

    from st_connectors.testing import StoreConformance

    class TestMyStore(StoreConformance):
        @classmethod
        def address(cls, folder):
            return f"mystore:{folder}"

``folder`` is empty and lives as long as the class. A store that needs a fixture (a server that is started first) overrides the class-scoped
fixture ``make`` instead, and returns ``opener(address)``. What a store cannot pass is listed, never overridden:

        gaps = {"test_truth_table[long]": Gap("mystore cuts keywords at 8,191 bytes", AssertionError)}

A gap is a strict expected failure: the test must fail, with just that exception, or the run is red. ``client_modules`` names modules that
importing the plugin must not load, ``promises`` abilities beyond the minimum that the store must go on declaring. The groups may also be used alone.
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
    """Every group."""
