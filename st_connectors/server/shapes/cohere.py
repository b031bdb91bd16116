"""Cohere's rerank v2 and embed v1 and v2; ``input_type`` says whether texts are queries or documents."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from st_connectors.server.calls import Embed, Reading, Result, Score
from st_connectors.server.faults import Fault, FaultKind
from st_connectors.server.shapes import errors
from st_connectors.server.shapes.fields import Fields, malformed
from st_connectors.server.shapes.jina import text_of
from st_connectors.server.shapes.routes import ApiRequest, Route, Translation, always
from st_connectors.server.shapes.writing import as_base64, best_first, dense, one, packed, scores, total_tokens

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ROUTES", "read_embed"]

_FORMS: Mapping[str, Callable[[NDArray[np.float32]], Any]] = {
    "float": lambda row: row,
    "base64": as_base64,
    "binary": lambda row: packed(row, signed=True),
    "ubinary": lambda row: packed(row, signed=False),
}


def read_rerank(request: ApiRequest) -> Translation:
    """Read ``/v2/rerank``."""
    fields = request.fields
    texts = tuple(text_of(each, f"documents[{position}]") for position, each in enumerate(fields.items("documents")))
    if not texts:
        raise Fault(FaultKind.EMPTY, "documents cannot be empty", field="documents")
    query = fields.required_text("query")
    call = Score(request.model(), tuple((query, text) for text in texts))
    shown = texts if fields.flag("return_documents", False) else None
    top = fields.whole("top_n", least=0) or None
    return Translation((call,), partial(_write_ranks, shown, top, request.request_id))


def _write_ranks(
    texts: Sequence[str] | None, top: int | None, request_id: str, results: Sequence[Result]
) -> dict[str, Any]:
    ranks: list[dict[str, Any]] = [
        {"index": index, "relevance_score": score} for index, score in best_first(scores(one(results)), top)
    ]
    if texts is not None:
        ranks = [rank | {"document": {"text": texts[rank["index"]]}} for rank in ranks]
    units = {"billed_units": {"search_units": 1}, "tokens": {"input_tokens": total_tokens(results)}}
    return {"id": request_id, "results": ranks, "meta": {"api_version": {"version": "2"}, **units}}


def read_embed(request: ApiRequest, *, version: str) -> Translation:
    """Read ``/v1/embed`` or ``/v2/embed``; v1 without ``embedding_types`` answers with a list of vectors."""
    fields = request.fields
    texts = _texts(fields)
    cut = fields.choice("truncate", ("NONE", "START", "END"))
    reading = Reading(
        role=request.role(),
        truncate=cut != "NONE",
        keep_end=cut == "START",
        max_tokens=fields.whole("max_tokens"),
    )
    types = _types(fields)
    call = Embed(request.model(), texts, reading, dimensions=fields.whole("output_dimension"))
    is_list = version == "1" and not types
    return Translation(
        (call,), partial(_write_embeddings, texts, types or ("float",), version, is_list, request.request_id)
    )


def _texts(fields: Fields) -> tuple[str, ...]:
    if "images" in fields:
        raise Fault(FaultKind.INVALID, "images: the served models read texts only", field="images")
    texts = fields.texts("texts") if "texts" in fields else _contents(fields.optional_items("inputs"))
    if not texts:
        raise Fault(FaultKind.EMPTY, "texts cannot be empty", field="texts")
    return texts


def _contents(inputs: Sequence[Any]) -> tuple[str, ...]:
    return tuple(_content(Fields(each, place=f"inputs[{position}]")) for position, each in enumerate(inputs))


def _content(fields: Fields) -> str:
    parts = [text_of(each, fields.name("content")) for each in fields.items("content")]
    if len(parts) != 1:
        raise malformed(fields.name("content"), "a list with one text", parts)
    return parts[0]


def _types(fields: Fields) -> tuple[str, ...]:
    names = fields.optional_items("embedding_types")
    if any(not isinstance(name, str) or name not in _FORMS for name in names):
        raise Fault(
            FaultKind.INVALID,
            f"embedding_types: unknown type; expected some of {', '.join(_FORMS)}",
            field="embedding_types",
        )
    return tuple(names)


def _write_embeddings(  # noqa: PLR0917 - the parts of the answer, bound in advance
    texts: Sequence[str], types: Sequence[str], version: str, is_list: bool, request_id: str, results: Sequence[Result]
) -> dict[str, Any]:
    rows = list(dense(one(results)))
    units = {"billed_units": {"input_tokens": total_tokens(results)}}
    return {
        "id": request_id,
        "embeddings": rows if is_list else {name: [_FORMS[name](row) for row in rows] for name in types},
        "texts": list(texts),
        "meta": {"api_version": {"version": version}, **units},
        "response_type": "embeddings_floats" if is_list else "embeddings_by_type",
    }


_EXAMPLE = {"texts": ["a text"], "input_type": "search_document", "embedding_types": ["float"]}

ROUTES = (
    Route(
        "/v2/rerank",
        read_rerank,
        always(errors.COHERE),
        "Documents by relevance",
        {"query": "a query", "documents": ["a document"], "top_n": 1},
        "Cohere",
    ),
    Route("/v2/embed", partial(read_embed, version="2"), always(errors.COHERE), "Dense vectors", _EXAMPLE, "Cohere"),
    Route("/v1/embed", partial(read_embed, version="1"), always(errors.COHERE), "Dense vectors", _EXAMPLE, "Cohere"),
)
