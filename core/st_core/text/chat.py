"""Texts and pairs read through a model's chat template: each becomes a conversation, which the template writes out and the tokenizer reads.

A text is one message of the role "user"; a pair is two, of the roles "query" and "document"; a prompt goes before them as the role "system".
Templates end in fixed tokens, which models that look at the last token depend on, so these are put back where a long text was cut.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from st_core.errors import ModelBroken, ModelUnsupported
from st_core.text.tokens import SlowTokenizer, TextTokenizer, Tokens

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from st_core.text.tokens import Pair

__all__ = ["ChatTokenizer", "is_structured"]

Message = dict[str, Any]

_FORMATS: Mapping[str, str] = dict.fromkeys(("apertus", "deepseek_v3", "gpt_oss", "seed_oss"), "flat")
"""Families whose template takes plain texts, though it looks as if it took lists; sentence-transformers 6.2 knows them by name, too."""

_SIGNS = ("content[0]", ".type", "'type'", '"type"', "item.type", "message.content[")
"""What the source of a template has that takes the content of a message as a list of parts."""

_FILLERS = ("0", "1 2 3 4")
"""Two contents that begin, end and cut differently: what two conversations of them end in alike is the template's."""

_PROBES: tuple[Pair, ...] = (("alpha", "bravo"), ("charlie", "bravo"), ("alpha", "foxtrot"))
"""A pair, the same with another query, and the same with another document."""


def is_structured(template: object, model_type: str, named: str = "auto") -> bool:
    """Whether a template takes the content of a message as a list of parts: as ``named``, else as its family does, else by its source."""
    named = _FORMATS.get(model_type, named) if named == "auto" else named
    if named != "auto":
        return named == "structured"
    if not isinstance(template, str) or not template:
        return True
    return any(sign in template for sign in _SIGNS)


@dataclass(frozen=True, slots=True)
class ChatTokenizer:
    """A tokenizer with a chat template; safe in threads.

    ``inner`` reads what the template writes. ``structured`` says that contents are lists of parts. ``options`` are the template's own
    arguments, with ``restore_suffix`` for whether its last tokens are put back, which is so by default.
    """

    inner: TextTokenizer | SlowTokenizer
    structured: bool
    options: Mapping[str, Any] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        """What the tokenizer behind it has: ``pad_id``, ``pad_left``, ``special_ids``, ``shown`` and the others."""
        return getattr(self.inner, name)

    def tokenize(
        self,
        inputs: Sequence[str] | Sequence[Pair],
        limit: int | None,
        *,
        prompt: str | None = None,
        task: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Tokens:
        """The ids of texts, or of pairs, cut to ``limit`` tokens; ``options`` stand above the template's saved ones.

        Raises ModelUnsupported where the template drops one side of a pair, ModelBroken where it cannot be applied.
        """
        chosen = {**({} if task is None else {"task": task}), **self.options, **(options or {})}
        restored = bool(chosen.pop("restore_suffix", True))
        if any(not isinstance(each, str) for each in inputs):
            self._check_pairs(chosen)
        conversations = [self._conversation(each, prompt) for each in inputs]
        rows = self.inner.plain(self._render(conversations, chosen))
        if limit is not None:
            suffixes = self._suffixes(conversations, rows, limit, chosen) if restored else iter(())
            rows = [_cut(row, limit, left=self._keeps_left) for row in rows]
            for index, suffix in suffixes:
                rows[index] = _ending_in(rows[index], suffix)
        return Tokens(rows)

    @property
    def _keeps_left(self) -> bool:
        return getattr(self.inner.shown, "truncation_side", "right") == "right"

    def _content(self, text: str) -> Any:
        return [{"type": "text", "text": text}] if self.structured else text

    def _conversation(self, given: str | Pair, prompt: str | None) -> list[Message]:
        roles = [("user", given)] if isinstance(given, str) else [("query", given[0]), ("document", given[1])]
        if prompt:
            roles.insert(0, ("system", prompt))
        return [{"role": role, "content": self._content(text)} for role, text in roles]

    def _render(self, conversations: list[list[Message]], options: Mapping[str, Any]) -> list[str]:
        if not conversations:
            return []
        try:
            return list(self.inner.shown.apply_chat_template(conversations, tokenize=False, **options))
        except (ImportError, MemoryError):
            raise
        except Exception as error:  # a template is a program of its own: it may raise anything
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            name = getattr(self.inner.shown, "name_or_path", "the model")
            raise ModelBroken(f"{name}: the chat template cannot be applied: {reason}") from error

    def _check_pairs(self, options: Mapping[str, Any]) -> None:
        """Raise ModelUnsupported where the query or the document of a pair does not reach what the template writes."""
        base, *others = self._render([self._conversation(probe, None) for probe in _PROBES], options)
        lost = [role for role, other in zip(("query", "document"), others, strict=True) if other == base]
        if lost:
            raise ModelUnsupported(
                f"{getattr(self.inner.shown, 'name_or_path', 'the model')}: the chat template drops the {' and the '.join(lost)} of a "
                "pair: it has to write out the roles 'query' and 'document'; another can be given as "
                'processor_kwargs={"chat_template": ...}'
            )

    def _suffixes(
        self, conversations: list[list[Message]], rows: list[NDArray[np.int32]], limit: int, options: Mapping[str, Any]
    ) -> Iterator[tuple[int, NDArray[np.int32]]]:
        """The number of each row that is cut, with the tokens its template ends in; found once for each order of roles."""
        known: dict[tuple[str, ...], NDArray[np.int32]] = {}
        for index, row in enumerate(rows):
            if row.size > limit:
                roles = tuple(message["role"] for message in conversations[index])
                if roles not in known:
                    known[roles] = self._suffix(conversations[index], options)
                yield index, known[roles]

    def _suffix(self, conversation: list[Message], options: Mapping[str, Any]) -> NDArray[np.int32]:
        """The tokens that follow the contents of a conversation: what two others of its form end in alike."""
        filled = [
            [each if each["role"] == "system" else each | {"content": self._content(filler)} for each in conversation]
            for filler in _FILLERS
        ]
        first, second = self.inner.plain(self._render(filled, options))
        shorter = min(first.size, second.size)
        same = first[first.size - shorter :][::-1] == second[second.size - shorter :][::-1]
        count = int(np.argmin(same)) if not same.all() else 0  # alike throughout: no content was written at all
        return first[first.size - count :]


def _cut(row: NDArray[np.int32], limit: int, *, left: bool) -> NDArray[np.int32]:
    if row.size <= limit:
        return row
    return row[:limit] if left else row[row.size - limit :]


def _ending_in(row: NDArray[np.int32], suffix: NDArray[np.int32]) -> NDArray[np.int32]:
    """A row with its last tokens replaced by a suffix, or by the end of it where that is longer than the row."""
    kept = suffix[max(0, suffix.size - row.size) :]
    return np.concatenate([row[: row.size - kept.size], kept])
