"""Recipes of the nodes: Maven artifacts, the folders they go to, and how the result is started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

__all__ = ["RECIPES", "Artifact", "Module", "Recipe"]


@dataclass(frozen=True, slots=True)
class Artifact:
    """A Maven artifact; ``alone`` leaves its dependencies out."""

    group: str
    name: str
    version: str
    kind: str = "jar"
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Module:
    """A folder under ``modules/``: its artifacts, its plugin descriptor, and its security policy in ``config/``."""

    name: str
    artifacts: tuple[Artifact, ...]
    descriptor: Mapping[str, str]
    policy: str | None = None


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a node is assembled and started.

    ``java`` is the lowest and the highest major version of Java that runs it. ``launcher`` names a file of ``java/``
    that is compiled for it if the engine's own main class cannot be used. In ``flags`` and ``settings``, ``{home}``
    stands for the folder of the run.
    """

    engine: str
    version: str
    java: tuple[int, int]
    lib: tuple[Artifact, ...]
    modules: tuple[Module, ...]
    plugins: tuple[Artifact, ...]
    main: str
    flags: tuple[str, ...]
    settings: Mapping[str, str]
    launcher: str | None = None
    config: str = field(default="elasticsearch.yml")

    @property
    def title(self) -> str:
        """The engine and its version, as used in folders and messages."""
        return f"{self.engine.partition('-')[0]}-{self.version}"


_COMMON_SETTINGS = {
    "cluster.name": "st-connectors",
    "node.name": "node",
    "discovery.type": "single-node",
    "network.host": "127.0.0.1",
    "transport.port": "0",
    # The port that the system chose is written to logs/http.ports.
    "node.portsfile": "true",
    # A nearly full disk must not make indices read-only during a test.
    "cluster.routing.allocation.disk.threshold_enabled": "false",
}


def _opensearch_module(
    version: str,
    name: str,
    classname: str,
    *,
    artifact: str | None = None,
    extends: str = "",
    policy: str | None = None,
) -> Module:
    descriptor = {
        "description": name,
        "version": version,
        "name": name,
        "classname": classname,
        "java.version": "11",
        "opensearch.version": version,
        "custom.foldername": "",
        "extended.plugins": extends,
        "has.native.controller": "false",
    }
    return Module(name, (Artifact("org.opensearch.plugin", artifact or name, version),), descriptor, policy)


def _opensearch(version: str) -> Recipe:
    module = partial(_opensearch_module, version)
    plugins = ("opensearch-job-scheduler", "opensearch-knn", "neural-search", "opensearch-ml-plugin")
    return Recipe(
        engine="opensearch",
        version=version,
        # Java 24 removed the security manager that this version of OpenSearch installs.
        java=(17, 23),
        lib=(
            Artifact("org.opensearch", "opensearch", version),
            Artifact("org.opensearch", "opensearch-plugin-classloader", version),
            # The POM of the server omits it, but the server does not start without it.
            Artifact("org.apache.logging.log4j", "log4j-core", "2.21.0"),
        ),
        modules=(
            module(
                "transport-netty4",
                "org.opensearch.transport.Netty4Plugin",
                artifact="transport-netty4-client",
                policy="netty.policy",
            ),
            module("mapper-extras", "org.opensearch.index.mapper.MapperExtrasPlugin", artifact="mapper-extras-client"),
            module("analysis-common", "org.opensearch.analysis.common.CommonAnalysisPlugin"),
            module("lang-painless", "org.opensearch.painless.PainlessPlugin", policy="painless.policy"),
            module("ingest-common", "org.opensearch.ingest.common.IngestCommonPlugin", extends="lang-painless"),
            module("reindex", "org.opensearch.index.reindex.ReindexPlugin", artifact="reindex-client"),
            module("parent-join", "org.opensearch.join.ParentJoinPlugin", artifact="parent-join-client"),
        ),
        plugins=tuple(Artifact("org.opensearch.plugin", name, f"{version}.0", "zip", alone=True) for name in plugins),
        main="org.opensearch.bootstrap.OpenSearch",
        flags=(
            "-Djava.security.manager=allow",
            "-Djna.nosys=true",
            "-Dopensearch.path.home={home}",
            "-Dopensearch.path.conf={home}/config",
            "-Dopensearch.distribution.type=tar",
            "-Dopensearch.bundled_jdk=false",
            "-Dio.netty.noUnsafe=true",
        ),
        settings={
            **_COMMON_SETTINGS,
            "bootstrap.system_call_filter": "false",
            # The encoders of tests run on the loopback address, on any port, and on this node only.
            "plugins.ml_commons.only_run_on_ml_node": "false",
            "plugins.ml_commons.native_memory_threshold": "100",
            "plugins.ml_commons.connector.private_ip_enabled": "true",
            "plugins.ml_commons.trusted_connector_endpoints_regex": r'["^http://127\\.0\\.0\\.1:.*$"]',
        },
        config="opensearch.yml",
    )


def _elasticsearch(engine: str, version: str, java: tuple[int, int], flags: tuple[str, ...] = ()) -> Recipe:
    def module(name: str, classname: str, *artifacts: Artifact) -> Module:
        descriptor = {
            "description": name,
            "version": version,
            "name": name,
            "classname": classname,
            "java.version": "17",
            "elasticsearch.version": version,
        }
        return Module(name, artifacts, descriptor)

    def alone(coordinates: str) -> Artifact:
        group, name, number = coordinates.split(":")
        return Artifact(group, name, number, alone=True)

    return Recipe(
        engine=engine,
        version=version,
        java=java,
        lib=(Artifact("org.elasticsearch", "elasticsearch", version),),
        modules=(
            module(
                "transport-netty4",
                "org.elasticsearch.transport.netty4.Netty4Plugin",
                Artifact("org.elasticsearch.plugin", "transport-netty4", version),
            ),
            module(
                "x-pack-core",
                # Registers the sparse_vector query without licence checks.
                "org.elasticsearch.xpack.core.XPackClientPlugin",
                # Its POM names an artifact that Maven Central lacks, so what it needs is listed here.
                alone(f"org.elasticsearch.plugin:x-pack-core:{version}"),
                alone(f"org.elasticsearch:elasticsearch-ssl-config:{version}"),
                alone("commons-codec:commons-codec:1.15"),
                alone("commons-logging:commons-logging:1.2"),
                alone("org.apache.httpcomponents:httpclient:4.5.14"),
                alone("org.apache.httpcomponents:httpcore:4.4.16"),
                alone("org.apache.httpcomponents:httpcore-nio:4.4.16"),
                alone("org.apache.httpcomponents:httpasyncclient:4.1.5"),
                alone("com.unboundid:unboundid-ldapsdk:7.0.3"),
                alone("org.slf4j:slf4j-api:2.0.17"),
            ),
        ),
        plugins=(),
        main="ElasticsearchNode",
        flags=(
            "--add-modules=jdk.incubator.vector",
            "--add-opens=java.base/java.io=ALL-UNNAMED",
            "-Des.path.home={home}",
            "-Des.distribution.type=tar",
            *flags,
        ),
        settings=_COMMON_SETTINGS,
        launcher="ElasticsearchNode.java",
    )


RECIPES: Mapping[str, Recipe] = {
    recipe.engine: recipe
    for recipe in (
        _opensearch("2.19.1"),
        _elasticsearch("elasticsearch-9", "9.5.3", (21, 99), ("--enable-native-access=ALL-UNNAMED",)),
        _elasticsearch("elasticsearch-8", "8.19.21", (17, 25)),
    )
}
"""Recipes by the name of the engine; two major versions of Elasticsearch are two engines."""
