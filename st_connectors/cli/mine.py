"""``st-connectors mine``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from st_connectors.cli.opening import Models, open_index
from st_connectors.cli.options import (
    Address,
    Adopt,
    AdoptedFilterable,
    AsJson,
    BeirFolder,
    Collection,
    CollectionBackend,
    CollectionDtype,
    MovedDense,
    MovedSparse,
    Queries,
    TrustModel,
    Where,
)
from st_connectors.cli.output import print_error, print_json, print_line

if TYPE_CHECKING:
    from st_connectors.index import Index
    from st_connectors.mining import StoreQuery
    from st_connectors.models import ModelOptions

__all__ = ["mine"]


def mine(
    address: Address,
    collection: Collection,
    *,
    out: Annotated[str, typer.Option("--out", metavar="FILE", help="JSON Lines file to write.")],
    queries: Queries = None,
    qrels: Annotated[
        str | None, typer.Option(metavar="FILE", help="Judgements, whose relevant documents are the positives.")
    ] = None,
    data: BeirFolder = None,
    split: Annotated[str, typer.Option(metavar="NAME", help="With --data: the split of the judgements.")] = "train",
    pairs: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="Pairs of texts, in JSON Lines, CSV or Parquet, in place of judgements. Repeat for several files.",
        ),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(metavar="QUERY,POSITIVE", help="With --pairs: the columns (default: the first two)."),
    ] = None,
    mode: Annotated[
        str | None, typer.Option(help="dense, sparse, text or hybrid (default: hybrid, or the only leg).")
    ] = None,
    where: Where = None,
    negatives: Annotated[int, typer.Option(min=1, help="Negatives of each query.")] = 3,
    range_min: Annotated[int, typer.Option(min=0, help="Skip this number of first candidates.")] = 0,
    range_max: Annotated[int | None, typer.Option(min=1, help="The last rank of a negative.")] = None,
    max_score: Annotated[float | None, typer.Option(help="Leave out candidates with a higher score.")] = None,
    min_score: Annotated[float | None, typer.Option(help="Leave out candidates with a lower score.")] = None,
    absolute_margin: Annotated[
        float | None, typer.Option(help="With --reranker: how far a negative scores below the lowest positive.")
    ] = None,
    relative_margin: Annotated[
        float | None, typer.Option(help="The same as a share of the positive's score, such as 0.05.")
    ] = None,
    max_quantile: Annotated[
        float | None, typer.Option(help="Leave out candidates above this quantile of the query's candidates.")
    ] = None,
    sampling: Annotated[str, typer.Option(help="top or random.")] = "top",
    near_duplicates: Annotated[
        float,
        typer.Option(min=0, max=1, help="Leave out candidates that share more of a positive's words; 0 for none."),
    ] = 0.8,
    reranker: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Score candidates and positives with this cross-encoder.")
    ] = None,
    form: Annotated[str, typer.Option(help="triplet, n-tuple, labeled-pair or labeled-list.")] = "triplet",
    scores: Annotated[bool, typer.Option("--scores", help="Write scores, in place of labels.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of random negatives.")] = 42,
    dense: MovedDense = None,
    sparse: MovedSparse = None,
    adopt: Adopt = None,
    filterable: AdoptedFilterable = None,
    trust_model: TrustModel = False,
    backend: CollectionBackend = None,
    dtype: CollectionDtype = None,
    as_json: AsJson = False,
) -> None:
    """Mine hard negatives: documents that a collection returns for a query, and that are not relevant for it.

    The rows are read by st-connectors train and by the trainers of st_core. Relevant documents, their windows and their
    near-duplicates are no negatives. To finish an interrupted mining, run the same command again.

    Example: st-connectors mine --in qdrant+edge:library --collection books --queries queries.jsonl --qrels qrels.tsv
    --out negatives.jsonl --mode sparse
    """
    from st_connectors.mining import Mining, mine_to_file
    from st_connectors.models import ModelOptions
    from st_core.mining import Selection

    selection = Selection(
        negatives,
        range_min,
        range_max,
        max_score,
        min_score,
        absolute_margin,
        relative_margin,
        max_quantile,
        cast("Any", sampling),
        near_duplicates or None,
    )
    mining = Mining(selection, mode, where, form, scores, seed)
    _check_sources(queries, qrels, data, pairs)
    options = ModelOptions(backend, dtype)
    with open_index(
        address, collection, Models(dense, sparse, None, options), adopt, filterable or (), trust=trust_model
    ) as index:
        found = _queries(index, queries, qrels, data, split, pairs, columns)
        model = None if reranker is None else _reranker(reranker, options)
        numbers = mine_to_file(index, found, Path(out), mining, reranker=model, progress=_progress())
    if as_json:
        print_json(asdict(numbers) | {"file": out})
        return
    print_line(f"{numbers.rows} rows with {numbers.negatives} negatives of {numbers.queries} queries in {out}")
    if numbers.short:
        print_error(f"note: {numbers.short} queries have fewer than {negatives} negatives; raise --range-max")


def _check_sources(queries: str | None, qrels: str | None, data: str | None, pairs: Sequence[str] | None) -> None:
    """Raise ValueError unless the queries come from exactly one place."""
    if (queries is None) != (qrels is None):
        raise ValueError("--queries and --qrels belong together: pass both")
    if sum(map(bool, (queries, data, pairs))) != 1:
        raise ValueError("pass --queries and --qrels, or --data FOLDER, or --pairs FILE, and only one of them")


def _queries(  # noqa: PLR0917 - the options of the command
    index: Index,
    queries: str | None,
    qrels: str | None,
    data: str | None,
    split: str,
    pairs: Sequence[str] | None,
    columns: str | None,
) -> list[StoreQuery]:
    from st_connectors.evaluation import read_folder, read_judged
    from st_connectors.evaluation.judged import check_documents
    from st_connectors.mining import judged_queries, pair_queries

    if pairs:
        from st_core.mining.pairs import columns_of_pairs
        from st_core.rows import rows_of_files

        rows = rows_of_files(list(pairs))
        anchor, positive = _chosen(columns)
        return pair_queries(rows, *columns_of_pairs(list(rows[0]), anchor, positive))
    judged = read_folder(data, split) if data is not None else read_judged(queries or "", qrels or "")
    judged = check_documents(judged, index)
    for note in judged.notes:
        print_error(f"note: {note}")
    return judged_queries(judged, index)


def _chosen(columns: str | None) -> tuple[str | None, str | None]:
    if columns is None:
        return None, None
    anchor, comma, positive = columns.partition(",")
    if not (anchor and comma and positive):
        raise ValueError(f"--columns {columns!r}: expected QUERY,POSITIVE, such as question,answer")
    return anchor, positive


def _reranker(name: str, options: ModelOptions) -> Any:
    from st_connectors.models import DEFAULT_BACKEND, ModelOptions
    from st_connectors.schemas import lazy_reranker

    lazy = lazy_reranker(name, ModelOptions(options.backend or DEFAULT_BACKEND, options.dtype))
    return None if lazy is None else lazy.load()


def _progress() -> Any:
    """Return a function that shows on a terminal how many queries have been searched for, None elsewhere."""
    if not sys.stderr.isatty():
        return None

    def show(done: int, total: int) -> None:
        sys.stderr.write(f"\r{done} of {total} queries{chr(10) if done == total else ''}")

    return show
