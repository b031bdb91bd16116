"""An HTTP proxy in front of Elasticsearch or OpenSearch that adds vectors to documents; needs the extra ``server``.

``settings``   addresses, limits, and rules for indices of other programs
``peers``      one HTTP/1.1 connection; ``upstream`` contains those to the nodes
``routes``     what a request asks for; ``bulk`` and ``queries`` read its body
``encoding``   models that compute the texts of many requests together
``targets``    what the index of a request asks for; ``documents`` adds the vectors
``answers``    answers that the gateway writes itself, in the form of the engines
``app``        the proxy; ``running`` runs it
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from st_connectors.lazy import lazy_attributes

if TYPE_CHECKING:
    from st_connectors.gateway.running import serve, serving
    from st_connectors.gateway.settings import Limits, Rule, Settings, read_settings

__all__ = ["Limits", "Rule", "Settings", "read_settings", "serve", "serving"]

__getattr__ = lazy_attributes(
    __name__,
    {
        "Limits": "settings",
        "Rule": "settings",
        "Settings": "settings",
        "read_settings": "settings",
        "serve": "running",
        "serving": "running",
    },
    extra="server",
    drivers=("h11",),
)
