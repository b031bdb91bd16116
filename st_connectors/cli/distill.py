"""``st-connectors distill``."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from st_connectors.cli.options import AsJson
from st_connectors.cli.output import FAILURE, print_error, print_json, print_line
from st_connectors.cli.score import columns_of, teacher_of
from st_connectors.cli.training import check_checkpoints, show_curves, show_log, stopped_after, store_options
from st_core.errors import TrainingInterrupted
from st_core.home import expand_home

__all__ = ["distill"]


class Kind(StrEnum):
    """Kinds of distilled models."""

    STATIC = "static"
    DIMENSIONS = "dimensions"
    LAYERS = "layers"
    RERANKER = "reranker"
    INFERENCE_FREE = "inference-free"


@dataclass(frozen=True, slots=True)
class Options:
    """The options of a distillation."""

    kind: Kind
    data: Sequence[str]
    teachers: Sequence[str]
    base: str | None
    texts: Sequence[str]
    columns: Sequence[str] | None
    dimensions: int
    layers: str | None
    vocabulary: str | None
    document_terms: int
    held_out: float
    epochs: float
    batch: int
    learning_rate: float
    seed: int
    folder: Path
    resume: bool

    @property
    def teacher(self) -> str:
        """The only teacher; ValueError for none and for several."""
        if len(self.teachers) != 1:
            raise ValueError(
                f"{self.kind.value} needs one teacher, got {len(self.teachers)}; pass --teacher MODEL once"
            )
        return self.teachers[0]

    def identity(self) -> dict[str, Any]:
        """Return what must be the same when a training is resumed, beside what its trainer compares."""
        names = ("teachers", "base", "layers", "vocabulary", "document_terms", "held_out")
        return {"kind": self.kind.value, **{name: getattr(self, name) for name in names}}


Distilled = tuple[Any, dict[str, Any]]
"""A model, and what is reported of it."""

_ONLY_OF: Mapping[str, tuple[Kind, ...]] = {
    "data": (Kind.RERANKER, Kind.INFERENCE_FREE),
    "base": (Kind.RERANKER, Kind.INFERENCE_FREE),
    "layers": (Kind.LAYERS, Kind.RERANKER, Kind.INFERENCE_FREE),
    "vocabulary": (Kind.LAYERS,),
    "texts": (Kind.STATIC, Kind.DIMENSIONS, Kind.LAYERS, Kind.INFERENCE_FREE),
    "dimensions": (Kind.STATIC, Kind.DIMENSIONS),
    "document_terms": (Kind.INFERENCE_FREE,),
    **dict.fromkeys(("epochs", "batch", "learning_rate", "resume"), (Kind.LAYERS, Kind.RERANKER, Kind.INFERENCE_FREE)),
}
"""Options that only some kinds read."""


def distill(
    context: typer.Context,
    kind: Annotated[
        Kind, typer.Argument(metavar="KIND", help="static, dimensions, layers, reranker or inference-free.")
    ],
    data: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[DATA...]",
            help="Reranker and inference-free: rows of a query and documents, with or without scores.",
        ),
    ] = None,
    *,
    out: Annotated[str, typer.Option("--out", metavar="FOLDER", help="Folder of the new model.")],
    teacher: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL",
            help="The teacher: a folder or a Hub name. Inference-free: reranker=, dense= or sparse=MODEL, repeated.",
        ),
    ] = None,
    base: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Reranker and inference-free: the model that is trained.")
    ] = None,
    texts: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="Texts of the domain: lines of .txt, or rows of JSON Lines, CSV, TSV or Parquet. Repeat for more.",
        ),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(metavar="NAME,...", help="Columns of the texts, or of query and documents (default: all)."),
    ] = None,
    dimensions: Annotated[int, typer.Option(min=1, help="Static and dimensions: width of the vectors.")] = 256,
    layers: Annotated[
        str | None,
        typer.Option(metavar="N|0,2,...", help="Layers of the new transformer: their numbers from 0, or how many."),
    ] = None,
    vocabulary: Annotated[
        str | None,
        typer.Option(
            metavar="N|FILE", help="Layers: size of the vocabulary, the tokens of the texts, or a file of tokens."
        ),
    ] = None,
    document_terms: Annotated[int, typer.Option(min=1, help="Inference-free: active terms of documents.")] = 200,
    held_out: Annotated[
        float,
        typer.Option(
            min=0,
            max=0.9,
            help="Share of the texts or rows that is not trained on, to compare the result with the teacher.",
        ),
    ] = 0.1,
    epochs: Annotated[float, typer.Option(min=0, help="Passes over the data; 0 trains nothing.")] = 1.0,
    batch: Annotated[int, typer.Option(min=1, help="Rows of a step.")] = 32,
    learning_rate: Annotated[float, typer.Option(min=0, help="The highest learning rate.")] = 5e-5,
    seed: Annotated[
        int, typer.Option(help="Seed of what is held out, of a new head, of the order of rows and of dropout.")
    ] = 42,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the last checkpoint in the folder.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a smaller or faster model from one or more teachers.

    static makes one vector per token, which needs no torch; with texts it is fitted to the teacher's vectors of them.
    dimensions adds a linear layer with the directions in which the teacher's vectors of the texts vary most.
    layers takes some layers of a dense teacher, prunes its vocabulary, and trains the result on the teacher's vectors.
    reranker trains a cross-encoder on the scores of another. inference-free trains a sparse encoder, whose queries need
    no transformer, on the scores of several teachers. What is trained has curves.svg, log.jsonl and checkpoints in its
    folder; Ctrl-C stops after the current step, with a checkpoint and the command that resumes.

    Example: st-connectors distill static --teacher sentence-transformers/all-MiniLM-L6-v2 --texts docs.jsonl --out
    small

    Example: st-connectors distill dimensions --teacher my-model --texts docs.jsonl --dimensions 128 --out my-model-128

    Example: st-connectors distill layers --teacher my-model --texts docs.jsonl --layers 3 --vocabulary 8000 --out fast

    Example: st-connectors distill reranker negatives.jsonl --teacher my-reranker --base my-reranker --layers 2 --out
    fast

    Example: st-connectors distill inference-free negatives.jsonl --teacher dense=my-model --teacher
    sparse=builtin:sparse --base my-model --out my-sparse
    """
    options = Options(
        kind,
        data or (),
        teacher or (),
        base,
        texts or (),
        _listed(columns),
        dimensions,
        layers,
        vocabulary,
        document_terms,
        held_out,
        epochs,
        batch,
        learning_rate,
        seed,
        Path(expand_home(out)),
        resume,
    )
    _check(options, context)
    try:
        model, result = _DISTILLERS[kind](options)
    except TrainingInterrupted as stopped:
        raise stopped_after(stopped.step) from None
    except (FloatingPointError, RuntimeError) as error:
        print_error(f"st-connectors: {error}")
        raise typer.Exit(FAILURE) from error
    model.save_pretrained(str(options.folder))
    if as_json:
        print_json(
            {"folder": str(options.folder), "kind": kind.value}
            | {name: _finite(value) for name, value in result.items()}
        )
        return
    log = options.folder / "log.jsonl"
    if log.exists():
        show_curves([json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()])
    print_line(f"{options.folder}: {', '.join(_shown(name, value) for name, value in result.items())}")


