"""Servers in containers, by pinned tags, if a Docker engine responds. testcontainers is imported only to start one."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

__all__ = ["IMAGES", "Image", "container", "unavailable"]

_STARTUP_S = 300
"""Seconds; a pulled image starts quickly, but Milvus takes a minute on a small machine."""


@dataclass(frozen=True, slots=True)
class Image:
    """A server's image: its port, the path of its health check, and its settings."""

    name: str
    port: int
    health: str
    health_port: int | None = None
    more_ports: tuple[int, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    command: str | None = None


_JAVA_NODE = {"discovery.type": "single-node", "cluster.routing.allocation.disk.threshold_enabled": "false"}
_ELASTICSEARCH = {**_JAVA_NODE, "xpack.security.enabled": "false", "ES_JAVA_OPTS": "-Xms1g -Xmx1g"}
_OPENSEARCH = {
    **_JAVA_NODE,
    "DISABLE_SECURITY_PLUGIN": "true",
    "DISABLE_INSTALL_DEMO_CONFIG": "true",
    "OPENSEARCH_JAVA_OPTS": "-Xms1g -Xmx1g",
    "plugins.ml_commons.only_run_on_ml_node": "false",
}
_MILVUS = {
    "DEPLOY_MODE": "STANDALONE",
    "ETCD_USE_EMBED": "true",
    "ETCD_DATA_DIR": "/var/lib/milvus/etcd",
    "COMMON_STORAGETYPE": "local",
}

_HEALTH = "/_cluster/health?wait_for_status=yellow&timeout=5s"


def _milvus(tag: str) -> Image:
    return Image(f"milvusdb/milvus:{tag}", 19530, "/healthz", 9091, (), _MILVUS, "milvus run standalone")


IMAGES: Mapping[str, Image] = {
    "qdrant": Image("qdrant/qdrant:v1.19.1", 6333, "/readyz", more_ports=(6334,)),
    "elasticsearch-9": Image("elasticsearch:9.5.3", 9200, _HEALTH, environment=_ELASTICSEARCH),
    "elasticsearch-8": Image("elasticsearch:8.19.21", 9200, _HEALTH, environment=_ELASTICSEARCH),
    "opensearch": Image("opensearchproject/opensearch:2.19.1", 9200, _HEALTH, environment=_OPENSEARCH),
    "opensearch-3": Image("opensearchproject/opensearch:3.8.0", 9200, _HEALTH, environment=_OPENSEARCH),
    "milvus": _milvus("v2.6.24"),
    "milvus-3": _milvus("v3.0.0"),
}
"""Recipes by the name of the engine."""


def unavailable() -> str | None:
    """Return why no container can be started, or None if one can."""
    if importlib.util.find_spec("testcontainers") is None:
        return "testcontainers is not installed"
    program = shutil.which("docker")
    if program is None:
        return "no docker on PATH"
    try:
        done = subprocess.run([program, "info"], capture_output=True, check=False, timeout=10)
    except subprocess.TimeoutExpired:
        return "the Docker engine does not answer"
    return "no Docker engine answers" if done.returncode else None


@contextlib.contextmanager
def container(engine: str) -> Iterator[str]:
    """Yield the address of a server that runs in a container."""
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.wait_strategies import HttpWaitStrategy

    image = IMAGES[engine]
    health = HttpWaitStrategy(image.health_port or image.port, image.health).with_startup_timeout(_STARTUP_S)
    ports = {image.port, image.health_port or image.port, *image.more_ports}
    server = DockerContainer(image.name).with_exposed_ports(*sorted(ports)).waiting_for(health)
    for name, value in image.environment.items():
        server.with_env(name, value)
    if image.command:
        server.with_command(image.command)
    with server as started:
        yield f"http://{started.get_container_host_ip()}:{started.get_exposed_port(image.port)}"
