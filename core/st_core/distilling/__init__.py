"""Make smaller and faster models from others: static ones, of fewer dimensions, of fewer layers, and students.

Names are imported on first use. What trains needs the extra ``train``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from st_core.distilling.dimensions import reduced as reduced
    from st_core.distilling.static import static_model as static_model
    from st_core.distilling.texts import texts_of_files as texts_of_files
    from st_core.distilling.vectors import agreement as agreement
    from st_core.distilling.vectors import principal_axes as principal_axes

_WHERE = {
    "agreement": "vectors",
    "principal_axes": "vectors",
    "reduced": "dimensions",
    "static_model": "static",
    "texts_of_files": "texts",
}

__all__ = ["agreement", "principal_axes", "reduced", "static_model", "texts_of_files"]


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHERE})
