"""Spans of OpenTelemetry, if its API is installed; without an SDK and an exporter in the process they cost nothing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

__all__ = ["add_attributes", "span"]

span: Callable[[str], AbstractContextManager[Any]]
"""Return the span of one request to a route."""

try:
    from opentelemetry import trace
except ImportError:

    def _no_span(_route: str) -> AbstractContextManager[Any]:
        return nullcontext()

    def add_attributes(**attributes: str | float) -> None:
        """Add attributes to the current span."""

    span = _no_span
else:

    def _span(route: str) -> AbstractContextManager[Any]:
        tracer = trace.get_tracer("st_connectors.server")
        return tracer.start_as_current_span(
            f"POST {route}", kind=trace.SpanKind.SERVER, attributes={"http.route": route}
        )

    def add_attributes(**attributes: str | float) -> None:
        """Add attributes to the current span, such as ``st_tokens``, which becomes "st.tokens"."""
        trace.get_current_span().set_attributes(
            {name.replace("_", ".", 1): value for name, value in attributes.items()}
        )

    span = _span
