"""``st-connectors search``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from st_connectors.cli.opening import Models, open_index
from st_connectors.cli.options import (
    FUSIONS,
    Address,
    Adopt,
    AdoptedFilterable,
    AsJson,
    Collection,
    CollectionBackend,
    CollectionDtype,
    MovedDense,
    MovedSparse,
    TrustModel,
    Where,
    parse_fusion,
)
from st_connectors.cli.output import print_error, print_json
from st_connectors.cli.queries import OutputFormat, Query, batches, print_results, read_queries
from st_connectors.cli.results import print_result

if TYPE_CHECKING:
    from st_connectors.index import Index

__all__ = ["search"]


def search(
    address: Address,
    collection: Collection,
    query: Annotated[str | None, typer.Argument(metavar="QUERY", help="Text to search for.")] = None,
    *,
    queries: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Search for the queries of a file: JSON lines with id and text, or id TAB text."
        ),
    ] = None,
    output: Annotated[
        OutputFormat | None,
        typer.Option(help="With --queries: print a TREC run (default), or one JSON object per query."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of hits.")] = 10,
    offset: Annotated[int, typer.Option(min=0, help="Number of hits to skip.")] = 0,
    min_score: Annotated[float | None, typer.Option(metavar="SCORE", help="Omit hits with a lower score.")] = None,
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
        bool,
        typer.Option(
            "--explain", help="Show how each leg ranks, rank and score in each leg, and the terms that matched."
        ),
    ] = False,
    fold: Annotated[bool, typer.Option("--fold", help="Return a split document once, by its best window.")] = False,
    dense: MovedDense = None,
    sparse: MovedSparse = None,
    adopt: Adopt = None,
    filterable: AdoptedFilterable = None,
    shorten: Annotated[
        bool,
        typer.Option(
            "--shorten/--no-shorten",
            help="Leave out query terms beyond the number that the store allows, or refuse such a query.",
        ),
    ] = True,
    trust_model: TrustModel = False,
    backend: CollectionBackend = None,
    dtype: CollectionDtype = None,
    as_json: AsJson = False,
) -> None:
    """Search a collection with a text query, or with the queries of a file.

    --queries reads a query per line: a JSON object with id and text, or an id and a text separated by a tab. The output
    is then a TREC run, or one JSON object per query. The scale of --min-score is that of the printed scores.

    Models run on the backend and in the type that the collection records. Another --backend is used with a warning;
    another --dtype is an error unless --trust-model is set, except for rerankers, which accept any.

    Example: st-connectors search "remove a folder" --in qdrant+edge:demo-index --collection python-docs --limit 3

    Example: st-connectors search "fishing on the ocean" --in qdrant+edge:library --collection books --dense
    ./moved/minilm --backend openvino
    """
    from st_connectors.models import ModelOptions
    from st_connectors.schemas import stored_reranker

    if (query is None) == (queries is None):
        raise ValueError("pass a query, or a file of queries with --queries, and not both")
    if output is not None and (queries is None or as_json):
        raise ValueError("--output is for --queries, and --json is --output jsonl: pass only one of them")
    batch = None if queries is None else read_queries(queries)
    form = OutputFormat.JSONL if as_json or batch is None else output or OutputFormat.TREC
    models = Models(dense, sparse, reranker, ModelOptions(backend, dtype))
    with open_index(address, collection, models, adopt, filterable or (), trust=trust_model) as index:
        if rerank and stored_reranker(index.schema, reranker, ModelOptions(backend, dtype)) is None:
            raise ValueError(
                "the collection records no reranker; pass one with --reranker MODEL, such as builtin:rerank"
            )
        options: dict[str, Any] = {
            "limit": limit,
            "offset": offset,
            "min_score": min_score,
            "where": where,
            "mode": mode,
            "fusion": parse_fusion(fusion),
            "depth": depth,
            "rerank": rerank or reranker is not None,
            "explain": explain,
            "fold": fold,
            "shorten": shorten,
            "highlight": form is OutputFormat.JSONL,
        }
        if batch is not None:
            _search_many(index, batch, options, form)
            return
        result = index.search(query or "", **options)
    for note in result.notes:
        print_error(f"note: {note}")
    if as_json:
        print_json(result.to_json())
    else:
        print_result(result, text_key=index.text_key, first=offset + 1)


def _search_many(index: Index, queries: Sequence[Query], options: Mapping[str, Any], form: OutputFormat) -> None:
    """Search for queries batch by batch, and print the results of each batch."""
    for batch in batches(queries):
        results = index.search_many([query.text for query in batch], **options)
        for query, result in zip(batch, results, strict=True):
            for note in result.notes:
                print_error(f"note: query {query.id!r}: {note}")
        print_results(batch, results, form, offset=options["offset"])
