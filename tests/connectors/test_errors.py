"""The attributes of store errors."""

from __future__ import annotations

import pytest

from st_connectors.errors import NotFound, Permanent, Refused, StoreError, Temporary, Throttled, Unavailable

PLACED = {"store": "s", "operation": "upsert"}


@pytest.mark.parametrize("kind", [StoreError, Temporary, Unavailable, Throttled, Permanent, NotFound, Refused])
def test_the_status_is_an_attribute_and_not_part_of_the_message(kind):
    """An error without a status has none."""
    assert kind("full", **PLACED).status is None

    error = kind("full", status=507, **PLACED)

    assert error.status == 507
    assert str(error) == "s upsert: full"
