"""``st-connectors evaluate``."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
)
from st_connectors.cli.output import PARTIAL, print_error, print_json, print_line
from st_connectors.cli.run_specs import Places, default_variants, parse_run, variants_of

if TYPE_CHECKING:
    from st_connectors.evaluation import Evaluation, Judged, Variant
    from st_connectors.evaluation.gate import Change
    from st_connectors.evaluation.sweep import Sweep
    from st_connectors.index import Index

__all__ = ["evaluate"]

_MEASURES = "ndcg@10, recall@100, rr@10, map@100 and success@5"


def evaluate(
    address: Address,
    collection: Collection,
    *,
    queries: Queries = None,
    qrels: Annotated[
        str | None, typer.Option(metavar="FILE", help="Judgements in the format of TREC or BEIR, or a table.")
    ] = None,
    data: BeirFolder = None,
    split: Annotated[str, typer.Option(metavar="NAME", help="With --data: the split of the judgements.")] = "test",
    synthetic: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            help="Without judgements: queries derived from documents, by title, first-sentence or FILE.py.",
        ),
    ] = None,
    count: Annotated[int, typer.Option(min=2, help="With --synthetic: the number of queries.")] = 200,
    run: Annotated[
        list[str] | None,
        typer.Option(
            "--run",
            metavar="NAME: KEY=VALUE ...",
            help="A way of searching, by mode, fusion, depth, effort, rerank (yes or a model), where and min_score; in "
            "and collection name another collection. Repeat to compare several with the first one.",
        ),
    ] = None,
    measure: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME@DEPTH", help=f"Measure (default: {_MEASURES}). Repeat for several."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Documents of a ranking (default: the largest depth of the measures).")
    ] = None,
    sweep: Annotated[
        bool,
        typer.Option("--sweep", help="Select the fusion by half of the queries, and measure all on the other half."),
    ] = False,
    worst: Annotated[int, typer.Option(min=0, help="Show the queries that went worst, and which leg lost them.")] = 0,
    save: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Write evaluation.json, plot.svg and the runs to a folder.")
    ] = None,
    workbench: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER", help="Write queries and judgements for OpenSearch's Search Relevance Workbench."
        ),
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(metavar="FILE", help="Compare with an evaluation.json; status 1 if one is worse.")
    ] = None,
    fail_under: Annotated[
        list[str] | None,
        typer.Option(metavar="MEASURE=VALUE", help="Status 1 if the first run is below, such as ndcg@10=0.42."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of intervals, tests, samples and halves.")] = 0,
    dense: MovedDense = None,
    sparse: MovedSparse = None,
    reranker: Annotated[str | None, typer.Option(metavar="MODEL", help="The model of rerank=yes.")] = None,
    adopt: Adopt = None,
    filterable: AdoptedFilterable = None,
    trust_model: TrustModel = False,
    backend: CollectionBackend = None,
    dtype: CollectionDtype = None,
    as_json: AsJson = False,
) -> None:
    """Measure how well a collection answers judged queries, and compare ways of searching it.

    Without --run, the search of the collection as it is comes first, then each of its legs. Each value has a 95 %
    interval over the queries; each further run is compared with the first one by a paired test. Without judgements,
    --synthetic derives known-item queries from documents, which say how well documents are found again.

    Example: st-connectors evaluate --in qdrant+edge:library --collection books --queries queries.jsonl --qrels
    qrels.tsv --worst 10

    Example: st-connectors evaluate --in qdrant+edge:library --collection books --data cranfield --run "now:" --run
    "equal: fusion=weighted:0.5,0.5" --fail-under ndcg@10=0.42
    """
    from st_connectors.evaluation import DEFAULT_MEASURES, gate
    from st_connectors.evaluation import evaluate as evaluate_variants
    from st_connectors.evaluation.workbench import NAME_LENGTH, write_workbench
    from st_connectors.models import ModelOptions

    limits, before = gate.parse_limits(fail_under or ()), None if baseline is None else gate.read_baseline(baseline)
    specs = [parse_run(text) for text in run or ()]
    _check_sources(queries, qrels, data, synthetic)
    _check_folders({"--save": save, "--workbench": workbench})
    chosen = list(dict.fromkeys([*(measure or DEFAULT_MEASURES), *limits]))
    models = Models(dense, sparse, reranker, ModelOptions(backend, dtype))
    places = Places(address, collection, models, adopt, filterable or (), trust_model)
    with ExitStack() as stack:
        index = stack.enter_context(open_index(address, collection, models, adopt, filterable or (), trust=trust_model))
        judged = _judged(index, queries, qrels, data, split, synthetic, count, seed)
        _check_outputs(judged, save, before, None if workbench is None else collection[:NAME_LENGTH])
        variants = variants_of(specs, index, places, stack) if specs else default_variants(index)
        swept = _sweep(index, judged, chosen, limit, seed) if sweep else None
        evaluation = evaluate_variants(
            variants,
            judged if swept is None else swept.rest,
            measures=chosen,
            limit=limit,
            seed=seed,
            progress=_progress(),
        )
        if swept is not None:
            evaluation = _with_run(evaluation, swept, chosen, seed)
        report = _report(evaluation, variants[0], worst, chosen[0], swept)
    compared = [] if before is None else gate.changes(evaluation, before)
    failed = gate.failures(evaluation.results[0], limits)
    elsewhere = [] if before is None else gate.other_collections(evaluation, before)
    report["notes"] += elsewhere
    if as_json:
        print_json(report | {"changes": [_change_json(each) for each in compared], "failures": failed})
    else:
        _print(evaluation, report, compared, chosen[0])
        for line in elsewhere:
            print_line(f"note: {line}")
    if save is not None:
        _save(evaluation, Path(save))
    if workbench is not None:
        write_workbench(judged, workbench, collection[:NAME_LENGTH])
    for line in failed:
        print_error(f"st-connectors: {line}")
    if failed or any(each.is_worse for each in compared):
        raise typer.Exit(PARTIAL)


def _check_outputs(judged: Judged, save: str | None, before: Mapping[str, Any] | None, query_set: str | None) -> None:
    """Raise ValueError before the first search for what could not be saved or compared after the last one."""
    from st_connectors.evaluation import gate, workbench
    from st_connectors.evaluation.runs import check_run_ids

    if save is not None:
        check_run_ids(judged)
    if before is not None:
        gate.check_baseline(judged, before)
    if query_set is not None:
        workbench.query_set(judged, query_set)


def _check_folders(folders: Mapping[str, str | None]) -> None:
    """Raise ValueError for a file where a folder is to be written, before anything is searched for."""
    for option, folder in folders.items():
        if folder is not None and Path(folder).exists() and not Path(folder).is_dir():
            raise ValueError(f"{option} {folder} is a file; pass a folder")


def _check_sources(queries: str | None, qrels: str | None, data: str | None, synthetic: str | None) -> None:
    """Raise ValueError unless the queries come from exactly one place."""
    if (queries is None) != (qrels is None):
        raise ValueError("--queries and --qrels belong together: pass both")
    if sum(each is not None for each in (queries, data, synthetic)) != 1:
        raise ValueError("pass --queries and --qrels, or --data FOLDER, or --synthetic KIND, and only one of them")


def _judged(  # noqa: PLR0917 - the options of the command
    index: Index,
    queries: str | None,
    qrels: str | None,
    data: str | None,
    split: str,
    synthetic: str | None,
    count: int,
    seed: int,
) -> Judged:
    from st_connectors.evaluation import known_items, read_folder, read_judged
    from st_connectors.evaluation.judged import check_documents

    if synthetic is not None:
        return known_items(index, synthetic, count=count, seed=seed)
    found = read_folder(data, split) if data is not None else read_judged(queries or "", qrels or "")
    return check_documents(found, index)


def _sweep(index: Index, judged: Judged, measures: Sequence[str], limit: int | None, seed: int) -> Sweep:
    from st_connectors.evaluation import parse_measure
    from st_connectors.evaluation.sweep import sweep

    depth = limit or max(100, *(parse_measure(name).depth for name in measures))
    return sweep(index, judged, parse_measure(measures[0]), limit=depth, seed=seed, progress=_progress())


def _with_run(evaluation: Evaluation, swept: Sweep, measures: Sequence[str], seed: int) -> Evaluation:
    """Return an evaluation with the run of the swept fusion behind the others."""
    from st_connectors.evaluation.evaluating import evaluate_runs

    runs = [*(each.run for each in evaluation.results), swept.run]
    return evaluate_runs(runs, evaluation.judged, measures=measures, seed=seed)


def _progress() -> Any:
    """Return a function that shows on a terminal how many queries have been searched for, None elsewhere."""
    if not sys.stderr.isatty():
        return None

    def show(name: str, done: int, total: int) -> None:
        end = "\n" if done == total else ""
        sys.stderr.write(f"\r{name}: {done} of {total} queries{end}")

    return show


def _report(evaluation: Evaluation, first: Variant, worst: int, measure: str, swept: Sweep | None) -> dict[str, Any]:
    """Return the evaluation as JSON values, with the worst queries of the first run and the selected fusion."""
    from st_connectors.evaluation import parse_measure, worst_queries
    from st_connectors.schema import fusion_to_json

    report = evaluation.to_json()
    if worst:
        name = parse_measure(measure).name
        found = worst_queries(first, evaluation.results[0], evaluation.judged, measure=name, count=worst)
        report["worst"] = [each.to_json() for each in found]
    if swept is not None:
        report["swept"] = {
            "fusion": fusion_to_json(swept.best),
            "development": swept.value,
            "tried": [{"fusion": fusion_to_json(each), "value": value} for each, value in swept.tried],
        }
    return report


def _print(evaluation: Evaluation, report: dict[str, Any], compared: Sequence[Change], measure: str) -> None:
    from st_connectors.evaluation import parse_measure
    from st_connectors.evaluation.report import bars, table, worst_lines

    name = parse_measure(measure).name
    runs = evaluation.results
    head = f"{name}, and the difference from {runs[0].name} [95 % interval]:" if len(runs) > 1 else f"{name}:"
    for line in [*table(evaluation), "", head, *bars(evaluation, name)]:
        print_line(line)
    if "swept" in report:
        print_line(
            f"selected by {name} of the other half, {report['swept']['development']:.3f}: {report['swept']['fusion']}"
        )
    for line in worst_lines(report.get("worst", ()), name):
        print_line(line)
    for each in compared:
        verdict = "worse" if each.is_worse else "not significant" if each.p >= 0.05 else "better"
        print_line(
            f"{each.run} {each.measure}: {each.before:.3f} before, {each.now:.3f} now, p {each.p:.3f}, {verdict}"
        )


def _change_json(change: Change) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(change) | {"worse": change.is_worse}


def _save(evaluation: Evaluation, folder: Path) -> None:
    """Write the evaluation, its plot, and a file for each run."""
    import json

    from st_connectors.evaluation import write_run
    from st_connectors.evaluation.report import plot

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "evaluation.json").write_text(json.dumps(evaluation.to_json(), indent=1) + "\n", encoding="utf-8")
    (folder / "plot.svg").write_text(plot(evaluation), encoding="utf-8")
    for each in evaluation.results:
        name = "".join(character if character.isalnum() or character in "-._" else "_" for character in each.name)
        write_run(each.run, folder / f"{name}.trec")
