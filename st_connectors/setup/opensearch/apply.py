"""Create what a plan lists and the cluster lacks, and take it back."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from st_connectors.errors import Refused, SchemaMismatch
from st_connectors.setup.base import Done, Report
from st_connectors.setup.opensearch.cluster import Cluster, Existing
from st_connectors.setup.opensearch.permissions import (
    Change,
    is_private,
    needed_settings,
    record_name,
    restoring,
    settings_request,
)
from st_connectors.setup.opensearch.plan import Kind, Names, Step, Version
from st_connectors.setup.options import Options
from st_connectors.setup.requests import KEY, Request, resolve

__all__ = ["apply", "count_documents", "remove", "request_for_settings"]

_DEPLOYED_WITHIN_S = 60.0
_POLL_S = 0.2
_DETACHED = {"index.default_pipeline": "_none", "index.search.default_pipeline": "_none"}


def request_for_settings(cluster: Cluster, name: str, address: str, version: Version) -> Request | None:
    """Return the request that lets the cluster call an encoder server, with a record of the change; None if it may.

    An unreadable setting counts as permitted: creating the connector then says what is forbidden.
    """
    effective, persistent = cluster.settings()
    if not effective:
        return None
    needed = needed_settings(address, effective, version, is_private=is_private(address))
    if not needed:
        return None
    change = Change({setting: persistent.get(setting) for setting in needed}, needed)
    return settings_request({**needed, record_name(name): change.to_text()})


def apply(cluster: Cluster, steps: Sequence[Step], options: Options, key: str | None, report: Report) -> None:
    """Create what is missing, and replace what has changed.

    Nothing is changed if an object of the same name was created by another program, or if the index has other fields;
    both raise SchemaMismatch.
    """
    for step in steps:
        _check_index(step, cluster.existing(step.kind, step.name, options.name))
    known = {f"${KEY}": key or ""}
    for step in steps:
        existing, body = cluster.existing(step.kind, step.name, options.name), resolve(step.request.body, known)
        known[step.reference], outcome = _take(cluster, step, existing, body, options.name)
        report(Done(step.kind, step.name, outcome))


def _check_index(step: Step, existing: Existing | None) -> None:
    """Raise SchemaMismatch if an index of this set-up has other fields than the models need."""
    if step.kind is not Kind.INDEX or existing is None:
        return
    fields = existing.body["mappings"].get("properties", {})
    for name, wanted in step.request.body["mappings"]["properties"].items():
        if (problem := _field_problem(name, wanted, fields.get(name))) is not None:
            raise SchemaMismatch(
                f"the index {step.name!r} {problem}: choose another --collection and copy the documents into it with "
                f"--backfill {step.name}",
                store="opensearch",
                operation="setup",
            )


def _field_problem(name: str, wanted: Mapping[str, Any], stored: Mapping[str, Any] | None) -> str | None:
    if stored is None:
        return f"has no field {name!r}"
    if stored.get("type") != wanted["type"]:
        return f"has a field {name!r} of type {stored.get('type')}, and {wanted['type']} is needed"
    if stored.get("dimension") != wanted.get("dimension"):
        return f"has vectors of dimension {stored['dimension']} in {name!r}, and the model has {wanted['dimension']}"
    spaces = [(body.get("method") or {}).get("space_type") for body in (stored, wanted)]
    if spaces[0] != spaces[1]:
        return f"compares {name!r} by {spaces[0]}, and the model by {spaces[1]}"
    return None


def _take(cluster: Cluster, step: Step, existing: Existing | None, body: Mapping[str, Any], of: str) -> tuple[str, str]:
    """Bring one object into its state, and return its id and what happened."""
    if existing is not None and _is_same(step, existing, body):
        return existing.id, "unchanged"
    if existing is not None and step.kind is Kind.INDEX:
        settings = {f"index.{name}": value for name, value in _pipelines_of(body).items()}
        cluster.send("PUT", f"/{step.name}/_settings", settings)
        return existing.id, "attached to its pipelines"
    if existing is not None and step.kind is Kind.MODEL and existing.description == step.description:
        cluster.send("POST", f"/_plugins/_ml/models/{existing.id}/_deploy", {})
        _wait_until_deployed(cluster, step.name, existing.id)
        return existing.id, "deployed again"
    if existing is not None and step.kind in (Kind.CONNECTOR, Kind.MODEL):
        _delete_with_users(cluster, step, existing, of)
    identity = cluster.id_of(step, cluster.send(step.request.method, step.request.path, body))
    if step.kind is Kind.MODEL:
        _wait_until_deployed(cluster, step.name, identity)
    return identity, "created" if existing is None else "replaced"


def _is_same(step: Step, existing: Existing, body: Mapping[str, Any]) -> bool:
    match step.kind:
        case Kind.GROUP:
            return True
        case Kind.INDEX:
            settings = existing.body["settings"]["index"]
            return _pipelines_of(body) == {
                name: value
                for name, value in {
                    "default_pipeline": settings.get("default_pipeline"),
                    "search.default_pipeline": settings.get("search", {}).get("default_pipeline"),
                }.items()
                if value not in (None, "_none")
            }
        case Kind.INGEST | Kind.SEARCH:
            return dict(existing.body) == dict(body)
        case Kind.CONNECTOR:
            return existing.description == step.description
        case Kind.MODEL:
            # ML Commons 2.19 also writes DEPLOYING or DEPLOY_FAILED, and corrects it within 10 seconds, if its
            # synchronization job asked the nodes for their models while one was being deployed.
            is_deployed = existing.body.get("model_state") in ("DEPLOYED", "PARTIALLY_DEPLOYED")
            return existing.description == step.description and is_deployed


def _pipelines_of(body: Mapping[str, Any]) -> dict[str, str]:
    """Return the pipelines in the settings of a body that creates an index."""
    index = body["settings"]["index"]
    found = {"search.default_pipeline": index["search"]["default_pipeline"]}
    return found | ({"default_pipeline": index["default_pipeline"]} if "default_pipeline" in index else {})


def _delete_with_users(cluster: Cluster, step: Step, existing: Existing, of: str) -> None:
    """Delete an object, and before a connector the model that uses it, which has the same name."""
    if step.kind is Kind.CONNECTOR and (model := cluster.existing(Kind.MODEL, step.name, of)) is not None:
        cluster.delete(Kind.MODEL, model)
    cluster.delete(step.kind, existing)


def _wait_until_deployed(cluster: Cluster, name: str, identity: str) -> None:
    deadline, state = time.monotonic() + _DEPLOYED_WITHIN_S, None
    while time.monotonic() < deadline:
        state = cluster.send("GET", f"/_plugins/_ml/models/{identity}").get("model_state")
        if state == "DEPLOYED":
            return
        time.sleep(_POLL_S)
    if state == "PARTIALLY_DEPLOYED":
        return
    raise Refused(
        f"the model {name!r} was not deployed, its state is {state}: see why by GET /_plugins/_ml/models/{identity}",
        store="opensearch",
        operation="setup",
    )


def count_documents(cluster: Cluster, options: Options) -> int | None:
    """Return the number of documents in the index of a set-up; None if it has no index."""
    if cluster.existing(Kind.INDEX, options.collection, options.name) is None:
        return None
    return int(cluster.send("GET", f"/{options.collection}/_count")["count"])


def remove(cluster: Cluster, options: Options, report: Report, *, keeps_collection: bool = False) -> None:
    """Delete the objects of a set-up, and take back its change of the cluster's settings.

    Objects of other programs stay, whatever their names are. ``keeps_collection`` leaves the index with its documents,
    without pipelines.
    """
    names = Names(options.name)
    index = _ours(cluster, Kind.INDEX, options.collection, options.name)
    if index is not None and keeps_collection:
        cluster.send("PUT", f"/{options.collection}/_settings", _DETACHED)
        report(Done(Kind.INDEX, options.collection, "detached from its pipelines"))
    elif index is not None:
        cluster.delete(Kind.INDEX, index)
        report(Done(Kind.INDEX, options.collection, "removed"))
    wanted = [
        (Kind.SEARCH, names.rerank),
        (Kind.SEARCH, names.search),
        (Kind.INGEST, names.ingest),
        *((kind, name) for kind in (Kind.MODEL, Kind.CONNECTOR) for name in names.models),
        (Kind.GROUP, options.name),
    ]
    for kind, name in wanted:
        if (existing := _ours(cluster, kind, name, options.name)) is not None:
            cluster.delete(kind, existing)
            report(Done(kind, name, "removed"))
    _, persistent = cluster.settings()
    if restored := restoring(options.name, persistent):
        request = settings_request(restored)
        cluster.send(request.method, request.path, request.body)
        report(Done("change of the cluster's settings", ", ".join(sorted(restored)[1:]), "removed"))


def _ours(cluster: Cluster, kind: Kind, name: str, of: str) -> Existing | None:
    try:
        return cluster.existing(kind, name, of)
    except SchemaMismatch:
        return None