def _finite(value: Any) -> Any:
    """Return a value for JSON, which has no numbers that are not finite."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _shown(name: str, value: Any) -> str:
    return f"{name.replace('_', ' ')} {f'{value:.4g}' if isinstance(value, float) else value}"


def _check(options: Options, context: typer.Context) -> None:
    """Raise ValueError for options that the kind does not read, and for a folder that cannot be written or resumed."""
    kind, out = options.kind, options.folder
    for name, kinds in _ONLY_OF.items():
        source = context.get_parameter_source(name)
        if source is not None and source.name != "DEFAULT" and kind not in kinds:
            option = "DATA" if name == "data" else f"--{name.replace('_', '-')}"
            raise ValueError(f"{option} is for {', '.join(kinds)}, not for {kind.value}; leave it out")
    is_trained = kind in _ONLY_OF["resume"]
    if is_trained:
        import_module("st_core.training")  # names the extra if it is missing
    has_training = is_trained and options.epochs > 0
    if options.resume and not has_training:
        raise ValueError("--epochs 0 trains nothing that --resume could continue; leave out one")
    if has_training:
        check_checkpoints(out / "checkpoints", options.identity(), resume=options.resume)
    if options.resume or not out.exists():
        return
    own = {"checkpoints"} if has_training else set()
    if not out.is_dir() or any(path.name not in own for path in out.iterdir()):
        raise ValueError(f"{out} is not empty; delete it, or choose another --out")


def _listed(text: str | None) -> list[str] | None:
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


def _texts(options: Options) -> tuple[list[str], list[str]]:
    """Return the texts to learn from and those held out; raise ValueError if there are none."""
    from st_core.distilling.texts import split_held_out, texts_of_files

    if not options.texts:
        raise ValueError(f"{options.kind.value} needs texts of the domain; pass --texts FILE")
    return split_held_out(texts_of_files(options.texts, options.columns), options.held_out, options.seed)


def _training(options: Options) -> Any:
    from st_core.distilling.students import Training
    from st_core.training.callbacks import LogCallback, StopCallback

    if options.epochs > 0:
        store_options(options.folder / "checkpoints", options.identity())
    return Training(
        options.epochs,
        options.batch,
        options.learning_rate,
        seed=options.seed,
        callbacks=(LogCallback(show_log),),
        folder=options.folder,
        resume=options.resume,
        stop=StopCallback(lambda: print_error("stopping after this step; press Ctrl-C again to end at once")),
    )


def _seed(options: Options) -> None:
    """Seed what is drawn at random before the training: a new head."""
    from transformers import set_seed

    set_seed(options.seed)


def _agreement(teacher: Any, model: Any, texts: Sequence[str]) -> dict[str, Any]:
    """Return how well the similarities of held-out texts agree with those of the teacher; nothing for too few texts."""
    from st_core.distilling.vectors import similarity_correlation

    if len(texts) < 3:
        return {}
    return {
        "held_out_texts": len(texts),
        "agreement": similarity_correlation(teacher.encode(texts), model.encode(texts)),
    }


def _static(options: Options) -> Distilled:
    from st_core import SentenceTransformer
    from st_core.distilling.static import static_model

    teacher = SentenceTransformer(options.teacher)
    train, test = _texts(options) if options.texts else ([], [])
    print_error(f"encoding the vocabulary and {len(train):,} texts with the teacher")
    model = static_model(teacher, train, options.dimensions)
    return model, {"dimensions": options.dimensions, "texts": len(train), **_agreement(teacher, model, test)}


def _dimensions(options: Options) -> Distilled:
    from st_core import SentenceTransformer
    from st_core.distilling.dimensions import with_dimensions

    train, test = _texts(options)
    teacher = SentenceTransformer(options.teacher)
    print_error(f"encoding {len(train):,} texts with the teacher")
    result = with_dimensions(teacher, train, options.dimensions)
    values = {"dimensions": options.dimensions, "texts": len(train), "explained_variance": result.explained}
    return result.model, values | _agreement(teacher, result.model, test)


def _layers(options: Options) -> Distilled:
    from st_core import SentenceTransformer
    from st_core.distilling.students import document_prompt, train_on_vectors
    from st_core.distilling.vectors import mean_cosine

    if options.layers is None and options.vocabulary is None:
        raise ValueError("layers needs --layers, --vocabulary or both")
    train, test = _texts(options)
    teacher = SentenceTransformer(options.teacher)
    student, values = _cut(teacher, options), {"texts": len(train)}
    if options.vocabulary is not None:
        student = _pruned(student, options.vocabulary, train)
        values["vocabulary"] = student.backend_tokenizer.get_vocab_size()
    prompt = document_prompt(teacher)

    def similarity() -> dict[str, float]:
        return (
            {"cosine": mean_cosine(*(each.encode(test, prompt=prompt) for each in (teacher, student)))} if test else {}
        )

    before = {f"{name}_before": value for name, value in similarity().items()}
    print_error(f"encoding {len(train):,} texts with the teacher")
    train_on_vectors(student, teacher, train, _training(options))
    return student, {**values, **before, **similarity(), **_agreement(teacher, student, test)}


def _cut(model: Any, options: Options) -> Any:
    """Return a model with the layers of ``--layers``; without the option, the model itself."""
    from st_core.distilling.layers import with_layers

    if options.layers is None:
        return model
    try:
        numbers = [int(part) for part in options.layers.split(",")]
    except ValueError:
        raise ValueError(f"--layers {options.layers!r}: expected a number, or numbers separated by commas") from None
    return with_layers(model, numbers if "," in options.layers else numbers[0])


def _pruned(model: Any, vocabulary: str, texts: Sequence[str]) -> Any:
    """Return a model with the vocabulary of ``--vocabulary``: a size, or a file with a token on each line."""
    from st_core.distilling.tokenizers import text_tokenizer
    from st_core.distilling.vocabulary import tokens_in_use, with_vocabulary

    if not vocabulary.isdecimal():
        return with_vocabulary(model, Path(vocabulary).read_text(encoding="utf-8").split())
    prompts = list(model.prompts.values())
    return with_vocabulary(model, tokens_in_use(text_tokenizer(model), texts, int(vocabulary), prompts))


class _Rows(NamedTuple):
    """Rows of a query and documents, with the names of those columns."""

    rows: list[dict[str, Any]]
    query: str
    documents: list[str]


def _rows(options: Options) -> _Rows:
    """Return the rows with the columns that are read; raise ValueError for rows that the kind cannot read."""
    from st_core.rows import LABELS, rows_of_files

    if not options.data:
        raise ValueError(f"{options.kind.value} needs rows of a query and documents; pass DATA")
    rows = rows_of_files(list(options.data))
    query, documents = columns_of(None if options.columns is None else ",".join(options.columns), rows[0])
    _check_columns(options.kind, documents, rows[0])
    if not options.teachers and not any(name in rows[0] for name in LABELS):
        raise ValueError("the rows have no scores; pass --teacher MODEL, or rows that st-connectors score has written")
    used = (query, *documents, *LABELS)
    return _Rows([{name: value for name, value in row.items() if name in used} for row in rows], query, documents)


def _scored(options: Options, read: _Rows, teachers: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """Return scored rows to learn from and those held out; without teachers, the rows have scores already."""
    from st_core.distilling.texts import split_held_out
    from st_core.mining.scoring import scored_rows

    rows = read.rows
    if teachers:
        print_error(f"scoring the documents of {len(rows):,} rows")
        scaling = "min-max" if len(teachers) > 1 else "none"
        rows = list(scored_rows(rows, teachers, read.query, read.documents, scaling))
    train, test = split_held_out([str(place) for place in range(len(rows))], options.held_out, options.seed)
    return [rows[int(place)] for place in train], [rows[int(place)] for place in test]


def _check_columns(kind: Kind, documents: Sequence[str], row: Mapping[str, Any]) -> None:
    """Raise ValueError for columns that a kind does not read, before teachers score them."""
    lists = [name for name in documents if not isinstance(row[name], str)]
    if lists:
        raise ValueError(
            f"column {lists[0]!r} has no texts; pass a column for each document, as mine --form n-tuple writes them"
        )
    if kind is Kind.INFERENCE_FREE and len(documents) < 2:
        raise ValueError(
            "an ensemble orders two or more documents of each query: pass rows with a positive and negatives, such as "
            "those that mine writes"
        )


def _reranker(options: Options) -> Distilled:
    from st_core import CrossEncoder, ModelUnsupported
    from st_core.distilling.students import rank_correlation, train_on_scores

    if options.base is None:
        raise ValueError("reranker needs a model to train; pass --base MODEL")
    rows = _rows(options)
    _seed(options)
    try:
        base = CrossEncoder(options.base)
    except ModelUnsupported as error:
        if "init_head=True" not in str(error):
            raise
        base = CrossEncoder(options.base, num_labels=1)
    student = _cut(base, options)
    train, test = _scored(options, rows, [CrossEncoder(options.teacher)] if options.teachers else [])
    before = {"rank_correlation_before": rank_correlation(student, test)} if test else {}
    loss = train_on_scores(student, train, _training(options))
    after = {"rank_correlation": rank_correlation(student, test)} if test else {}
    return student, {"rows": len(train), "held_out_rows": len(test), "loss": loss, **before, **after}


def _inference_free(options: Options) -> Distilled:
    from st_core import SparseEncoder
    from st_core.distilling.inference_free import inference_free_model, train_on_ensemble
    from st_core.distilling.students import rank_correlation
    from st_core.distilling.texts import texts_of_files

    if options.base is None:
        raise ValueError("inference-free needs a model for documents; pass --base MODEL")
    rows = _rows(options)
    _seed(options)
    base = _cut(SparseEncoder(options.base, init_head=True), options)
    train, test = _scored(options, rows, [teacher_of(each, "torch", None) for each in options.teachers])
    own = [row[name] for row in train for name in rows.documents]
    texts = texts_of_files(options.texts) if options.texts else list(dict.fromkeys(own))
    student = inference_free_model(base, texts)
    before = {"rank_correlation_before": rank_correlation(student, test)} if test else {}
    train_on_ensemble(student, train, _training(options), options.document_terms)
    after = {"rank_correlation": rank_correlation(student, test)} if test else {}
    terms = student.sparsity(student.encode_document(own[:1000]))["active_dims"]
    return student, {"rows": len(train), "held_out_rows": len(test), "document_terms": terms, **before, **after}


_DISTILLERS: Mapping[Kind, Callable[[Options], Distilled]] = {
    Kind.STATIC: _static,
    Kind.DIMENSIONS: _dimensions,
    Kind.LAYERS: _layers,
    Kind.RERANKER: _reranker,
    Kind.INFERENCE_FREE: _inference_free,
}
