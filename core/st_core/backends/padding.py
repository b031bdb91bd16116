"""Whether padding changes a text, which is tried when a model of a family that is not known for it is loaded.

Some models mix positions without a look at the mask: by convolutions (ConvBERT, MobileBERT), Fourier transforms (FNet) or landmarks (Nyströmformer).
Their texts are put into batches of one length, so that a text alone has the numbers that it has among others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from st_core.backends import Features, Runner

__all__ = ["mixes_padding"]

MASKED = frozenset(
    (
        "albert",
        "bert",
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
"""Types of models in which positions meet in attention alone, where padding is masked."""

TEXTS = ("What stands beside a text in a batch must not change it, however long it is.", "A short text.")
MOST = 24
"""Tokens of a text that is tried."""

NOISE = {"float32": 1e-4}
"""By type, how far numbers may be apart, as a part of the largest; ``LOOSE`` for the others."""
LOOSE = 5e-2


def mixes_padding(runner: Runner, family: object) -> bool:
    """Whether a short text gets other numbers beside a longer one; never for the families that are known, nor where it cannot be tried."""
    if family in MASKED:
        return False
    tokenizer: Any = getattr(runner.tokenizer, "inner", runner.tokenizer)  # below a chat template
    limits = [limit for limit in (runner.max_length, getattr(runner, "positions", None)) if limit is not None]
    tokens = tokenizer.tokenize(list(TEXTS), min([MOST, *limits]))
    long, short = (row.size for row in tokens.ids)
    if long <= short:
        return False
    try:
        both, alone = runner.run(tokens), runner.run(tokens.take([1]))
    except Exception:  # noqa: BLE001 - the first text that is encoded will tell
        return False
    name = next((each for each in ("sentence_embedding", "scores", "token_embeddings") if each in alone), None)
    if name is None:
        return False
    found, wanted = _row(both, name, 1), _row(alone, name, 0)
    if name == "token_embeddings":
        found = found[-short:] if tokenizer.pad_left else found[:short]
    kind = str(getattr(runner, "dtype", "float32")).removeprefix("torch.")
    noise = NOISE.get(kind, LOOSE) * max(1.0, float(np.abs(wanted).max(initial=0)))
    return bool(np.abs(found - wanted).max(initial=0) > noise)


def _row(features: Features, name: str, index: int) -> NDArray[np.float32]:
    value = features[name]
    if hasattr(value, "to_dense"):
        value = value.to_dense()
    row = value[index]
    return np.asarray(row.float().cpu().numpy() if hasattr(row, "cpu") else row, np.float32)
