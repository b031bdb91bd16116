"""Train and finetune models with the names of sentence-transformers 6.2; needs the extra ``train``."""

from __future__ import annotations

from importlib.util import find_spec

from st_core.install import install_command

_MISSING = [name for name in ("torch", "transformers", "accelerate") if find_spec(name) is None]
if _MISSING:
    raise ImportError(f"{_MISSING[0]} is missing: {install_command('train')}", name=_MISSING[0])
