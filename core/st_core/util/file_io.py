"""Whether a name is a model's, under the import path of ``sentence_transformers.util.file_io``."""

from __future__ import annotations

from pathlib import Path

from st_core.util._absent import refusals

__all__ = ["is_sentence_transformer_model"]

__getattr__ = refusals(__name__)


def is_sentence_transformer_model(
    model_name_or_path: str,
    token: bool | str | None = None,
    cache_folder: str | None = None,
    revision: str | None = None,
    local_files_only: bool = False,
) -> bool:
    """Return whether a folder or a Hub repository contains ``modules.json``.

    Errors of the Hub other than a missing file are raised unchanged.
    """
    folder = Path(model_name_or_path)
    if folder.is_dir():
        return (folder / "modules.json").is_file()
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        hf_hub_download(
            model_name_or_path,
            "modules.json",
            revision=revision,
            cache_dir=cache_folder,
            token=token,
            local_files_only=local_files_only,
        )
    except LocalEntryNotFoundError:
        if local_files_only:
            return False
        raise
    except EntryNotFoundError:
        return False
    return True
