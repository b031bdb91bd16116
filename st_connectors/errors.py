"""Errors of stores: a hierarchy of exceptions whose classes state whether a retry can help.

StoreError(message, store=, operation=, status=)
├── Temporary          a retry can help; ``retry_after`` is the wait in seconds that the server requested, if any
│   ├── Unavailable    refused, reset, timed out, 502, 503, 504
│   └── Throttled      429, RESOURCE_EXHAUSTED
├── Permanent          the same request will fail again
│   ├── NotFound       no such collection
│   ├── SchemaMismatch the collection exists with another schema
│   └── Refused        the store does not accept this record or this request
└── Unsupported        this store, with these options, does not support it; raised before anything is sent

Adapters convert each error of a driver to one of these errors; the error of the driver is its ``__cause__``. Messages
never contain a secret.
"""

from __future__ import annotations

__all__ = [
    "ModelWarning",
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
    """An operation of a store failed; ``store`` and ``operation`` are their names.

    ``status`` is the HTTP status with which the server answered, for one record of a batch that of its item; over gRPC
    it is the HTTP status that corresponds to the status of the call. It is None if the server sent no status.
    """

    def __init__(self, message: str, *, store: str, operation: str, status: int | None = None) -> None:
        """Store the message, the names of the store and the operation that failed, and the status of the answer."""
        super().__init__(message)
        self.message = message
        self.store = store
        self.operation = operation
        self.status = status

    def __str__(self) -> str:
        return f"{self.store} {self.operation}: {self.message}"

    def __reduce__(self) -> tuple[object, ...]:
        return rebuild, (type(self), (self.message,), self.__dict__.copy())


class Temporary(StoreError):
    """A retry can help."""

    def __init__(
        self,
        message: str,
        *,
        store: str,
        operation: str,
        retry_after: float | None = None,
        status: int | None = None,
    ) -> None:
        """Store the arguments; ``retry_after`` is the wait in seconds that the server requested, or None."""
        super().__init__(message, store=store, operation=operation, status=status)
        self.retry_after = retry_after


class Unavailable(Temporary):
    """The store cannot be reached, closed the connection, or is overloaded."""


class Throttled(Temporary):
    """The store limits the rate of requests."""


class Permanent(StoreError):
    """The same request will fail again."""


class NotFound(Permanent):
    """The collection does not exist."""


class SchemaMismatch(Permanent):
    """The collection exists with another schema or another model."""


class Refused(Permanent):
    """The store does not accept this record or this request."""


class Unsupported(StoreError):
    """This store, with these options, does not support the operation."""


class ModelWarning(UserWarning):
    """Ranks can differ because of a model: it runs in another way than the collection records, or gives no scores."""


def rebuild(kind: type[BaseException], arguments: tuple[object, ...], state: dict[str, object]) -> BaseException:
    """Return an error from its pickle, without calling its constructor, whose arguments are not those of the base.

    ``arguments`` are the ``args`` of the error, and ``state`` its attributes.
    """
    error = kind.__new__(kind, *arguments)
    error.__dict__.update(state)
    return error
