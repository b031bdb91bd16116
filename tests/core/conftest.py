"""Texts, and how results are compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

TEXTS = [
    "How do I copy a directory tree?",
    "The quick brown fox jumps over the lazy dog.",
    "",
    "   ",
    "\n\t ",
    "a",
    "Parse a DATE string; the format is %Y-%m-%d (ISO 8601).",
    "🙂🙃 flags 🇩🇪 and families 👩‍👩‍👧‍👦",
    "检索增强生成的句子向量",
    "日本語のテキスト、カタカナとひらがな。",
    "שלום עולם, מה שלומך?",
    "مرحبا بالعالم",
    "control \x00\x01\x07 characters \u200b\ufeff and \x7f too",
    "Crème brûlée — naïve café; e\u0301 combining",
    "same text twice",
    "same text twice",
    " ".join(["word", "tree", "copy", "unknownwordish", "42"] * 2000),
    "one line\nand another\r\n\r\nand a paragraph",
    "[CLS] special [SEP] tokens </s> inside <mask> [MASK]",
]


@pytest.fixture(scope="session")
def agree() -> Callable[..., None]:
    """Asserts that two results have one shape and differ by no more than ``scale`` times the largest value, or 1."""
    return assert_agree


def assert_agree(ours: Any, theirs: Any, scale: float = 1e-5) -> None:
    """Compare arrays, tensors and sparse matrices; where they differ, name the first row."""
    mine, wanted = as_array(ours), as_array(theirs)
    assert mine.shape == wanted.shape
    assert np.isfinite(wanted).all(), "what is no number agrees with everything"
    allowed = scale * max(1.0, float(np.abs(wanted).max(initial=0)))
    apart = np.argwhere(~(np.abs(mine - wanted) <= allowed))
    assert not apart.size, (
        f"{len(apart)} values differ, first at {apart[0]}: {mine[tuple(apart[0])]} for {wanted[tuple(apart[0])]}"
    )


def as_array(values: Any) -> Any:
    """A dense float64 array of whatever holds numbers."""
    if hasattr(values, "to_dense"):
        values = values.to_dense()
    if isinstance(values, (list, tuple)):
        values = [as_array(value) for value in values]
    return np.asarray(values.cpu() if hasattr(values, "cpu") else values, dtype=np.float64)


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """Ordinary texts and the ones that break things."""
    return list(TEXTS)
