"""A server of models in the request shapes of many APIs; needs the extra ``server``.

``settings``   models, limits, keys and TLS
``shapes``     the protocols: pure functions from requests to calls, and from results to answers
``batching``   the queue of a model; ``waiting`` is its order
``models``     calls as tasks of models; ``service`` chooses the model of a call
``app``        the HTTP application; ``running`` runs it
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from st_connectors.lazy import lazy_attributes

if TYPE_CHECKING:
    from st_connectors.server.running import serve, serving
    from st_connectors.server.settings import Limits, ModelSettings, Settings, Tls, read_settings

__all__ = ["Limits", "ModelSettings", "Settings", "Tls", "read_settings", "serve", "serving"]

__getattr__ = lazy_attributes(
    __name__,
    {
        "Limits": "settings",
        "ModelSettings": "settings",
        "Settings": "settings",
        "Tls": "settings",
        "read_settings": "settings",
        "serve": "running",
        "serving": "running",
    },
    extra="server",
    drivers=("fastapi", "starlette", "uvicorn", "pydantic"),
)
