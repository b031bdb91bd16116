"""Encode the texts of Arrow tables, in the tasks of engines for distributed processing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import cache
from os import PathLike
from typing import Any

import numpy as np

from st_connectors.chunks import CHUNK_KEY
from st_connectors.ingest import Refusal
from st_connectors.ingest.arrow import RECORD_ID, REFUSED, vectors_to_arrow
from st_connectors.ingest.encode import Batch, encode_batch, prepare
from st_connectors.ingest.sources.arrow_values import values_of
from st_connectors.ingest.windows import Prepared
from st_connectors.models import LazyModel, ModelOptions
from st_connectors.registry import open_store
from st_connectors.schema import FieldKind
from st_connectors.schemas import lazy_models, stored_models
from st_connectors.split import Split, spans_of
from st_connectors.store import Record
from st_connectors.vectorise import FieldEncoder
from st_core.protocols import TextEncoder
from st_core.vectors import SparseMatrix, SparseVector

__all__ = ["Encoder", "cached_encoder"]


class Encoder:
    """A callable that adds the vectors of texts to Arrow tables, for :func:`st_connectors.ingest.arrow.write_arrow`.

    An actor of Ray constructs it once and calls it for every batch:
    ``dataset.map_batches(Encoder, fn_constructor_kwargs={"url": …, "collection": …}, batch_format="pyarrow")``. The
    models are loaded by the constructor. For use in one thread.
    """

    def __init__(
        self,
        *,
        url: str | None = None,
        collection: str | None = None,
        dense: str | PathLike[str] | TextEncoder | None = None,
        sparse: str | PathLike[str] | TextEncoder | None = None,
        backend: str | None = None,
        dtype: str | None = None,
        id: str = "id",  # noqa: A002 # the role of the column, as in ArrowLayout
        text: str = "text",
        split: Split | None = None,
    ) -> None:
        """Load the models of a collection at ``url``, or the models ``dense`` and ``sparse``.

        ``id`` and ``text`` are the columns of ids and texts. ``split`` splits long texts into windows; otherwise models
        truncate them. The other arguments are those of :meth:`st_connectors.Index.open`, and raise the same errors.
        """
        options = ModelOptions(backend, dtype)
        models = lazy_models(dense, sparse, options)
        if url is not None:
            models = _models_of(url, collection, models, options)
        if not models:
            raise ValueError("nothing to encode by: pass url= and collection=, dense= or sparse=")
        self._encoders = [
            FieldEncoder(name, FieldKind(model.kind.value), model.load()) for name, model in models.items()
        ]
        self._dimensions = {name: model.ref().dimension for name, model in models.items()}
        self._spans = None if split is None else spans_of(list(models.values()), split)
        self._id = id
        self._text = text

    def __call__(self, table: Any) -> Any:
        """Return the table with a column of vectors for each model, and the columns of write_arrow for Encoder.

        A split text becomes several rows with the other columns of its row; all of them are in this table. The column
        of ids keeps the id of the source row, and ``_record_id`` has the id of the record. A row whose id or text is
        invalid, or that a model refuses, has no vectors and the reason in ``_refused``.
        """
        import pyarrow as pa

        rows = sorted(self._rows(table), key=lambda row: row[0])
        output = table.take(pa.array([at for at, _ in rows], pa.int64()))
        items = [item for _, item in rows]
        records = [item if isinstance(item, Record) else None for item in items]
        texts = values_of(output.column(self._text), self._text)
        texts = [
            text if record is None else record.payload["text"] for text, record in zip(texts, records, strict=True)
        ]
        columns = {
            self._text: pa.array([text if isinstance(text, str) else None for text in texts], pa.string()),
            RECORD_ID: pa.array([None if record is None else record.id for record in records], pa.string()),
            CHUNK_KEY: pa.array([record and record.payload.get(CHUNK_KEY) for record in records], _chunk_type()),
            REFUSED: pa.array([item.reason if isinstance(item, Refusal) else None for item in items], pa.string()),
            **{each.field: self._column(each, records) for each in self._encoders},
        }
        for name, column in columns.items():
            output = _with_column(output, name, column)
        return output

    def _rows(self, table: Any) -> Iterator[tuple[int, Record | Refusal]]:
        """Yield the position of a row with each of its records, or with its refusal."""
        names = (self._id, self._text)
        cells = zip(*(values_of(table.column(name), name) for name in names), strict=True)
        prepared = [prepare(at, {"id": key, "text": text}, "text", self._spans) for at, (key, text) in enumerate(cells)]
        batch = Batch(
            tuple(item for item in prepared if isinstance(item, Prepared)),
            tuple(item for item in prepared if isinstance(item, Refusal)),
            0,
            len(prepared),
        )
        encoded = encode_batch(batch, self._encoders)
        for record, owner in zip(encoded.records, encoded.owners, strict=True):
            yield encoded.documents[owner].position, record
        for refusal in encoded.refused:
            yield refusal.position, refusal

    def _column(self, encoder: FieldEncoder, records: Sequence[Record | None]) -> Any:
        """Return the vectors of a field as a column, with null for rows that were refused."""
        import pyarrow as pa

        vectors = [record.vectors[encoder.field] for record in records if record is not None]
        column = vectors_to_arrow(self._stacked(encoder, vectors), encoder.kind)
        if len(vectors) == len(records):
            return column
        numbers = iter(range(len(vectors)))
        return column.take(pa.array([None if record is None else next(numbers) for record in records], pa.int64()))

    def _stacked(self, encoder: FieldEncoder, vectors: Sequence[Any]) -> Any:
        dimension = self._dimensions[encoder.field]
        if encoder.kind is FieldKind.SPARSE:
            return SparseMatrix.from_rows([row for row in vectors if isinstance(row, SparseVector)], dimension)
        return np.stack(vectors) if vectors else np.empty((0, dimension), np.float32)


@cache
def cached_encoder(**options: Any) -> Encoder:
    """Return the Encoder with these arguments, which a process constructs once; for engines that reuse processes."""
    return Encoder(**options)


def _models_of(
    url: str, collection: str | None, passed: dict[str, LazyModel], options: ModelOptions
) -> dict[str, LazyModel]:
    """Return the models of a collection's vector fields."""
    if collection is None:
        raise ValueError("url= needs collection=, the collection whose models encode the texts")
    with closing(open_store(url, collection)) as store:
        return stored_models(store.schema, passed, options, trust=False)


def _chunk_type() -> Any:
    """Return the type of the position of a window, as in :func:`st_connectors.chunks.chunk_payload`."""
    import pyarrow as pa

    numbers = {name: pa.int64() for name in ("number", "of", "start", "end")}
    return pa.struct({"parent": pa.string(), **numbers})


def _with_column(table: Any, name: str, column: Any) -> Any:
    """Return the table with a column in the place of that of the same name, or at the end."""
    at = table.schema.get_field_index(name)
    return table.append_column(name, column) if at < 0 else table.set_column(at, name, column)
