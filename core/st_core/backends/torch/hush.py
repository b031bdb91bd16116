"""Silence progress bars and warnings of libraries while this package calls them, without effect on other callers.

Filters and a hook are installed once where transformers and torch write; they take effect only inside :func:`hushed` in
the same thread and pass on everything else. Errors are never silenced.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["hushed"]

LOGGERS = (
    "transformers.modeling_utils",  # reports missing tensors; this package raises an error for those that matter
    "torch.onnx._internal.exporter._registration",  # reports that torchvision is not installed
)

_inside: ContextVar[bool] = ContextVar("hushed", default=False)
_lock = threading.Lock()


class _Filter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= logging.ERROR or not _inside.get()


_FILTER = _Filter()


@contextmanager
def hushed() -> Iterator[None]:
    """Silence transformers' progress bars and all messages below errors of the loggers above, in this thread."""
    _install()
    token = _inside.set(True)
    try:
        yield
    finally:
        _inside.reset(token)


def _install() -> None:
    with _lock:
        for name in LOGGERS:
            logging.getLogger(name).addFilter(_FILTER)  # adding it again has no effect
        try:
            from transformers.utils import logging as theirs
        except ImportError:
            return
        set_hook = getattr(theirs, "set_tqdm_hook", None)  # transformers 5
        if set_hook is None:
            return
        before = set_hook(None)
        set_hook(before if isinstance(before, _Hook) else _Hook(before, theirs.EmptyTqdm))


class _Hook:
    """A tqdm hook that draws no bar inside :func:`hushed`; elsewhere it calls the hook that was installed before."""

    def __init__(self, before: Callable[..., object] | None, empty: Callable[..., object]) -> None:
        self.before, self.empty = before, empty

    def __call__(self, factory: Callable[..., object], args: tuple[object, ...], kwargs: dict[str, object]) -> object:
        if _inside.get():
            return self.empty(*args, **kwargs)
        return factory(*args, **kwargs) if self.before is None else self.before(factory, args, kwargs)
