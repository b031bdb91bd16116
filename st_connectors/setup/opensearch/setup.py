"""The set-up of OpenSearch as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import urlencode

from st_connectors._lucene.client import Connection
from st_connectors.errors import Refused
from st_connectors.opensearch.client import open_connection
from st_connectors.plugin import Address
from st_connectors.setup.base import Done, Report
from st_connectors.setup.comparing import Finding
from st_connectors.setup.encoder import Encoder
from st_connectors.setup.fill import by_reindex, by_scan
from st_connectors.setup.filled import Filled
from st_connectors.setup.opensearch.apply import apply, count_documents, remove, request_for_settings
from st_connectors.setup.opensearch.check import check
from st_connectors.setup.opensearch.cluster import Cluster
from st_connectors.setup.opensearch.plan import Names, Step, Version, plan, search_body
from st_connectors.setup.options import Options
from st_connectors.setup.requests import Request
from st_connectors.setup.stores import Wish

__all__ = ["OpenSearchSetUp", "open_setup"]


@dataclass(frozen=True)
class OpenSearchSetUp:
    """Connectors, remote models, pipelines and an index on one cluster.

    ``local`` is the address of the encoder server as seen from here, and ``key`` its key. ``allows_settings`` permits
    changing settings of the cluster.
    """

    connection: Connection
    options: Options
    encoder: Encoder
    local: str
    key: str | None = None
    allows_settings: bool = False

    @property
    def _cluster(self) -> Cluster:
        return Cluster(self.connection)

    @cached_property
    def _version(self) -> Version:
        return self._cluster.version()

    @cached_property
    def _settings(self) -> Request | None:
        return request_for_settings(self._cluster, self.options.name, self.encoder.address, self._version)

    @cached_property
    def _steps(self) -> tuple[Step, ...]:
        return plan(self.options, self.encoder, self._version)

    def requests(self) -> Sequence[Request]:
        """Return the requests, the change of settings first if there is one."""
        steps = [step.request for step in self._steps]
        return steps if self._settings is None else [self._settings, *steps]

    def notes(self) -> Sequence[str]:
        """Return what has not been run."""
        return () if self._version < (3, 0) else ("the requests for OpenSearch 3 have not been run on a server",)

    def apply(self, report: Report) -> None:
        """Create what is missing; raise Refused before anything if settings of the cluster forbid it."""
        steps, settings = self._steps, self._settings
        if settings is not None:
            if not self.allows_settings:
                raise Refused(_forbidden(settings), store="opensearch", operation="setup")
            self._cluster.send(settings.method, settings.path, settings.body)
            report(Done("settings of the cluster", ", ".join(_names_of(settings)), "changed"))
        apply(self._cluster, steps, self.options, self.key, report)

    def count(self) -> int | None:
        """Return the number of documents in the index; None if there is none."""
        return count_documents(self._cluster, self.options)

    def remove(self, report: Report, *, keeps_collection: bool) -> None:
        """Delete what the set-up created."""
        remove(self._cluster, self.options, report, keeps_collection=keeps_collection)

    def check(self) -> Iterator[Finding]:
        """Yield how vectors of documents and queries differ from those of the library, and whether a search works."""
        return check(self._cluster, self.options, self.encoder, self.local, self.key)

    def fill(self, source: str, *, by_scan: bool) -> Filled:
        """Copy the documents of another index through the pipeline."""
        return _FILLS[by_scan](self.connection, source, self.options.collection)

    def example(self) -> Sequence[Request]:
        """Return requests that store a document and search."""
        names, collection = Names(self.options.name), self.options.collection
        options = {} if self.encoder.reranker is None else {"search_pipeline": names.rerank}
        query = f"?{urlencode(options)}" if options else ""
        return (
            Request("PUT", f"/{collection}/_doc/1?refresh=true", {self.options.text: "copy a directory tree"}),
            Request("POST", f"/{collection}/_search{query}", search_body(self.options, self.encoder, "copy a folder")),
        )

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()


_FILLS = {False: by_reindex, True: by_scan}


def _names_of(request: Request) -> list[str]:
    return [name for name in request.body["persistent"] if not name.startswith("cluster.metadata.")]


def _forbidden(request: Request) -> str:
    """Return what to do about settings that forbid the cluster to call the encoder server."""
    return (
        f"the cluster may not call the encoder server: {', '.join(_names_of(request))} must change; add "
        "--allow-settings to let this command do it, or see the request with --dry-run"
    )


def open_setup(address: Address, wish: Wish) -> OpenSearchSetUp:
    """Return the set-up of OpenSearch; nothing is sent."""
    connection = open_connection(address, None)
    return OpenSearchSetUp(connection, wish.options, wish.encoder, wish.local, wish.key, wish.allows_settings)
