"""Make smaller and faster models from others: static ones, of fewer dimensions, of fewer layers, and students.

Names are imported on first use. What trains needs the extra ``train``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from st_core.distilling.dimensions import reduced as reduced
    from st_core.distilling.inference_free import inference_free_model as inference_free_model
    from st_core.distilling.inference_free import towards_ensemble as towards_ensemble
    from st_core.distilling.layers import with_layers as with_layers
    from st_core.distilling.static import static_model as static_model
    from st_core.distilling.students import Training as Training
    from st_core.distilling.students import rank_correlation as rank_correlation
    from st_core.distilling.students import towards_scores as towards_scores
    from st_core.distilling.students import towards_vectors as towards_vectors
    from st_core.distilling.texts import texts_of_files as texts_of_files
    from st_core.distilling.vectors import agreement as agreement
    from st_core.distilling.vectors import mean_cosine as mean_cosine
    from st_core.distilling.vectors import principal_axes as principal_axes
    from st_core.distilling.vocabulary import kept_tokens as kept_tokens
    from st_core.distilling.vocabulary import with_vocabulary as with_vocabulary

_WHERE = {
    "Training": "students",
    "agreement": "vectors",
    "inference_free_model": "inference_free",
    "kept_tokens": "vocabulary",
    "mean_cosine": "vectors",
    "principal_axes": "vectors",
    "rank_correlation": "students",
    "reduced": "dimensions",
    "static_model": "static",
    "texts_of_files": "texts",
    "towards_ensemble": "inference_free",
    "towards_scores": "students",
    "towards_vectors": "students",
    "with_layers": "layers",
    "with_vocabulary": "vocabulary",
}

__all__ = [
    "Training",
    "agreement",
    "inference_free_model",
    "kept_tokens",
    "mean_cosine",
    "principal_axes",
    "rank_correlation",
    "reduced",
    "static_model",
    "texts_of_files",
    "towards_ensemble",
    "towards_scores",
    "towards_vectors",
    "with_layers",
    "with_vocabulary",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHERE})
