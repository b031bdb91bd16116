"""What a cluster of OpenSearch has: its version, its settings, and the objects of a set-up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from st_connectors._lucene.client import Connection
from st_connectors.errors import Permanent, SchemaMismatch, Unsupported
from st_connectors.opensearch.server import server_from
from st_connectors.setup.opensearch.plan import META, Kind, Step, Version
from st_connectors.setup.options import is_made_by

__all__ = ["Cluster", "Existing"]

_SEARCHES = {Kind.GROUP: "model_groups", Kind.CONNECTOR: "connectors", Kind.MODEL: "models"}
_PIPELINES = {Kind.INGEST: "/_ingest/pipeline", Kind.SEARCH: "/_search/pipeline"}
_ML_PLUGINS = ("opensearch-ml", "opensearch-neural-search")


@dataclass(frozen=True, slots=True)
class Existing:
    """An object that the cluster has: its id, its description, and its body."""

    id: str
    description: str
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Cluster:
    """Requests about a cluster; only ``send`` changes anything."""

    connection: Connection

    def send(self, method: str, path: str, body: object = None) -> Any:
        """Send a request and return its parsed answer; raise a store error for any failure."""
        return self.connection.send("setup", method, path, body)

    def version(self) -> Version:
        """Return the version; raise Unsupported for another product, an older version and a missing plugin."""
        plugins = self.connection.send_optional("setup", "/_nodes/plugins")
        server = server_from(self.send("GET", "/"), plugins, None)
        if isinstance(server, str):
            raise Unsupported(server, store="opensearch", operation="setup")
        for plugin in _ML_PLUGINS:
            if server.plugins is not None and plugin not in server.plugins:
                message = f"remote models need the plugin {plugin}, which not every node of this server has: install it"
                raise Unsupported(message, store="opensearch", operation="setup")
        return server.version

    def settings(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the effective and the persistent settings by their full names; both empty if they may not be read."""
        answer = self.connection.send_optional(
            "setup", "/_cluster/settings", {"include_defaults": "true", "flat_settings": "true"}
        )
        if answer is None:
            return {}, {}
        effective = {**answer.get("defaults", {}), **answer["persistent"], **answer["transient"]}
        return effective, answer["persistent"]

    def existing(self, kind: Kind, name: str, of: str) -> Existing | None:
        """Return the object of a name that the set-up ``of`` created, None if there is no such object.

        Raises SchemaMismatch if another program created the object and the name cannot be used twice.
        """
        found = self._named(kind, name)
        ours = next((each for each in found if is_made_by(of, each.description)), None)
        if ours is None and found and kind not in (Kind.CONNECTOR, Kind.MODEL):
            hint = (
                f"choose another --collection; --backfill {name} copies its documents"
                if kind is Kind.INDEX
                else "choose another --name"
            )
            raise SchemaMismatch(
                f"the {kind} {name!r} exists and was not created by this set-up: {hint}",
                store="opensearch",
                operation="setup",
            )
        return ours

    def _named(self, kind: Kind, name: str) -> list[Existing]:
        if kind in _SEARCHES:
            return self._search(kind, name)
        path = f"/{quote(name)}" if kind is Kind.INDEX else f"{_PIPELINES[kind]}/{quote(name)}"
        return [_read(kind, own_name, body) for own_name, body in (self._get(path) or {}).items()]

    def _get(self, path: str) -> Any:
        """Return the answer of a GET request; None if there is no such object."""
        try:
            return self.send("GET", path)
        except Permanent as error:
            if error.status == 404:
                return None
            raise

    def _search(self, kind: Kind, name: str) -> list[Existing]:
        place = f"/_plugins/_ml/{_SEARCHES[kind]}"
        body = {"size": 100, "query": {"term": {"name.keyword": name}}}
        found = {hit["_id"]: hit["_source"] for hit in self.send("POST", f"{place}/_search", body)["hits"]["hits"]}
        if kind is Kind.MODEL:  # for a second, ML Commons 2.19 still finds the state that a model had before
            found = {key: model for key in found if (model := self._get(f"{place}/{quote(key)}")) is not None}
        return [Existing(key, each.get("description", ""), each) for key, each in found.items()]

    def delete(self, kind: Kind, existing: Existing) -> None:
        """Delete an object; a model is undeployed first."""
        if kind is Kind.MODEL:
            self._undeploy(existing.id)
        place = f"/_plugins/_ml/{_SEARCHES[kind]}" if kind in _SEARCHES else _PIPELINES.get(kind, "")
        self.send("DELETE", f"{place}/{quote(existing.id)}")

    def _undeploy(self, model: str) -> None:
        try:
            self.send("POST", f"/_plugins/_ml/models/{model}/_undeploy", {})
        except Permanent:  # such as one that was never deployed; deleting it says what is wrong
            return

    def id_of(self, step: Step, answer: Mapping[str, Any]) -> str:
        """Return the id in the answer to the request of a step."""
        names = {Kind.GROUP: "model_group_id", Kind.CONNECTOR: "connector_id", Kind.MODEL: "model_id"}
        return str(answer[names[step.kind]]) if step.kind in names else step.name


def _read(kind: Kind, name: str, body: Mapping[str, Any]) -> Existing:
    if kind is Kind.INDEX:
        meta = body["mappings"].get("_meta", {}).get(META, {})
        return Existing(name, meta.get("description", ""), body)
    return Existing(name, body.get("description", ""), body)
