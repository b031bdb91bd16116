"""What the OpenAPI document says of the routes: their parameters, bodies and answers."""

from __future__ import annotations

from typing import Any

from st_connectors.server.shapes.routes import Route

__all__ = ["NOT_READY", "described", "informing"]

_PARAMETERS = [
    {"name": name, "in": "query", "required": False, "description": description, "schema": {"type": "string"}}
    for name, description in (
        ("model", "The model, if the body does not name one"),
        ("input_type", "What the texts are used as: query or document"),
    )
]

_REFUSAL = {
    "description": "The reason, in the form of the API",
    "content": {"application/json": {"schema": {"type": "object"}}},
}

NOT_READY = {"description": "The models are not loaded, or the server is stopping"}

_REFUSALS = {"4XX": _REFUSAL, "503": _REFUSAL}


def described(route: Route) -> dict[str, Any]:
    """Return the operation of a route that answers with a model; its schema is that of the example."""
    schema = {"type": "object", "properties": {name: _schema(value) for name, value in route.example.items()}}
    return {
        "parameters": _PARAMETERS,
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": schema, "example": route.example}},
        },
        "responses": {"200": {"content": {"application/json": {}}}, **_REFUSALS},
    }


def informing(*names: str) -> dict[str, Any]:
    """Return the operation of a route that answers without a model; ``names`` are the parameters of its path."""
    parameters = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]
    return {"parameters": parameters, "responses": {"200": {"content": {"application/json": {}}}, **_REFUSALS}}


def _schema(value: Any) -> dict[str, Any]:
    """Return the JSON schema of an example."""
    match value:
        case bool():
            return {"type": "boolean"}
        case int():
            return {"type": "integer"}
        case str():
            return {"type": "string"}
        case list():
            return {"type": "array", "items": _schema(value[0])}
        case dict():
            return {"type": "object", "properties": {name: _schema(each) for name, each in value.items()}}
        case _:
            return {}
