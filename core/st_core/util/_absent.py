"""Names of ``sentence_transformers.util`` that have no meaning for a loaded model, and what to use for each."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from inspect import currentframe
from types import FrameType
from typing import Any

__all__ = ["REASONS", "refusals"]

_TRAINING = "import it from sentence_transformers.util, which prepares data for a training"
_GROUPS = "st_core has no torch.distributed groups; pass device=[…] to encode, or call torch.distributed yourself"
_OWN = "it renames arguments of sentence-transformers' own classes; st_core's take both names"

REASONS = {
    "LoggingHandler": "use logging.StreamHandler; progress bars are on standard error",
    "ORIGINAL_TRANSFORMER_MODELS": "pass whole Hub names, such as 'google-bert/bert-base-uncased'",
    "all_gather": _GROUPS,
    "all_gather_padded": _GROUPS,
    "all_gather_with_grad": _GROUPS,
    "check_teacher_targets": _TRAINING,
    "cross_encoder_init_args_decorator": _OWN,
    "cross_encoder_predict_rank_args_decorator": _OWN,
    "deprecated_kwargs": _OWN,
    "disable_datasets_caching": "use datasets.disable_caching and datasets.enable_caching",
    "disabled_tqdm": "set HF_HUB_DISABLE_PROGRESS_BARS=1 to hide the bars of downloads",
    "distributed_evaluation": _GROUPS,
    "get_rank": _GROUPS,
    "get_world_size": _GROUPS,
    "http_get": "use urllib.request.urlretrieve, or curl",
    "import_module_class": "use import_from_string; a model loads its own modules with trust_remote_code=True",
    "install_logger": "use logging.basicConfig",
    "load_dir_path": "use huggingface_hub.snapshot_download",
    "load_file_path": "use huggingface_hub.hf_hub_download",
    "repad_flattened_features": "encode(texts, output_value='token_embeddings') returns one matrix for each text",
    "resolve_ids": _TRAINING,
    "save_to_hub_args_decorator": _OWN,
    "suggest_extra_on_exception": "errors of st_core name the extra to install",
    "transformer_kwargs_decorator": _OWN,
}
"""Each name with a sentence that says what to use."""


def refusals(module: str, where: Mapping[str, str] | None = None) -> Callable[[str], Any]:
    """Return a ``__getattr__`` of a module that imports the names in ``where`` and refuses others.

    ``where`` has the submodule of each name. Others are refused with an ImportError if they are imported, and with an
    AttributeError otherwise, because ``from … import …`` would replace the message of an AttributeError. The errors of
    names in REASONS say what to use.
    """
    found = where or {}

    def get(name: str) -> Any:
        if name in found:
            value = getattr(import_module(f"{module}.{found[name]}"), name)
            setattr(sys.modules[module], name, value)
            return value
        if name in found.values():
            return import_module(f"{module}.{name}")
        message = f"module {module!r} has no attribute {name!r}"
        if name not in REASONS:
            raise AttributeError(message)
        raise (ImportError if _is_import(currentframe()) else AttributeError)(f"{message}: {REASONS[name]}")

    return get


def _is_import(frame: FrameType | None) -> bool:
    """Return whether the caller of a function, given by its frame, runs ``from … import …``."""
    from opcode import opname

    caller = frame.f_back if frame else None
    return caller is not None and opname[caller.f_code.co_code[caller.f_lasti]] == "IMPORT_FROM"
