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
    query: Annotated[str, typer.Argument(metavar="QUERY", help="Text to search for.")],
    *,
    address: Address,
    collection: Collection,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of hits.")] = 10,
    offset: Annotated[int, typer.Option(min=0, help="Number of hits to skip.")] = 0,
    where: Where = None,
    mode: Annotated[
        str | None, typer.Option(help="dense, sparse, text or hybrid (default: hybrid, or the only leg).")
    ] = None,
    fusion: Annotated[
        str | None,
        typer.Option(metavar="METHOD", help=f"{FUSIONS} (default: the collection's own)."),
    ] = None,
    depth: Annotated[int, typer.Option(min=1, help="Candidates per leg, and candidates to rerank.")] = 100,
    rerank: Annotated[
        bool, typer.Option("--rerank", help="Rerank the candidates with the collection's reranker.")
    ] = False,
    reranker: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Rerank the candidates with this model.")
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show rank and score in each leg, and the terms that matched.")
    ] = False,
    fold: Annotated[bool, typer.Option("--fold", help="Return a split document once, by its best window.")] = False,
    trust_model: TrustModel = False,
    backend: Backend = "torch",
    dtype: CollectionDtype = None,
    as_json: AsJson = False,
) -> None:
    """Search a collection with a text query.

    A --dtype other than the one recorded in the collection is an error unless --trust-model is set; rerankers accept
    any.

    Example: st-connectors search "remove a folder" --in qdrant+edge:demo-index --collection python-docs --limit 3

    Example: st-connectors search "fishing on the ocean" --in qdrant+edge:library --collection books --backend openvino
    """
    from st_connectors.index import Index
    from st_connectors.models import ModelOptions
    from st_connectors.schemas import stored_reranker

    with Index.open(
        address, collection=collection, reranker=reranker, trust_model=trust_model, backend=backend, dtype=dtype
    ) as index:
        if rerank and stored_reranker(index.schema, reranker, ModelOptions(backend, dtype)) is None:
            raise ValueError("the collection records no reranker; pass one with --reranker MODEL")
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
