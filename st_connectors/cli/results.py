"""Print the hits of a search: rank, score, id, the passage that matched, and an explanation."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import typer

from st_connectors.cli.output import escape_control_characters, escape_line, print_escaped, print_line, terminal_width

if TYPE_CHECKING:
    from st_connectors.explaining import LegExplanation, Term
    from st_connectors.schema import Fusion
    from st_connectors.search import SearchHit, SearchResult

__all__ = ["print_result"]

INDENT = "     "


def print_result(result: SearchResult, *, text_key: str = "text", first: int = 1) -> None:
    """Print each hit with the passage of its text that matched; ``first`` is the rank of the first hit.

    The legs of an explained search are printed before the hits.
    """
    for leg in result.legs:
        print_line(_leg_line(leg))
    if result.legs and result.fusion is not None:
        print_line(_fusion_line(result.fusion))
    if not result.hits:
        print_line("no hits")
    width = terminal_width() - len(INDENT) - 1
    for rank, hit in enumerate(result.hits, first):
        print_line(f"{rank:3}. {hit.score:8.4f}  {escape_line(hit.id)}")
        if snippet := _snippet(str(hit.payload.get(text_key, "")), hit, width):
            print_escaped(INDENT + snippet)
        for line in _explanation(hit, result.legs):
            print_line(INDENT + line)


def _snippet(text: str, hit: SearchHit, width: int) -> str:
    """Return the passage that matched on one line, with its matched words marked and control characters escaped."""
    from st_connectors.highlight import collapse, marked, passage

    line, highlights = collapse(text, hit.highlights)
    start, end = passage(line, highlights, width)
    parts = list(marked(line, start, end, highlights))
    marks = 0 if _is_styled() else 2 * sum(is_marked for _, is_marked in parts)
    if marks + end - start > width or end - start < len(line):
        start, end = passage(line, highlights, width - marks - 2)
        parts = list(marked(line, start, end, highlights))
    shown = "".join(_marked(part) if is_marked else escape_control_characters(part) for part, is_marked in parts)
    return ("…" if start else "") + shown.strip() + ("…" if end < len(line) else "")


def _marked(part: str) -> str:
    """Return a matched word in bold on a terminal, else between asterisks."""
    escaped = escape_control_characters(part)
    return typer.style(escaped, bold=True) if _is_styled() else f"*{escaped}*"


def _is_styled() -> bool:
    """Return whether standard output is a terminal that shows bold text."""
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ


def _leg_line(leg: LegExplanation) -> str:
    """Return a line about a leg: what its score is, its model, and the terms of the query."""
    parts = [leg.score]
    if leg.dimension is not None and leg.kind == "dense":
        parts.append(f"{leg.dimension} dimensions")
    if leg.model is not None:
        parts.append(f"model {leg.model}")
    line = f"{leg.field}: {', '.join(parts)}"
    if leg.is_empty:
        return f"{line}; the query has nothing to compare in this leg"
    if leg.kind == "text":
        return f"{line}; words of the query: {', '.join(term.term for term in leg.terms)}"
    return f"{line}; terms of the query: {_listed(leg.terms)}" if leg.terms else line


def _fusion_line(fusion: Fusion) -> str:
    from st_connectors.schema import fusion_to_json

    options = {name: value for name, value in (fusion_to_json(fusion) or {}).items() if value is not None}
    method = options.pop("method")
    return f"fusion: {method}, " + ", ".join(f"{name} {value}" for name, value in options.items())


def _explanation(hit: SearchHit, legs: Sequence[LegExplanation]) -> Iterator[str]:
    """Yield lines with the score before reranking, and the legs, terms and words that matched an explained hit."""
    if hit.retrieved is not None:
        yield f"score before reranking {hit.retrieved:.4f}"
    if not legs:
        return
    places = {leg.field: f"{leg.field} #{leg.rank} {leg.score:.4f}" for leg in hit.legs}
    yield ", ".join(places.get(leg.field, f"not among the candidates of {leg.field}") for leg in legs)
    if hit.terms:
        yield "matched " + _listed(hit.terms)
    for leg in legs:
        words = dict.fromkeys(each.term for each in hit.highlights if each.field == leg.field and leg.kind == "text")
        if words:
            yield f"matched words of {leg.field}: {', '.join(words)}"


def _listed(terms: Sequence[Term]) -> str:
    return ", ".join(f"{term.term} {term.weight:.2f}" for term in terms)
