"""Which settings of the cluster forbid it to call an encoder server, and the request that changes them."""

from __future__ import annotations

import ipaddress
import json
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from st_connectors.setup.opensearch.plan import Version
from st_connectors.setup.requests import Request

__all__ = [
    "Change",
    "changes_of",
    "is_private",
    "needed_settings",
    "pattern_of",
    "record_name",
    "restoring",
    "settings_request",
]

_RECORDS = "cluster.metadata.st_connectors."
_ML = "plugins.ml_commons."
PRIVATE = f"{_ML}connector.private_ip_enabled"
TRUSTED = f"{_ML}trusted_connector_endpoints_regex"
TRUSTED_PRIVATE = f"{_ML}trusted_connector_private_endpoints_regex"
_TRUSTS_PRIVATE_SINCE = (3, 7)


def needed_settings(
    address: str, current: Mapping[str, Any], version: Version, *, is_private: bool
) -> dict[str, bool | list[str]]:
    """Return the settings that have to change so that connectors may call an encoder server; empty if none has to.

    ``current`` has the effective settings by their full names. The lists keep their entries, because a new list
    replaces the default one.
    """
    needed: dict[str, bool | list[str]] = {}
    if is_private and str(current.get(PRIVATE, "false")) != "true":
        needed[PRIVATE] = True
    lists = [TRUSTED]
    if is_private and version >= _TRUSTS_PRIVATE_SINCE:
        lists.append(TRUSTED_PRIVATE)
    for name in lists:
        entries = _entries(current.get(name))
        if not any(_matches(entry, address) for entry in entries):
            needed[name] = [*entries, pattern_of(address)]
    return needed


def pattern_of(address: str) -> str:
    """Return the pattern that matches all routes of a server."""
    escaped = re.sub(r"([.+?^$*(){}|\[\]])", r"\\\1", address)
    return f"^{escaped}/.*$"


def _entries(value: Any) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list) else []


def _matches(pattern: str, address: str) -> bool:
    try:
        return re.fullmatch(pattern, f"{address}/opensearch/dense") is not None
    except re.error:  # a pattern of Java that Python does not have
        return False


def settings_request(settings: Mapping[str, Any]) -> Request:
    """Return the request that changes settings of the cluster, null for the default."""
    return Request("PUT", "/_cluster/settings", {"persistent": dict(settings)})


@dataclass(frozen=True, slots=True)
class Change:
    """Settings that a set-up has changed: their persistent values before, None for the default, and after."""

    before: Mapping[str, Any]
    after: Mapping[str, Any]

    def to_text(self) -> str:
        """Return the change as the text that is stored in the cluster's metadata."""
        return json.dumps({"before": self.before, "after": self.after}, sort_keys=True)

    @classmethod
    def from_text(cls, text: str) -> Change:
        """Return the change that ``to_text`` wrote."""
        value = json.loads(text)
        return cls(value["before"], value["after"])


def record_name(name: str) -> str:
    """Return the name of the setting in which a set-up records its change; OpenSearch reserves its prefix for users."""
    return f"{_RECORDS}{name}"


def changes_of(persistent: Mapping[str, Any]) -> dict[str, Change]:
    """Return the recorded changes by the name of their set-up."""
    found = {name.removeprefix(_RECORDS): text for name, text in persistent.items() if name.startswith(_RECORDS)}
    return {name: Change.from_text(text) for name, text in found.items()}


def restoring(name: str, persistent: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that take back the change of a set-up; empty if it changed none.

    Values that were changed since, and those that other set-ups need, stay. A list loses the entries that the set-up
    added.
    """
    changes = changes_of(persistent)
    if name not in changes:
        return {}
    change = changes.pop(name)
    restored: dict[str, Any] = {record_name(name): None}
    for setting, after in change.after.items():
        now, before = persistent.get(setting), change.before[setting]
        needed = [other.after[setting] for other in changes.values() if setting in other.after]
        if isinstance(after, list):
            restored |= _without(setting, now, before, after, needed)
        elif str(now) == str(after).lower() and not needed:
            restored[setting] = before
    return restored


def _without(setting: str, now: Any, before: Any, after: list[str], needed: list[list[str]]) -> dict[str, Any]:
    """Return a list without its last entry, which the set-up added, unless another set-up added the same one."""
    if now is None or any(after[-1] in entries for entries in needed):
        return {}
    return {setting: before if now == after else [entry for entry in now if entry != after[-1]]}


def is_private(address: str) -> bool:
    """Return whether the host of an address is in a private network, or has no address that this machine knows."""
    host = urlsplit(address).hostname or ""
    try:
        found = {entry[4][0] for entry in socket.getaddrinfo(host, None)}
    except OSError:
        return True
    return any(not ipaddress.ip_address(str(each).partition("%")[0]).is_global for each in found)
