"""Sentences about a source that concern the whole ingest, such as a guessed encoding or the number of skipped files."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Notes"]


class Notes:
    """What sources have to say; each sentence is passed on once, as soon as it is known."""

    def __init__(self, tell: Callable[[str], None] | None = None) -> None:
        """Pass each sentence to ``tell``, if there is one."""
        self._tell = tell
        self._sentences: dict[str, None] = {}
        self.gap: str | None = None
        """The first sentence on a part of a source that could not be read, so that documents may be missing."""

    def add(self, sentence: str, *, is_gap: bool = False) -> None:
        """Add a sentence, unless it was said before; ``is_gap`` states that a part of the source cannot be read."""
        if is_gap and self.gap is None:
            self.gap = sentence
        if sentence in self._sentences:
            return
        self._sentences[sentence] = None
        if self._tell is not None:
            self._tell(sentence)

    @property
    def sentences(self) -> tuple[str, ...]:
        """Everything said so far, in order."""
        return tuple(self._sentences)
