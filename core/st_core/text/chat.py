"""Tokenize texts and pairs through a model's chat template.

A text is one message of the role "user", a pair two of the roles "query" and "document"; a prompt is an earlier message
of the role "system". Templates end in fixed tokens, which models that read the last token depend on: they are restored
where a long text was cut.
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
"""Families whose template reads plain texts but looks as if it read lists, as listed in sentence-transformers 6.2."""

_SIGNS = ("content[0]", ".type", "'type'", '"type"', "item.type", "message.content[")
"""Signs in the source of a template that reads the content of a message as a list of parts."""

_FILLERS = ("0", "1 2 3 4")
"""Two contents that differ at both ends: the common end of two conversations of them belongs to the template."""

_PROBES: tuple[Pair, ...] = (("alpha", "bravo"), ("charlie", "bravo"), ("alpha", "foxtrot"))
"""A pair, the same with another query, and the same with another document."""


def is_structured(template: object, model_type: str, chat_format: str = "auto") -> bool:
    """Return whether a template reads the content of a message as a list of parts.

    ``chat_format`` decides unless it is "auto", then the family, then the source of the template.
    """
    chat_format = _FORMATS.get(model_type, chat_format) if chat_format == "auto" else chat_format
    if chat_format != "auto":
        return chat_format == "structured"
    if not isinstance(template, str) or not template:
        return True
    return any(sign in template for sign in _SIGNS)


@dataclass(frozen=True, slots=True)
class ChatTokenizer:
    """A tokenizer with a chat template; safe in threads.

    ``inner`` tokenizes the template's text. With ``structured`` contents are lists of parts. ``options`` are the
    template's arguments, and ``restore_suffix``, True by default, for restoring its last tokens.
    """

    inner: TextTokenizer | SlowTokenizer
    structured: bool
    options: Mapping[str, object] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the inner tokenizer: ``pad_id``, ``pad_left``, ``special_ids``, ``shown``, …."""
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
        """Return the ids of texts, or of pairs, cut to ``limit`` tokens; ``options`` override the saved ones.

        Raises ModelUnsupported where the template drops one side of a pair, ModelBroken where it fails.
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
        except Exception as error:  # templates are programs, which raise anything
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            name = getattr(self.inner.shown, "name_or_path", "the model")
            raise ModelBroken(f"{name}: the chat template cannot be applied: {reason}") from error

    def _check_pairs(self, options: Mapping[str, object]) -> None:
        """Raise ModelUnsupported where the template drops the query or the document of a pair."""
        base, *others = self._render([self._conversation(probe, None) for probe in _PROBES], options)
        lost = [role for role, other in zip(("query", "document"), others, strict=True) if other == base]
        if lost:
            name = getattr(self.inner.shown, "name_or_path", "the model")
            raise ModelUnsupported(
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
        """Yield the number of each row that is cut and the suffix of its template, computed once per order of roles."""
        known: dict[tuple[object, ...], NDArray[np.int32]] = {}
        for index, row in enumerate(rows):
            if row.size > limit:
                roles = tuple(message["role"] for message in conversations[index])
                if roles not in known:
                    known[roles] = self._suffix(conversations[index], options)
                yield index, known[roles]

    def _suffix(self, conversation: list[Message], options: Mapping[str, object]) -> NDArray[np.int32]:
        """Return the tokens after the contents of a conversation: the common end of two others of its form."""
        filled = [
            [each if each["role"] == "system" else each | {"content": self._content(filler)} for each in conversation]
            for filler in _FILLERS
        ]
        first, second = self.inner.plain(self._render(filled, options))
        shorter = min(first.size, second.size)
        same = first[first.size - shorter :][::-1] == second[second.size - shorter :][::-1]
        count = int(np.argmin(same)) if not same.all() else 0  # equal throughout: the template writes no content
        return first[first.size - count :]


def _cut(row: NDArray[np.int32], limit: int, *, keep_left: bool) -> NDArray[np.int32]:
    if row.size <= limit:
        return row
    return row[:limit] if keep_left else row[row.size - limit :]


def _ending_in(row: NDArray[np.int32], suffix: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return a row with its last tokens replaced by a suffix, cut at the front where it is longer than the row."""
    end = suffix[max(0, suffix.size - row.size) :]
    return np.concatenate([row[: row.size - end.size], end])
