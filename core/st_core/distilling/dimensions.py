"""Fewer dimensions: the principal axes of a teacher's vectors as a linear layer after its modules."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass

import numpy as np

from st_core.distilling.vectors import principal_axes
from st_core.engine.inputs import Unset
from st_core.modules import SENTENCE_EMBEDDING
from st_core.modules.dense import Dense
from st_core.modules.normalize import Normalize
from st_core.saving.held import with_files
from st_core.sentence_transformer import SentenceTransformer

__all__ = ["Reduced", "with_dimensions"]

IDENTITY = "torch.nn.modules.linear.Identity"


@dataclass(frozen=True, slots=True)
class Reduced:
    """A model of fewer dimensions, and the share of the variance of the teacher's vectors that they contain."""

    model: SentenceTransformer
    explained: float


def with_dimensions(teacher: SentenceTransformer, texts: Sequence[str], dimensions: int) -> Reduced:
    """Return a teacher with a Dense of orthonormal rows, without bias and activation, after its modules.

    Its rows are the principal axes of the teacher's vectors of ``texts``, at least as many as dimensions. Inner
    products are those of the projected vectors; if the teacher ends with Normalize, so does the model. Prompts, maximum
    length and similarity are those of the teacher. Raises ValueError for more dimensions than the teacher or the number
    of texts has.
    """
    whole = copy(teacher)
    whole.truncate_dim = None
    axes = principal_axes(np.asarray(whole.encode(list(texts)), np.float32), dimensions)
    dense = Dense(axes.directions, None, None, False, IDENTITY, SENTENCE_EMBEDDING, SENTENCE_EMBEDDING)
    engine = teacher._current()  # noqa: SLF001 - of this package
    with with_files(engine.modules, teacher._held) as modules:  # noqa: SLF001
        is_unit = isinstance(modules[-1], Normalize)
        model = SentenceTransformer(
            modules=[*modules, dense, *([Normalize()] if is_unit else ())],
            prompts=teacher.prompts,
            default_prompt_name=teacher.default_prompt_name,
            similarity_fn_name=teacher.similarity_fn_name,
            trust_remote_code=teacher.trust_remote_code,
            device=engine.plan.device,
        )
    if not isinstance(engine.limit, Unset):
        model.max_seq_length = engine.limit
    return Reduced(model, axes.explained)
