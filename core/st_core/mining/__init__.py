"""Mine hard negatives: documents that are similar to a query and are not its answer."""

from __future__ import annotations

from st_core.mining.forms import FORMATS, Mined, rows_of
from st_core.mining.pairs import Query, queries_of
from st_core.mining.selecting import Candidates, Selection, select

__all__ = ["FORMATS", "Candidates", "Mined", "Query", "Selection", "queries_of", "rows_of", "select"]
