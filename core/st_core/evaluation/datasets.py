"""Small retrieval collections in the layouts of NanoBEIR and BEIR, from a folder or from the Hub."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from st_core.errors import missing_packages
from st_core.evaluation.files import Grades, read_judgements
from st_core.rows import rows_of_files

__all__ = ["NANO_NAMES", "RetrievalDataset", "names_in", "read_dataset", "read_rankings", "split_name"]

NANO_NAMES: Mapping[str, str] = {
    name.lower(): name
    for name in (
        "ClimateFEVER",
        "DBPedia",
        "FEVER",
        "FiQA2018",
        "HotpotQA",
        "MSMARCO",
        "NFCorpus",
        "NQ",
        "QuoraRetrieval",
        "SCIDOCS",
        "ArguAna",
        "SciFact",
        "Touche2020",
    )
}
"""The spelling of NanoBEIR's collections by their names in lowercase."""

_SUFFIXES = (".jsonl", ".ndjson", ".parquet", ".pq", ".csv", ".tsv", ".tab")
_TABLES = (".csv", ".tsv", ".tab")
_SHARD = re.compile(r"-\d+-of-\d+$")
_HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")


@dataclass(frozen=True, slots=True)
class RetrievalDataset:
    """Queries and documents by id, and the grades of the documents of each query."""

    queries: dict[str, str]
    corpus: dict[str, str]
    judged: Grades


def split_name(name: str) -> str:
    """Return the name of a collection in NanoBEIR's files, such as ``NanoMSMARCO``; other names stay as they are."""
    known = NANO_NAMES.get(name.lower())
    return name if known is None else f"Nano{known}"


def names_in(dataset_id: str | PathLike[str]) -> list[str]:
    """Return the names of the collections of a folder, those of NanoBEIR first, and all of NanoBEIR for a Hub name.

    Raises ValueError for a folder without collections.
    """
    root = Path(dataset_id)
    if not root.is_dir():
        return list(NANO_NAMES)
    found = {_SHARD.sub("", path.stem) for path in _data_files(root / "queries")}
    found |= {folder.name for folder in root.iterdir() if folder.is_dir() and _files_of(folder, "queries")}
    nano = [name for name, spelling in NANO_NAMES.items() if {f"Nano{spelling}", spelling, name} & found]
    spelled = {each for name in nano for each in (f"Nano{NANO_NAMES[name]}", NANO_NAMES[name], name)}
    names = nano + sorted(found - spelled)
    if not names:
        raise ValueError(
            f"{root}: no collection; expected queries/NAME.parquet as in NanoBEIR, or NAME/queries.jsonl as in BEIR"
        )
    return names


def read_dataset(dataset_id: str | PathLike[str], name: str) -> RetrievalDataset:
    """Return a collection of a folder or of a data set on the Hub.

    Empty texts are left out. A title stands before the text of its document. Raises ValueError for a collection without
    queries, documents or judgements, and ImportError for a Hub name without the package datasets.
    """
    queries, corpus = (
        {str(row["_id"]): text for row in _rows(dataset_id, subset, name, ("_id", "text")) if (text := _text(row))}
        for subset in ("queries", "corpus")
    )
    return RetrievalDataset(queries, corpus, _judgements(dataset_id, name))


def read_rankings(dataset_id: str | PathLike[str], name: str) -> dict[str, list[str]]:
    """Return the ids of the documents of each query in the ranking ``bm25`` of a collection, best first."""
    rows = _rows(dataset_id, "bm25", name, ("query-id", "corpus-ids"))
    return {str(row["query-id"]): [str(each) for each in row["corpus-ids"]] for row in rows}


def _text(row: Mapping[str, Any]) -> str:
    return " ".join(part for part in (row.get("title"), row["text"]) if part)


def _judgements(dataset_id: str | PathLike[str], name: str) -> Grades:
    """Return the grades of documents by query; a document without a grade has 1."""
    root = Path(dataset_id)
    files = _subset_files(root, "qrels", name) if root.is_dir() else []
    if len(files) == 1 and files[0].suffix in _TABLES:
        return read_judgements(files[0])
    judged: Grades = {}
    for row in _rows(dataset_id, "qrels", name, ("query-id", "corpus-id")):
        ids, grade = row["corpus-id"], row.get("score")
        for each in [ids] if isinstance(ids, (str, int)) else ids:
            judged.setdefault(str(row["query-id"]), {})[str(each)] = 1.0 if grade is None else float(grade)
    return judged


def _rows(
    dataset_id: str | PathLike[str], subset: str, name: str, columns: tuple[str, ...]
) -> Iterable[Mapping[str, Any]]:
    """Return the rows of a part of a collection; raise ValueError if there is no such part or a column is missing."""
    root = Path(dataset_id)
    if root.is_dir():
        files = _subset_files(root, subset, name)
        if not files:
            raise ValueError(
                f"{root}: no {subset} of {name!r}; expected {subset}/{split_name(name)}.jsonl or .parquet as in "
                f"NanoBEIR, or {name}/{subset}.jsonl as in BEIR"
            )
        rows: Any = rows_of_files(files)
    else:
        rows = _hub_rows(fspath(dataset_id), subset, split_name(name))
    missing = [column for column in columns if column not in rows[0]]
    if missing:
        raise ValueError(
            f"{dataset_id}: {subset} of {name!r} has the columns {', '.join(rows[0])}; expected {', '.join(columns)}"
        )
    return (rows[place] for place in range(len(rows)))


def _subset_files(root: Path, subset: str, name: str) -> list[Path]:
    """Return the files of a part of a collection, in NanoBEIR's layout or in BEIR's."""
    spellings = dict.fromkeys((split_name(name), name, NANO_NAMES.get(name.lower(), name), name.lower()))
    for each in spellings:
        files = [path for path in _data_files(root / subset) if _SHARD.sub("", path.stem) == each]
        files = files or _files_of(root / each, subset)
        if files:
            return files
    return []


def _files_of(folder: Path, subset: str) -> list[Path]:
    """Return the files of a part in the folder of one collection; of several splits of judgements, the test split."""
    files = [path for path in _data_files(folder) if path.stem == subset] or _data_files(folder / subset)
    test = [path for path in files if _SHARD.sub("", path.stem) == "test"]
    return test or files


def _data_files(folder: Path) -> list[Path]:
    """Return the files of rows in a folder, sorted; none for a folder that does not exist."""
    return sorted(path for path in folder.glob("*") if path.suffix in _SUFFIXES)


def _hub_rows(dataset_id: str, subset: str, split: str) -> Any:
    """Return a split of a data set on the Hub."""
    if _HUB_NAME.fullmatch(dataset_id) is None:
        raise ValueError(f"{dataset_id}: no such folder; expected a folder of collections or the name of a data set")
    if find_spec("datasets") is None:
        raise missing_packages(["datasets"], f"{dataset_id!r} is no folder; reading a data set from the Hub")
    from datasets import load_dataset  # type: ignore[import-untyped]

    try:
        return load_dataset(dataset_id, subset, split=split)
    except Exception as error:  # of many kinds: no network, no such name, no access
        raise ValueError(
            f"{dataset_id} is no folder, and {subset} of {split} cannot be read from the Hub: {error}; check the name, "
            "the network and the token"
        ) from error
