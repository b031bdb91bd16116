"""What stands between a store and its collection's columns: ours, or those of somebody else in :mod:`st_connectors.milvus.adopted`; pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from st_connectors.filters import Filter
from st_connectors.milvus import layout, wire
from st_connectors.milvus.expressions import ALWAYS, Expression, expression, of_ids
from st_connectors.schema import DenseField, Field, Metric, Schema, TextField, kind_of
from st_connectors.store import Capabilities, Hit, Parts, Precision, Record, SearchRequest

__all__ = ["Ours", "Rows", "hits"]

_CONTENT = Parts.PAYLOAD | Parts.VECTORS


class Rows(Protocol):
    """What rows hold, which differs between our collections and other people's."""

    @property
    def schema(self) -> Schema:
        """The collection's schema."""
        ...

    @property
    def collection(self) -> str:
        """The name under which Milvus knows the collection."""
        ...

    @property
    def key(self) -> str:
        """The column of the primary key."""
        ...

    def capabilities(self, most: Capabilities) -> Capabilities:
        """What can be done with these rows, of all that the way in can."""
        ...

    def row(self, given: Record) -> dict[str, Any]:
        """A record as a row; raises ValueError for what a row cannot hold."""
        ...

    def ids(self, ids: Sequence[str]) -> Expression:
        """The rows of these ids."""
        ...

    def outputs(self, parts: Parts) -> list[str]:
        """The columns to ask for."""
        ...

    def record(self, answer: Mapping[str, Any]) -> Record:
        """The record that a row holds."""
        ...

    def everything(self) -> Expression:
        """Every row."""
        ...

    def where(self, where: Filter) -> Expression:
        """The rows that pass a filter."""
        ...

    def plan(self, request: SearchRequest) -> wire.Plan | None:
        """A search; None where nothing can match."""
        ...


@dataclass(frozen=True, slots=True)
class Ours:
    """The rows of a collection that was made here."""

    schema: Schema
    laid: layout.Layout

    @property
    def collection(self) -> str:
        """Letters, digits and underscores."""
        return layout.collection_name(self.schema.collection)

    @property
    def key(self) -> str:
        """Our own."""
        return layout.ID

    def capabilities(self, most: Capabilities) -> Capabilities:
        """A flat index is exact, a graph takes a number of candidates."""
        flat = self.laid.dense == "FLAT"
        efforts = frozenset({"exact", "default"} if flat else {"default", "candidates"})
        precision = {
            name: Precision(flat or kind_of(spec).value != "dense", most.fields[kind_of(spec).value].score_rtol)
            for name, spec in self.schema.fields.items()
        }
        return replace(most, efforts=efforts, fields=precision)

    def row(self, given: Record) -> dict[str, Any]:
        """Every column."""
        return wire.row(self.schema, given, packed=self.laid.packed)

    def ids(self, ids: Sequence[str]) -> Expression:
        """By our own column."""
        return of_ids(ids)

    def outputs(self, parts: Parts) -> list[str]:
        """Our columns."""
        return wire.outputs(self.schema, parts)

    def record(self, answer: Mapping[str, Any]) -> Record:
        """As it was given."""
        return wire.record(self.schema, answer)

    def everything(self) -> Expression:
        """No id is empty."""
        return Expression(ALWAYS)

    def where(self, where: Filter) -> Expression:
        """On the columns made for filters."""
        return expression(where, self.schema.filterable, packed=self.laid.packed)

    def plan(self, request: SearchRequest) -> wire.Plan | None:
        """Of the rows that have the vector."""
        return wire.plan(self.schema, request, self.laid)


def hits(rows: Rows, request: SearchRequest, answers: Sequence[Mapping[str, Any]]) -> list[Hit]:
    """Scored rows as hits, in order, the first ``offset`` cut off."""
    spec, key = rows.schema.fields[wire.leg_of(request).field], rows.key
    bare = not request.parts & _CONTENT
    found = []
    for answer in answers:
        score = _score(spec, float(answer["distance"])) + 0.0
        if bare:
            found.append(Hit(str(answer[key]), score))
        else:
            held = rows.record({**answer["entity"], key: answer[key]})
            found.append(Hit(held.id, score, held.payload, held.vectors))
    found.sort(key=lambda hit: (-hit.score, hit.id))
    return found[request.offset : request.offset + request.limit]


def _score(spec: Field, distance: float) -> float:
    match spec:
        case DenseField(metric=Metric.EUCLIDEAN):
            return -math.sqrt(max(distance, 0.0))  # Milvus gives the square
        case TextField():
            return abs(distance)  # Milvus Lite 3.2 gives it as a distance, with the sign turned
        case _:
            return distance
