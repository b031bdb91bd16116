"""Distil smaller and faster models: static ones, with fewer dimensions or layers, and students of teachers.

Names are imported on first use. What trains needs the extra ``train``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from st_core.distilling.dimensions import with_dimensions as with_dimensions
    from st_core.distilling.inference_free import inference_free_model as inference_free_model
    from st_core.distilling.inference_free import train_on_ensemble as train_on_ensemble
    from st_core.distilling.layers import with_layers as with_layers
    from st_core.distilling.static import static_model as static_model
    from st_core.distilling.students import Training as Training
    from st_core.distilling.students import rank_correlation as rank_correlation
    from st_core.distilling.students import train_on_scores as train_on_scores
    from st_core.distilling.students import train_on_vectors as train_on_vectors
    from st_core.distilling.texts import texts_of_files as texts_of_files
    from st_core.distilling.vectors import mean_cosine as mean_cosine
    from st_core.distilling.vectors import principal_axes as principal_axes
    from st_core.distilling.vectors import similarity_correlation as similarity_correlation
    from st_core.distilling.vocabulary import tokens_in_use as tokens_in_use
    from st_core.distilling.vocabulary import with_vocabulary as with_vocabulary

_WHERE = {
    "Training": "students",
    "similarity_correlation": "vectors",
    "inference_free_model": "inference_free",
    "tokens_in_use": "vocabulary",
    "mean_cosine": "vectors",
    "principal_axes": "vectors",
    "rank_correlation": "students",
    "with_dimensions": "dimensions",
    "static_model": "static",
    "texts_of_files": "texts",
    "train_on_ensemble": "inference_free",
    "train_on_scores": "students",
    "train_on_vectors": "students",
    "with_layers": "layers",
    "with_vocabulary": "vocabulary",
}

__all__ = [
    "Training",
    "inference_free_model",
    "mean_cosine",
    "principal_axes",
    "rank_correlation",
    "similarity_correlation",
    "static_model",
    "texts_of_files",
    "tokens_in_use",
    "train_on_ensemble",
    "train_on_scores",
    "train_on_vectors",
    "with_dimensions",
    "with_layers",
    "with_vocabulary",
]


_TRAINING = frozenset(("inference_free", "layers", "students", "vocabulary"))
"""The modules that need the extra ``train``."""


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if _WHERE[name] in _TRAINING:
        import_module("st_core.training")  # names the extra if it is missing
    value = getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHERE})
