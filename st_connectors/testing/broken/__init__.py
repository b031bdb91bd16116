"""Broken stores: each has one bug that was seen somewhere, and names the test of the suite that must catch it.

A bug report becomes a broken store first, then a test that catches it.
"""

from __future__ import annotations

from collections.abc import Mapping

from st_connectors.testing.broken.answering import ANSWERING
from st_connectors.testing.broken.choosing import CHOOSING
from st_connectors.testing.broken.keeping import KEEPING
from st_connectors.testing.broken.passing import Broken, Passing, around
from st_connectors.testing.broken.taking import TAKING

__all__ = ["BROKEN", "Broken", "Passing", "around"]

BROKEN: Mapping[str, Broken] = {**KEEPING, **ANSWERING, **CHOOSING, **TAKING}
