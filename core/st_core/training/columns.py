"""What a loss reads of a data set, and how its columns are matched to the columns of the data.

A loss declares a :class:`Contract`. :func:`match` assigns the columns of a data set to it, by name where every name
tells its role, else in order, and refuses what the loss would misread.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from st_core.rows import LABELS

__all__ = ["ANY_COLUMNS", "LABELS", "RESERVED", "Contract", "Label", "Matching", "check_keys", "match"]

RESERVED: Final = ("dataset_name", "return_loss")
"""Names that the trainer uses itself."""

_QUERIES = ("anchor", "query", "question", "premise", "sentence1", "sentence_1", "sentence_a")
_DOCUMENTS = (
    *("positive", "answer", "document", "passage", "response", "entailment", "hypothesis"),
    *("sentence2", "sentence_2", "sentence_b"),
)
_FURTHER = re.compile(
    r"(?:hard_?)?(?:neg|negative|contradiction|document|doc|passage|answer|response|candidate|sentence|text)s?_?\d*"
)
_IDS = re.compile(r"id|.*(?:_id|_ids|_idx)")


class Label(StrEnum):
    """The form of the label of a row."""

    NONE = "no label"
    ANY = "a label"
    NUMBER = "a number"
    BINARY = "0 or 1"
    CLASS = "the number of a class"
    SCORES = "a score for each document, or the margins between them"
    VECTOR = "a vector, or a vector for each text"
    LIST = "a list with a number for each document"


@dataclass(frozen=True, slots=True)
class Contract:
    """What a loss reads.

    ``least`` and ``most`` are the numbers of text columns, ``most`` None for any number. ``label`` is the form of the
    label and ``low`` and ``high`` its range. With ``is_retrieval`` the first column contains queries and the others
    documents, which have prompts and routes of their own; otherwise all columns are alike. With ``has_lists`` the
    second column contains lists of texts. With ``has_batch_negatives`` the documents of other rows are negatives, and
    the loss accepts in place of a label which of them are known positives.
    """

    least: int
    most: int | None
    label: Label = Label.NONE
    low: float = float("-inf")
    high: float = float("inf")
    is_retrieval: bool = True
    has_lists: bool = False
    is_label_optional: bool = False
    has_batch_negatives: bool = False


@dataclass(frozen=True, slots=True)
class Matching:
    """The columns of a data set that a loss reads: texts in the order of the loss, and the label, None for no label."""

    texts: tuple[str, ...]
    label: str | None


_NO_NAMES: tuple[str, ...] = ()


def match(
    columns: Sequence[str],
    contract: Contract,
    *,
    loss: str,
    chosen: Sequence[str] | None = None,
    ignored: Iterable[str] = _NO_NAMES,
) -> Matching:
    """Return which columns of a data set a loss reads.

    ``chosen`` are the text columns in the order of the loss, as the caller specified them, and ``ignored`` columns that
    are not read. Raises ValueError for columns that the loss does not read, or reads in another way than their names
    tell.
    """
    ignored = set(ignored)
    _check_names(columns, ignored | set(chosen or ()))
    used = [name for name in columns if name not in ignored]
    label = _label_of(used, contract, loss)
    texts = [name for name in used if name not in LABELS]
    if chosen is not None:
        return Matching(_counted(tuple(chosen), contract, loss), label)
    ids = [name for name in texts if _IDS.fullmatch(name)]
    if ids and contract is not ANY_COLUMNS:
        raise ValueError(
            f"column {ids[0]!r} seems to contain ids, which are not trained on; leave it out with "
            f"ignored_columns={ids!r}, or name the columns to read with columns=[…]"
        )
    return Matching(_counted(_ordered(tuple(texts), contract, loss), contract, loss), label)


def _check_names(columns: Sequence[str], named: set[str]) -> None:
    reserved = [name for name in columns if name in RESERVED]
    if reserved:
        raise ValueError(f"column {reserved[0]!r} has a name that the trainer uses itself; rename it")
    unknown = sorted(named - set(columns))
    if unknown:
        raise ValueError(f"the data has no column {unknown[0]!r}; its columns are {', '.join(columns)}")


def _label_of(columns: Sequence[str], contract: Contract, loss: str) -> str | None:
    """Return the column of the labels; raise ValueError for one too many, or a missing one."""
    labels = [name for name in columns if name in LABELS]
    if len(labels) > 1:
        raise ValueError(
            f"columns {labels[0]!r} and {labels[1]!r} both contain labels; leave one out with "
            f"ignored_columns=[{labels[1]!r}]"
        )
    if labels and contract.label is Label.NONE:
        raise ValueError(
            f"{loss} reads no labels, so column {labels[0]!r} would have no effect; use a loss that reads labels, or "
            f"pass ignored_columns=[{labels[0]!r}]"
        )
    if not labels and contract.label is not Label.NONE and not contract.is_label_optional:
        raise ValueError(
            f"{loss} needs a column of labels ({contract.label}), named label, labels, score or scores; the columns "
            f"are {', '.join(columns)}"
        )
    return labels[0] if labels else None


def _ordered(texts: tuple[str, ...], contract: Contract, loss: str) -> tuple[str, ...]:
    """Return text columns in the order of a loss: by name if every name tells its place, else as they are."""
    if len(texts) < 2:
        return texts
    places = [_place(name) for name in texts]
    if contract.is_retrieval and None not in places and places.count(0) == 1:
        texts = tuple(sorted(texts, key=lambda name: _place(name) or 0))
    unclear = [name for name in texts[2:] if not _FURTHER.fullmatch(name.lower())]
    if unclear and contract.is_retrieval and contract.most != 2:
        raise ValueError(
            f"{loss} would read column {unclear[0]!r} as a negative; if it is one, name it negative_1 or pass "
            f"columns={list(texts)!r}, else pass ignored_columns=[{unclear[0]!r}]"
        )
    return texts


def _place(name: str) -> int | None:
    """Return the place of a column by its name: 0 for queries, 1 for positives, 2 for negatives, None if unknown."""
    plain = name.lower()
    if plain in _QUERIES:
        return 0
    if plain in _DOCUMENTS:
        return 1
    return 2 if re.fullmatch(r"(?:hard_?)?(?:neg|negative|contradiction)s?_?\d*", plain) else None


def _counted(texts: tuple[str, ...], contract: Contract, loss: str) -> tuple[str, ...]:
    """Return text columns after comparing their number with the contract; raise ValueError for too few or too many."""
    least, most = contract.least, contract.most
    expected = str(least) if least == most else f"at least {least}" if most is None else f"{least} to {most}"
    if len(texts) < least:
        raise ValueError(f"{loss} needs {expected} text columns, got {len(texts)}: {', '.join(texts) or 'none'}")
    if most is not None and len(texts) > most:
        extra = list(texts[most:])
        raise ValueError(
            f"{loss} reads {expected} text columns, got {len(texts)}: {', '.join(texts)}; leave out columns with "
            f"ignored_columns={extra!r}"
        )
    return texts


ANY_COLUMNS: Final = Contract(1, None, Label.ANY, is_retrieval=False, is_label_optional=True)
"""The contract of a loss that declares none."""


def check_keys(given: Mapping[str, object], known: Iterable[str], argument: str) -> None:
    """Raise ValueError for keys of an argument that name no column and no data set."""
    known = list(known)
    unknown = [key for key in given if key not in known]
    if unknown:
        raise ValueError(f"{argument} has the key {unknown[0]!r}; expected one of {', '.join(known)}")
