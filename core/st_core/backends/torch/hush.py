"""Keeps what libraries say about their own insides off the screen while this package runs them, and changes nothing for anybody else.

Filters and a hook are put where transformers and torch write, once; they act only inside :func:`hushed`, in the thread that is there, and pass on
everything else. Errors always come through.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

__all__ = ["hushed"]

LOGGERS = (
    "transformers.modeling_utils",  # its report of missing tensors: those that matter are errors of ours
    "torch.onnx._internal.exporter._registration",  # that torchvision is not installed
)

_inside: ContextVar[bool] = ContextVar("hushed", default=False)
_lock = threading.Lock()


class _Filter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= logging.ERROR or not _inside.get()


_FILTER = _Filter()


@contextmanager
def hushed() -> Iterator[None]:
    """Within the block, in this thread, transformers draws no bars and the loggers above say nothing below an error."""
    _install()
    token = _inside.set(True)
    try:
        yield
    finally:
        _inside.reset(token)


def _install() -> None:
    with _lock:
        for name in LOGGERS:
            logging.getLogger(name).addFilter(_FILTER)  # a second time does nothing
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
    """No bar inside :func:`hushed`, elsewhere what was there before."""

    def __init__(self, before: Callable[..., Any] | None, empty: Callable[..., Any]) -> None:
        self.before, self.empty = before, empty

    def __call__(self, factory: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if _inside.get():
            return self.empty(*args, **kwargs)
        return factory(*args, **kwargs) if self.before is None else self.before(factory, args, kwargs)
