"""What a shape offers: routes, each with a function from a request to calls, and from results to the answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from st_connectors.server.calls import Call, Result, Role
from st_connectors.server.shapes.errors import Style
from st_connectors.server.shapes.fields import Fields
from st_core.protocols import ModelKind

__all__ = ["ApiRequest", "Catalog", "Route", "Translation", "Write", "always"]

_ROLES: Mapping[str, Role] = {
    **dict.fromkeys(("query", "search_query", "search", "retrieval.query", "internal_search"), Role.QUERY),
    **dict.fromkeys(
        ("document", "passage", "search_document", "ingest", "update", "retrieval.passage", "internal_ingest"),
        Role.DOCUMENT,
    ),
}

Write: TypeAlias = Callable[[Sequence[Result]], Any]
"""A function from the results of all calls, in order, to the answer: JSON values, with arrays for lists of numbers."""

Catalog: TypeAlias = Mapping[str, ModelKind]
"""The kinds of the models by their names, aliases too, in the order of the settings."""


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """One request: the JSON of its body, the parameters of its query string, and the models that are served.

    ``names`` are those of the models without aliases. ``time`` is that of the arrival, in seconds since 1970.
    """

    body: Any
    query: Mapping[str, str] = field(default_factory=dict)
    catalog: Catalog = field(default_factory=dict)
    names: tuple[str, ...] = ()
    request_id: str = ""
    time: int = 0

    @property
    def fields(self) -> Fields:
        """The fields of the body; raises Fault for a body that is not an object."""
        return Fields(self.body)

    def model(self, name: str = "model") -> str | None:
        """Return the model of the request: that of the body, else ``?model=``, else None."""
        return self.fields.text(name) or self.model_of_query

    @property
    def model_of_query(self) -> str | None:
        """The value of ``?model=``."""
        return self.query.get("model") or None

    def kind(self, name: str | None) -> ModelKind | None:
        """Return the kind of a model; without a name, that of the first model.

        None if there is no such model: the call to it fails, with the names of those that exist.
        """
        return next(iter(self.catalog.values()), None) if name is None else self.catalog.get(name)

    def role(self) -> Role | None:
        """Return what texts are used as: ``input_type`` or ``task`` of the body, else ``?input_type=``, else None.

        The words of all protocols are understood; others, such as "clustering", mean neither queries nor documents.
        """
        fields = Fields(self.body) if isinstance(self.body, Mapping) else Fields({})
        word = fields.text("input_type") or fields.text("task") or self.query.get("input_type") or ""
        return _ROLES.get(word.lower())


@dataclass(frozen=True, slots=True)
class Translation:
    """A request as calls of models, and the function that writes the answer."""

    calls: tuple[Call, ...]
    write: Write


@dataclass(frozen=True, slots=True)
class Route:
    """A path, how its requests are read, and the form of its errors.

    ``style`` is the form of errors for a body; None stands for a body that is not JSON. ``example`` is a request for
    the OpenAPI document. ``key_field`` is a field of the body that may contain the API key.
    """

    path: str
    read: Callable[[ApiRequest], Translation]
    style: Callable[[Any], Style]
    summary: str
    example: Any
    tag: str
    key_field: str | None = None


def always(style: Style) -> Callable[[Any], Style]:
    """Return the function for a path whose errors have one form."""
    return lambda _body: style
