"""Give a collection other models, or settings that cannot be altered, while it is searched and written.

The new vectors are computed from the texts in the payloads, into a collection beside the present one: ``books~2``
beside ``books``. The present one stays complete. A migration switches by one write to the metadata of the first
collection, after which its name opens the new one; decision 24 describes the steps.
"""

from st_connectors.migrating.estimate import Estimate
from st_connectors.migrating.migrator import AlreadyMigratedError, Migrator
from st_connectors.migrating.pointer import drop_old

__all__ = ["AlreadyMigratedError", "Estimate", "Migrator", "drop_old"]
