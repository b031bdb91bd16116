"""A score from the answer of a causal language model: ``1_LogitScore/config.json``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from st_core.checkpoint.files import JsonObject
from st_core.modules import ModuleFiles, Parts, unchangeable

__all__ = ["LogitScore"]


@unchangeable
@dataclass(frozen=True, slots=True)
class LogitScore:
    """Subtracts the logit of the token ``false``, unless it is None, from that of ``true``, at the last position.

    Tokens are ids, or texts where the checkpoint contains no ids.
    """

    type_path: ClassVar[str] = "sentence_transformers.cross_encoder.modules.logit_score.LogitScore"
    old_names: ClassVar[tuple[str, ...]] = ()
    reads_text: ClassVar[bool] = False
    is_traceable: ClassVar[bool] = False

    true: int | str
    false: int | str | None
    reads: str = "causal_logits"
    writes: str = "scores"

    @property
    def requires(self) -> str | None:
        """The feature that contains the logits."""
        return self.reads

    @property
    def dimension(self) -> int | None:
        """1, the number of scores."""
        return 1

    @classmethod
    def load(cls, files: ModuleFiles) -> LogitScore:
        """Return the module in a folder; raise ModelBroken for an impossible token id."""
        config = files.config()
        true = _token_id(config, "true_token_id")
        false = None if config.get("false_token_id") is None else _token_id(config, "false_token_id")
        return cls(true, false, config.text("module_input_name", "causal_logits"))

    def save(self) -> Parts:
        """Return the configuration."""
        config = {"true_token_id": self.true, "false_token_id": self.false, "module_input_name": self.reads}
        return Parts({"config.json": config})


def _token_id(config: JsonObject, key: str) -> int:
    value = config.get(key)
    if not isinstance(value, int) or value < 0:
        raise config.broken(key, "the id of a token")
    return value
