"""What can go wrong with a store: one tree whose classes say whether trying again can help.

StoreError(message, store=, operation=)
├── Temporary          trying again can help; ``retry_after`` is the server's own wish in seconds, if it said one
│   ├── Unavailable    refused, reset, timed out, 502, 503, 504
│   └── Throttled      429, RESOURCE_EXHAUSTED
├── Permanent          the same request will fail again
│   ├── NotFound       no such collection
│   ├── SchemaMismatch the collection exists and is something else
│   └── Refused        the store does not take this record or this request
└── Unsupported        this store, with these options, cannot do it; refused before any byte is sent

Errors are raised once, at the border, from the driver's own error, which stays their ``__cause__``. Messages never hold a secret.
"""

from __future__ import annotations

__all__ = [
    "NotFound",
    "Permanent",
    "Refused",
    "SchemaMismatch",
    "StoreError",
    "Temporary",
    "Throttled",
    "Unavailable",
    "Unsupported",
]


class StoreError(Exception):
    """A store could not do an operation; ``store`` and ``operation`` name both."""

    def __init__(self, message: str, *, store: str, operation: str) -> None:
        """Keep the message, and the store and operation it is about."""
        super().__init__(message)
        self.message = message
        self.store = store
        self.operation = operation

    def __str__(self) -> str:
        return f"{self.store} {self.operation}: {self.message}"

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.__dict__.copy()))


class Temporary(StoreError):
    """Trying again can help."""

    def __init__(self, message: str, *, store: str, operation: str, retry_after: float | None = None) -> None:
        """Keep ``retry_after``, the seconds the server asked to wait, or None where it did not say."""
        super().__init__(message, store=store, operation=operation)
        self.retry_after = retry_after


class Unavailable(Temporary):
    """The store cannot be reached, broke off, or is overloaded."""


class Throttled(Temporary):
    """The store asks to slow down."""


class Permanent(StoreError):
    """The same request will fail again."""


class NotFound(Permanent):
    """There is no such collection."""


class SchemaMismatch(Permanent):
    """The collection exists with another schema or another model."""


class Refused(Permanent):
    """The store does not take this record or this request."""


class Unsupported(StoreError):
    """This store, with these options, cannot do what was asked."""


def _rebuild(kind: type[StoreError], state: dict[str, object]) -> StoreError:
    """Make an error again in another process (its keyword arguments are beyond Exception's own pickling)."""
    error = kind.__new__(kind, state["message"])
    error.__dict__.update(state)
    return error
