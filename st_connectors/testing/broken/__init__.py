"""Broken stores: each has one bug that occurred in practice, and states which test of the suite detects it, and how.

For each bug report, first a broken store is added, then a test that detects the bug.
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
