"""Tokenize texts and pairs of texts with a model's chat template.

A text becomes one message with the role "user", and a pair becomes two messages with the roles "query" and "document".
A prompt becomes a message with the role "system" in front of them. Templates end in fixed tokens. Because models that
pool the last token depend on these tokens, they are restored at the end of a text that was truncated.
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

Message = dict[str, object]

_FORMATS: Mapping[str, str] = dict.fromkeys(("apertus", "deepseek_v3", "gpt_oss", "seed_oss"), "flat")
"""Model types whose templates read plain texts although their source contains one of the signs of a list of parts.

As listed in sentence-transformers 6.2.
"""

_SIGNS = ("content[0]", ".type", "'type'", '"type"', "item.type", "message.content[")
"""Strings in the source of a template which indicate that it reads the content of a message as a list of parts."""

_FILLERS = ("0", "1 2 3 4")
"""Two contents that differ at their beginning and end.

The tokens that two conversations with these contents have in common at their end therefore belong to the template.
"""

_PROBES: tuple[Pair, ...] = (("alpha", "bravo"), ("charlie", "bravo"), ("alpha", "foxtrot"))
"""A pair, the same pair with another query, and the same pair with another document."""


def is_structured(template: object, model_type: str, chat_format: str = "auto") -> bool:
    """Return whether a template reads the content of a message as a list of parts.

    The answer is determined by ``chat_format`` unless it is "auto", then by the model type, then by the source of the
    template.
    """
    chat_format = _FORMATS.get(model_type, chat_format) if chat_format == "auto" else chat_format
    if chat_format != "auto":
        return chat_format == "structured"
    if not isinstance(template, str) or not template:
        return True
    return any(sign in template for sign in _SIGNS)


class PairDropped(ModelUnsupported, ValueError):
    """A chat template omits the query or the document of a pair."""


@dataclass(frozen=True, slots=True)
class ChatTokenizer:
    """A tokenizer with a chat template; safe in threads.

    ``inner`` tokenizes the texts that the template produces. With ``structured``, contents of messages are passed to
    the template as lists of parts. ``options`` are the arguments of the template, and ``restore_suffix``, True by
    default, which restores the last tokens of the template in truncated texts.
    """

    inner: TextTokenizer | SlowTokenizer
    structured: bool
    options: Mapping[str, object] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the inner tokenizer, such as ``pad_id``, ``special_ids`` or ``shown``."""
        return getattr(self.inner, name)

    def tokenize(
        self,
        inputs: Sequence[str] | Sequence[Pair],
        limit: int | None,
        *,
        prompt: str | None = None,
        task: str | None = None,
        options: Mapping[str, object] | None = None,
    ) -> Tokens:
        """Return the ids of texts, or of pairs of texts, truncated to ``limit`` tokens.

        ``task`` is passed to the template, and ``options`` override the saved options. Raises PairDropped if the
        template omits a text of a pair, and ModelBroken if it raises an error.
        """
        chosen = {**({} if task is None else {"task": task}), **self.options, **(options or {})}
        restores = bool(chosen.pop("restore_suffix", True))
        if any(not isinstance(each, str) for each in inputs):
            self._check_pairs(chosen)
        conversations = [self._conversation(each, prompt) for each in inputs]
        rows = self.inner.plain(self._render(conversations, chosen))
        if limit is not None:
            suffixes = self._suffixes(conversations, rows, limit, chosen) if restores else iter(())
            rows = [_cut(row, limit, keep_left=self._cuts_right) for row in rows]
            for index, suffix in suffixes:
                rows[index] = _ending_in(rows[index], suffix)
        return Tokens(rows)

    @property
    def _cuts_right(self) -> bool:
        return getattr(self.inner.shown, "truncation_side", "right") == "right"

    def _content(self, text: str) -> object:
        return [{"type": "text", "text": text}] if self.structured else text

    def _conversation(self, text: str | Pair, prompt: str | None) -> list[Message]:
        roles = [("user", text)] if isinstance(text, str) else [("query", text[0]), ("document", text[1])]
        if prompt:
            roles.insert(0, ("system", prompt))
        return [{"role": role, "content": self._content(content)} for role, content in roles]

    def _render(self, conversations: list[list[Message]], options: Mapping[str, object]) -> list[str]:
        if not conversations:
            return []
        try:
            return list(self.inner.shown.apply_chat_template(conversations, tokenize=False, **options))
        except (ImportError, MemoryError):
            raise
        except Exception as error:  # templates are programs, which can raise any exception
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            name = getattr(self.inner.shown, "name_or_path", "the model")
            raise ModelBroken(f"{name}: the chat template cannot be applied: {reason}") from error

    def _check_pairs(self, options: Mapping[str, object]) -> None:
        """Raise PairDropped if the template omits the query or the document of a pair."""
        base, *others = self._render([self._conversation(probe, None) for probe in _PROBES], options)
        lost = [role for role, other in zip(("query", "document"), others, strict=True) if other == base]
        if lost:
            name = getattr(self.inner.shown, "name_or_path", "the model")
            raise PairDropped(
                f"{name}: the chat template drops the {' and the '.join(lost)} of a pair; "
                "pass one that writes the roles 'query' and 'document' as "
                'processor_kwargs={"chat_template": ...}'
            )

    def _suffixes(
        self,
        conversations: list[list[Message]],
        rows: list[NDArray[np.int32]],
        limit: int,
        options: Mapping[str, object],
    ) -> Iterator[tuple[int, NDArray[np.int32]]]:
        """Yield the index of each row to truncate, with the tokens that the template puts after the contents.

        These tokens are computed once for each sequence of roles.
        """
        known: dict[tuple[object, ...], NDArray[np.int32]] = {}
        for index, row in enumerate(rows):
            if row.size > limit:
                roles = tuple(message["role"] for message in conversations[index])
                if roles not in known:
                    known[roles] = self._suffix(conversations[index], options)
                yield index, known[roles]

    def _suffix(self, conversation: list[Message], options: Mapping[str, object]) -> NDArray[np.int32]:
        """Return the tokens that the template puts after the contents of a conversation.

        They are the common end of two conversations with the same roles and different contents.
        """
        filled = [
            [each if each["role"] == "system" else each | {"content": self._content(filler)} for each in conversation]
            for filler in _FILLERS
        ]
        first, second = self.inner.plain(self._render(filled, options))
        shorter = min(first.size, second.size)
        same = first[first.size - shorter :][::-1] == second[second.size - shorter :][::-1]
        count = int(np.argmin(same)) if not same.all() else 0  # all equal: the template writes no contents
        return first[first.size - count :]


def _cut(row: NDArray[np.int32], limit: int, *, keep_left: bool) -> NDArray[np.int32]:
    if row.size <= limit:
        return row
    return row[:limit] if keep_left else row[row.size - limit :]


def _ending_in(row: NDArray[np.int32], suffix: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return a row with its last tokens replaced by a suffix; a suffix longer than the row is cut at its beginning."""
    end = suffix[max(0, suffix.size - row.size) :]
    return np.concatenate([row[: row.size - end.size], end])
