"""``st-connectors search``."""

from __future__ import annotations

from typing import Annotated

import typer

from st_connectors.cli.options import (
    FUSIONS,
    Address,
    AsJson,
    Backend,
    Collection,
    CollectionDtype,
    TrustModel,
    Where,
    parse_fusion,
)
from st_connectors.cli.output import print_json, print_result

__all__ = ["search"]


def search(
    query: Annotated[str, typer.Argument(metavar="QUERY", help="The question, in words.")],
    *,
    address: Address,
    collection: Collection,
    limit: Annotated[int, typer.Option(min=1, help="How many hits.")] = 10,
    offset: Annotated[int, typer.Option(min=0, help="How many hits to skip.")] = 0,
    where: Where = None,
    mode: Annotated[
        str | None, typer.Option(help="dense, sparse, text or hybrid; hybrid where there are several legs.")
    ] = None,
    fusion: Annotated[
        str | None,
        typer.Option(metavar="METHOD", help=f"{FUSIONS}; the collection's own if not given."),
    ] = None,
    depth: Annotated[int, typer.Option(min=1, help="Candidates of each leg, and of the reranker.")] = 100,
    rerank: Annotated[
        bool, typer.Option("--rerank", help="Let the collection's reranker order the candidates.")
    ] = False,
    reranker: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Let this reranker order the candidates.")
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say what each leg found and which terms matched.")
    ] = False,
    fold: Annotated[bool, typer.Option("--fold", help="Give a document that was split only once.")] = False,
    trust_model: TrustModel = False,
    backend: Backend = "torch",
    dtype: CollectionDtype = None,
    as_json: AsJson = False,
) -> None:
    """Find what answers a question in words.

    A --dtype that the collection was not made in is refused, unless --trust-model says that the vectors are alike; a reranker runs in any.

    Example: st-connectors search "remove a folder" --in qdrant+edge:demo-index --collection python-docs --limit 3

    Example: st-connectors search "fishing on the ocean" --in qdrant+edge:library --collection books --backend openvino
    """
    from st_connectors.index import Index
    from st_connectors.models import Running
    from st_connectors.schemas import reranker_of

    with Index.open(
        address, collection=collection, reranker=reranker, trust_model=trust_model, backend=backend, dtype=dtype
    ) as index:
        if rerank and reranker_of(index.schema, reranker, Running(backend, dtype)) is None:
            raise ValueError("this index has no reranker: name one by --reranker MODEL")
        result = index.search(
            query,
            limit=limit,
            offset=offset,
            where=where,
            mode=mode,
            fusion=parse_fusion(fusion),
            depth=depth,
            rerank=rerank or reranker is not None,
            explain=explain,
            fold=fold,
        )
    if as_json:
        print_json(result.to_json())
    else:
        print_result(result)
