"""Test whether padding changes the results of a model, unless its family is known to mask padding.

Some models mix positions without reading the mask: by convolutions (ConvBERT, MobileBERT), Fourier transforms (FNet) or
landmarks (Nyströmformer). Their batches contain only texts of equal length, so that the result for a text does not
depend on the other texts of its batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from st_core.text.chat import ChatTokenizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from st_core.backends import Features, Runner

__all__ = ["mixes_padding"]

MASKED = frozenset(
    (
        "albert",
        "bert",
        "big_bird",
        "camembert",
        "deberta",
        "deberta-v2",
        "distilbert",
        "electra",
        "gemma",
        "gemma2",
        "gemma3_text",
        "gpt2",
        "llama",
        "mistral",
        "modernbert",
        "mpnet",
        "mt5",
        "qwen2",
        "qwen3",
        "roberta",
        "t5",
        "umt5",
        "xlm-roberta",
    )
)
"""Model types in which only attention, where padding is masked, combines different positions.

BigBird is among them also because the test would change it: a short text turns its sparse attention off for good.
"""

TEXTS = ("What stands beside a text in a batch must not change it, however long it is.", "A short text.")
MOST = 24
"""Maximum number of tokens of a test text."""

NOISE = {"float32": 1e-4}
"""The largest difference that counts as rounding, relative to the largest value, by dtype; else ``LOOSE``."""
LOOSE = 5e-2


def mixes_padding(runner: Runner, family: object) -> bool:
    """Return whether the result for a short text changes when a longer text is in its batch.

    False for known families and where the test fails to run.
    """
    if family in MASKED:
        return False
    info = runner.info
    tokenizer = info.tokenizer.inner if isinstance(info.tokenizer, ChatTokenizer) else info.tokenizer
    limits = [limit for limit in (info.max_length, info.positions) if limit is not None]
    tokens = tokenizer.tokenize(list(TEXTS), min([MOST, *limits]))
    long, short = (row.size for row in tokens.ids)
    if long <= short:
        return False
    try:
        both, alone = runner.run(tokens), runner.run(tokens.take([1]))
    except Exception:  # noqa: BLE001 - encoding the first text raises it again
        return False
    name = next((each for each in ("sentence_embedding", "scores", "token_embeddings") if each in alone), None)
    if name is None:
        return False
    padded, plain = _row(both, name, 1), _row(alone, name, 0)
    if name == "token_embeddings":
        padded = padded[-short:] if tokenizer.pad_left else padded[:short]
    noise = NOISE.get(info.precision, LOOSE) * max(1.0, float(np.abs(plain).max(initial=0)))
    return bool(np.abs(padded - plain).max(initial=0) > noise)


def _row(features: Features, name: str, index: int) -> NDArray[np.float32]:
    value = features[name]
    if hasattr(value, "to_dense"):
        value = value.to_dense()
    row = value[index]
    return np.asarray(row.float().cpu().numpy() if hasattr(row, "cpu") else row, np.float32)
