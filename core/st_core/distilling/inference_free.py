"""Inference-free sparse encoders: queries are weights of their tokens, documents are encoded by a transformer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from st_core.backends.torch.modules import STEPS
from st_core.distilling.students import Training, train
from st_core.distilling.tokenizers import text_tokenizer
from st_core.distilling.vectors import Floats
from st_core.engine.inputs import Unset
from st_core.models import Router, SparseStaticEmbedding
from st_core.modules.router import Router as RouterModule
from st_core.modules.sparse_static_embedding import SparseStaticEmbedding as StaticModule
from st_core.modules.splade_pooling import SpladePooling
from st_core.rows import LABELS
from st_core.saving.held import with_files
from st_core.sparse_encoder import SparseEncoder
from st_core.text.tokens import TextTokenizer
from st_core.training.form import form_of
from st_core.training.losses import sparse

__all__ = ["document_frequency_weights", "inference_free_model", "train_on_ensemble"]

SPREAD = 10.0
"""The mean range of the teachers' scores of a row after division by the temperature. The softmax of such scores gives
most of the probability to the best document."""


def document_frequency_weights(tokenizer: TextTokenizer, texts: Sequence[str], size: int) -> Floats:
    """Return the inverse document frequency of each token [V] in texts, ln(1 + (N - n + 0.5) / (n + 0.5)).

    Special tokens have the weight 0.
    """
    frequency = np.zeros(size)
    for row in tokenizer.plain(texts):
        frequency[np.unique(row)] += 1
    weights = np.log1p((len(texts) - frequency + 0.5) / (frequency + 0.5))
    weights[sorted(tokenizer.special_ids)] = 0
    return np.asarray(weights, np.float32)


def inference_free_model(documents: SparseEncoder, texts: Sequence[str]) -> SparseEncoder:
    """Return a model whose queries are tokens weighted by their rarity in texts, and whose documents are another's.

    ``documents`` is a masked language model with SpladePooling, such as a plain encoder loaded with ``init_head=True``.
    Its activation becomes log1p applied twice, as sparse documents of such models have it. Raises ValueError for
    another stack.
    """
    engine = documents._current()  # noqa: SLF001 - of this package
    tokenizer, modules = text_tokenizer(documents), engine.modules
    if any(isinstance(module, RouterModule) for module in modules):
        raise ValueError(
            f"{documents.checkpoint.name}: has routes for queries and documents already; train it as it is, or "
            "choose a plain encoder or a masked language model"
        )
    if len(modules) != 2 or not isinstance(modules[1], SpladePooling):
        raise ValueError(
            f"{documents.checkpoint.name}: expected a transformer with SpladePooling; choose a plain encoder or a "
            "masked language model"
        )
    width = modules[1].width or tokenizer.vocabulary_size
    weights = document_frequency_weights(tokenizer, texts, max(width, tokenizer.vocabulary_size))
    with with_files(modules, documents._held) as (transformer, _):  # noqa: SLF001
        pooling = replace(modules[1], doubled=True)
        query = SparseStaticEmbedding.build(documents.tokenizer, weights)
        router = Router.for_query_document([query], [transformer, pooling])
        model = SparseEncoder(modules=[router], device=engine.plan.device)
    model._base = documents._origin  # noqa: SLF001
    if not isinstance(engine.limit, Unset):
        model.max_seq_length = engine.limit
    return model


def train_on_ensemble(
    student: SparseEncoder, rows: Sequence[Mapping[str, Any]], training: Training, document_terms: int
) -> None:
    """Train the documents of an inference-free model on the scores of teachers, by the divergence of distributions.

    Rows have a query, two or more documents in columns of their own and ``scores``, as ``scored_rows`` yields them from
    one or more teachers. Documents are steered towards a number of active terms; the weights of queries stay. Raises
    ValueError for rows of another form.
    """
    query, *documents = (name for name in rows[0] if name not in LABELS)
    if len(documents) < 2:
        raise ValueError(
            "an ensemble orders two or more documents of each query: pass rows with a positive and negatives, such as "
            "those that mine writes"
        )
    if any(np.size(row.get("scores", ())) != len(documents) for row in rows):
        raise ValueError("each row needs scores, one for each document; pass rows that st-connectors score has written")
    form = form_of(student)
    for step in form.modules():
        if isinstance(step, STEPS[StaticModule]):
            step.requires_grad_(requires_grad=False)
    scores = np.array([row["scores"] for row in rows], np.float64)
    temperature = float((scores.max(axis=1) - scores.min(axis=1)).mean()) / SPREAD or 1.0
    loss = sparse.SparseDistillKLDivLoss(student, teacher_temperature=temperature)
    routes = {query: "query", **dict.fromkeys(documents, "document")}
    splade = sparse.SpladeLoss(student, loss, document_terms=document_terms)
    train(student, rows, splade, training, router_mapping=routes)
