"""``st-connectors distill``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from st_connectors.cli.options import AsJson
from st_connectors.cli.output import print_error, print_json, print_line

__all__ = ["distill"]


class Kind(StrEnum):
    """Kinds of distilled models."""

    STATIC = "static"
    DIMENSIONS = "dimensions"


@dataclass(frozen=True, slots=True)
class Options:
    """The options of a distillation."""

    kind: Kind
    teacher: str
    out: Path
    texts: tuple[str, ...]
    columns: tuple[str, ...] | None
    dimensions: int
    held_out: float
    seed: int


def distill(
    kind: Annotated[Kind, typer.Argument(metavar="KIND", help="static or dimensions.")],
    *,
    teacher: Annotated[str, typer.Option(metavar="MODEL", help="The teacher: a folder or a Hub name.")],
    out: Annotated[str, typer.Option("--out", metavar="FOLDER", help="Folder of the new model.")],
    texts: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="Texts of the domain: lines of .txt, or rows of JSON Lines, CSV, TSV or Parquet. Repeat for more.",
        ),
    ] = None,
    columns: Annotated[
        str | None, typer.Option(metavar="NAME,...", help="Columns of the texts (default: all with texts).")
    ] = None,
    dimensions: Annotated[int, typer.Option(min=1, help="Static and dimensions: width of the vectors.")] = 256,
    held_out: Annotated[
        float, typer.Option(min=0, max=0.9, help="Share of the texts on which the result is compared with the teacher.")
    ] = 0.1,
    seed: Annotated[int, typer.Option(help="Seed of the texts that are held out.")] = 42,
    as_json: AsJson = False,
) -> None:
    """Make a smaller model from a teacher.

    static makes one vector per token, which needs no torch; with texts it is fitted to the teacher's vectors of them.
    dimensions adds a linear layer that keeps the directions in which the teacher's vectors of the texts vary most.

    Example: st-connectors distill static --teacher sentence-transformers/all-MiniLM-L6-v2 --texts docs.jsonl --out
    small

    Example: st-connectors distill dimensions --teacher my-model --texts docs.jsonl --dimensions 128 --out my-model-128
    """
    names = None if columns is None else tuple(part.strip() for part in columns.split(",") if part.strip())
    options = Options(kind, teacher, Path(out), tuple(texts or ()), names, dimensions, held_out, seed)
    if options.out.exists() and any(options.out.iterdir()):
        raise ValueError(f"{options.out} is not empty; delete it, or choose another --out")
    result = _MADE[kind](options)
    if as_json:
        print_json({"folder": out, "kind": kind.value, **result})
        return
    shown = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in result.items() if value is not None)
    print_line(f"{out}: {shown}")


def _texts(options: Options) -> tuple[list[str], list[str]]:
    """Return the texts to learn from and those held out; raise ValueError if there are none."""
    from st_core.distilling.texts import divided, texts_of_files

    if not options.texts:
        raise ValueError(f"{options.kind.value} needs texts of the domain; pass --texts FILE")
    return divided(texts_of_files(options.texts, options.columns), options.held_out, options.seed)


def _agreement(teacher: Any, model: Any, texts: list[str]) -> dict[str, Any]:
    """Return how well the similarities of held-out texts agree with those of the teacher, None for too few texts."""
    from st_core.distilling.vectors import agreement

    value = agreement(teacher.encode(texts), model.encode(texts)) if len(texts) > 2 else None
    return {"held_out_texts": len(texts), "agreement": value}


def _static(options: Options) -> dict[str, Any]:
    from st_core import SentenceTransformer
    from st_core.distilling.static import static_model

    train, test = _texts(options) if options.texts else ([], [])
    teacher = SentenceTransformer(options.teacher)
    print_error(f"encoding the vocabulary and {len(train):,} texts with the teacher")
    model = static_model(teacher, train, options.dimensions)
    model.save_pretrained(str(options.out))
    return {"dimensions": options.dimensions, "texts": len(train), **_agreement(teacher, model, test)}


def _dimensions(options: Options) -> dict[str, Any]:
    from st_core import SentenceTransformer
    from st_core.distilling.dimensions import reduced

    train, test = _texts(options)
    teacher = SentenceTransformer(options.teacher)
    print_error(f"encoding {len(train):,} texts with the teacher")
    result = reduced(teacher, train, options.dimensions)
    result.model.save_pretrained(str(options.out))
    values = {"dimensions": options.dimensions, "texts": len(train), "explained_variance": result.explained}
    return values | _agreement(teacher, result.model, test)


_MADE: Mapping[Kind, Any] = {Kind.STATIC: _static, Kind.DIMENSIONS: _dimensions}
