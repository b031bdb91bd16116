"""Write the weights of a transformer in each of several processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["writing_on_every_rank"]


@contextmanager
def writing_on_every_rank(model: PreTrainedModel) -> Iterator[None]:
    """Let each of several processes write; transformers 5.23 writes in the first one only, whatever the folder."""
    model.should_save_on_this_rank = lambda is_main_process: is_main_process
    try:
        yield
    finally:
        del model.should_save_on_this_rank
