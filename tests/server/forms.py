"""The form of refusals of each API."""

from __future__ import annotations

import json
from typing import Any

from st_connectors.server.faults import Fault, FaultKind
from st_connectors.server.shapes.errors import PLAIN
from st_connectors.server.shapes.table import ROUTES

STYLES = {route.path: route.style for route in ROUTES}


def has_form_of_api(path: str, content: bytes | None, status: int, refusal: Any) -> bool:
    """Return whether the refusal of a request has a status and the fields of the API that was called."""
    try:
        body = json.loads(content or b"")
    except (ValueError, RecursionError):
        body = None
    forms = [STYLES[path](each) if path in STYLES else PLAIN for each in (body, None)]
    return any(_fits(form, status, refusal) for form in forms)


def _fits(form: Any, status: int, refusal: Any) -> bool:
    statuses = {form.status(Fault(kind, "")) for kind in FaultKind}
    wanted = form.write(Fault(FaultKind.MALFORMED, "message", "field"), status, "id")
    return status in statuses and _names(refusal) == _names(wanted)


def _names(value: Any) -> Any:
    return {name: _names(each) for name, each in value.items()} if isinstance(value, dict) else None
