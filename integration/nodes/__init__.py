"""Real engines for tests and for use without Docker: OpenSearch and Elasticsearch assembled from Maven Central.

By hand, from the root of the repository::

    python -m integration.nodes opensearch --port 9200   # runs until Ctrl-C
    python -m integration.nodes assemble                 # only downloads and caches all three

In fixtures, one call decides where an engine comes from: an address in the environment (``ST_OPENSEARCH_URL``,
``ST_ELASTICSEARCH_URL``, ``ST_QDRANT_URL``, ``ST_MILVUS_URL``), a container if a Docker engine responds, a node
assembled here if Maven and a JDK are installed, or nothing with the reason::

    @pytest.fixture(scope="session")
    def opensearch() -> Iterator[str]:
        match find("opensearch"):
            case Missing(engine, reason) if required(engine):
                pytest.fail(f"ST_REQUIRE names {engine}: {reason}")
            case Missing(engine, reason):
                pytest.skip(f"{engine}: {reason}")
            case Found() as found:
                with found.open() as url:
                    yield url

The engines are ``opensearch``, ``opensearch-3``, ``elasticsearch-9`` (also ``elasticsearch``), ``elasticsearch-8``,
``qdrant``, ``milvus`` and ``milvus-3``. All but ``opensearch`` and the two versions of Elasticsearch are available by
address or container only. ``node(engine)`` is the assembled node without the choice. Assembled nodes are cached in
``~/.cache/st-connectors/nodes``, or in ``ST_NODES_CACHE``; after a change of its recipe a node is assembled again. Each
run has its own folder, ports and data, so that runs do not collide, and ends with the process that started it. Started
by root, nodes run as ``nobody``.

The assembled Elasticsearch lacks what Maven Central lacks: ``rank_features``, ``_delete_by_query``,
``_update_by_query``, ``_reindex``, painless, common ingest processors, ``_inference``, and the ``rrf`` and ``linear``
retrievers. The k-NN plugin of the assembled OpenSearch has no native faiss, and a document with a faiss vector ends the
node: use the engine ``lucene``.
"""

from integration.nodes.assemble import AssemblyError
from integration.nodes.choose import ENGINES, Found, Missing, find, node, required
from integration.nodes.run import StartError

__all__ = ["ENGINES", "AssemblyError", "Found", "Missing", "StartError", "find", "node", "required"]
