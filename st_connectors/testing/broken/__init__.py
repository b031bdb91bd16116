"""Broken stores: each has one bug that was seen somewhere, and says which test of the suite catches it, and how.

A bug report becomes a broken store first, then a test that catches it.
"""

from __future__ import annotations

from collections.abc import Mapping

from st_connectors.testing.broken.base import Broken, Passing, wrapping
from st_connectors.testing.broken.filtering import FILTERING
from st_connectors.testing.broken.searching import SEARCHING
from st_connectors.testing.broken.storing import STORING
from st_connectors.testing.broken.validating import VALIDATING

__all__ = ["BROKEN", "Broken", "Passing", "wrapping"]

BROKEN: Mapping[str, Broken] = {**STORING, **SEARCHING, **FILTERING, **VALIDATING}
