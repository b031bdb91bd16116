"""A causal language model's answer becomes a score: ``1_LogitScore/config.json``."""

from __future__ import annotations

from dataclasses import dataclass

from st_core.errors import ModelBroken
from st_core.modules import ModuleFiles


@dataclass(frozen=True, slots=True)
class LogitScore:
    """The logit of the token ``true`` at the last position, less that of ``false`` where there is one.

    Each is a token's number, or its text where no file names the number.
    """

    true: int | str
    false: int | str | None
    reads: str = "causal_logits"
    writes: str = "scores"

    @property
    def dimension(self) -> int | None:
        """One score."""
        return 1


def load(files: ModuleFiles) -> LogitScore:
    """Read the configuration; raises ModelBroken where a token has no possible number."""
    config = files.config()
    found: list[int] = []
    for key in ("true_token_id", "false_token_id"):
        value = config.get(key)
        if value is None and key == "false_token_id":
            continue
        if not isinstance(value, int) or value < 0:
            raise ModelBroken(f"{files.folder}: {key} must be the number of a token, found {value!r}")
        found.append(value)
    return LogitScore(
        found[0], found[1] if len(found) > 1 else None, str(config.get("module_input_name") or "causal_logits")
    )
