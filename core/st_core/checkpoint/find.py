"""Resolve the name of a model to a local folder: an existing folder, a built-in model or a download from the Hub."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from st_core import builtin
from st_core.checkpoint.files import is_present, read_object, read_optional_object
from st_core.errors import ModelError, ModelNotFound, PathIsFile
from st_core.home import expand_home

__all__ = ["ADAPTER", "Fetch", "adapter_base", "find_checkpoint"]


HUB_PATTERNS = (
    "*.jinja",
    "*.json",
    "*.py",
    "*.txt",
    "*.model",
    "*.safetensors",
    "*.spm",
    "*.tiktoken",
    "*.bpe",
    "*.codes",
    "*.tokenizer",
    "[1-9]_*/pytorch_model.bin",
    "*_linear.pt",
    "adapter_model.bin",
)
"""Patterns of the files to download from the Hub.

The transformer's ``*.bin`` files are downloaded only if it has no safetensors files. Other modules often have only
``pytorch_model.bin``, even if the transformer's weights were converted. Python files are downloaded, but run only with
``trust_remote_code``.
"""

OTHER_FORMATS = ("onnx/*", "openvino/*", "coreml/*", "tf/*", "graphs/*")


@dataclass(frozen=True, slots=True)
class Fetch:
    """The files of a Hub repository to download.

    ``weights`` is whether to download the transformer's weights, and ``graphs`` are patterns of graph files.
    ``instead`` are patterns of the graph files to download from a repository without weights.
    """

    weights: bool = True
    graphs: tuple[str, ...] = ()
    instead: tuple[str, ...] = ()

    @property
    def allowed(self) -> list[str]:
        """The patterns of the files to download."""
        plain = [each for each in HUB_PATTERNS if self.weights or not each.startswith("*.safetensors")]
        return [*plain, *([] if self.weights else ["*/*.safetensors"]), *self.graphs]

    @property
    def ignored(self) -> list[str]:
        """The patterns of the files to leave out."""
        folders = {each.removeprefix("*/").partition("/")[0] for each in self.graphs}
        other = [each for each in OTHER_FORMATS if each.partition("/")[0] not in folders and "*" not in folders]
        return [*other, *([] if self.weights else ["*Transformer/*.safetensors"])]

    def is_met(self, folder: Path) -> bool:
        """Return whether a downloaded folder contains one of the graphs; True if no graphs are required."""
        return not self.graphs or any(any(folder.glob(each)) for each in self.graphs)


# Names on the Hub that were published without an organisation. Any other name without an organisation gets that of the
# model class.
_BARE_NAMES = frozenset(
    """
    albert-base-v1 albert-base-v2 albert-large-v1 albert-large-v2 albert-xlarge-v1 albert-xlarge-v2 albert-xxlarge-v1
    albert-xxlarge-v2 bert-base-cased-finetuned-mrpc bert-base-cased bert-base-chinese bert-base-german-cased
    bert-base-german-dbmdz-cased bert-base-german-dbmdz-uncased bert-base-multilingual-cased
    bert-base-multilingual-uncased bert-base-uncased bert-large-cased bert-large-cased-whole-word-masking
    bert-large-cased-whole-word-masking-finetuned-squad bert-large-uncased bert-large-uncased-whole-word-masking
    bert-large-uncased-whole-word-masking-finetuned-squad camembert-base ctrl distilbert-base-cased
    distilbert-base-cased-distilled-squad distilbert-base-german-cased distilbert-base-multilingual-cased
    distilbert-base-uncased distilbert-base-uncased-distilled-squad distilbert-base-uncased-finetuned-sst-2-english
    distilgpt2 distilroberta-base gpt2 gpt2-large gpt2-medium gpt2-xl openai-gpt roberta-base
    roberta-base-openai-detector roberta-large roberta-large-mnli roberta-large-openai-detector t5-11b t5-3b t5-base
    t5-large t5-small transfo-xl-wt103 xlm-clm-ende-1024 xlm-clm-enfr-1024 xlm-mlm-100-1280 xlm-mlm-17-1280
    xlm-mlm-en-2048 xlm-mlm-ende-1024 xlm-mlm-enfr-1024 xlm-mlm-enro-1024 xlm-mlm-tlm-xnli15-1024 xlm-mlm-xnli15-1024
    xlm-roberta-base xlm-roberta-large xlm-roberta-large-finetuned-conll02-dutch
    xlm-roberta-large-finetuned-conll02-spanish xlm-roberta-large-finetuned-conll03-english
    xlm-roberta-large-finetuned-conll03-german xlnet-base-cased xlnet-large-cased
    """.split()  # noqa: SIM905 - eighty names read better as text
)

_EXPECTED = "a folder with a checkpoint, a Hub name or a built-in model"


def find_checkpoint(
    name: str,
    *,
    organisation: str,
    revision: str | None = None,
    cache_folder: str | None = None,
    token: bool | str | None = None,
    local_files_only: bool = False,
    fetch: Sequence[Fetch] = (Fetch(),),
) -> tuple[Path, str, str | None]:
    """Return the local folder, the full name and the revision of a folder, a built-in model or a model on the Hub.

    A model on the Hub is downloaded. A name without an organisation gets the prefix ``organisation``, except for a few
    old models. ``fetch`` contains alternatives: the first one whose graphs the repository contains is downloaded, or
    else the last one. Raises ModelNotFound if there is no such model, or if it cannot be downloaded.
    """
    if name.startswith(builtin.PREFIX):
        return builtin.path(name), name, None
    if not name:
        raise ModelNotFound(f"no folder ''; expected {_EXPECTED}")
    try:
        path = Path(expand_home(name))
        is_folder, is_file = path.is_dir(), path.is_file()
    except (OSError, ValueError) as error:  # no permission, a name too long, no home folder
        reason = error.strerror if isinstance(error, OSError) else error
        raise ModelNotFound(f"no model {name[:200]!r}: the path cannot be read: {reason}") from error
    if is_folder:
        return path, name, revision
    if is_file:
        raise PathIsFile(f"{name!r} is a file, not a directory; expected {_EXPECTED}")
    looks_local = name.count("/") > 1 or name.startswith((".", "/", "~")) or (os.sep == "\\" and "\\" in name)
    if looks_local:
        raise ModelNotFound(f"no folder {name!r}; expected {_EXPECTED}")
    if "/" not in name and name.lower() not in _BARE_NAMES:
        name = f"{organisation}/{name}"
    folder = _download(name, revision, cache_folder, token, fetch, local_files_only=local_files_only)
    is_commit = len(folder.name) == 40
    return folder, name, folder.name if is_commit else revision


def _download(
    name: str,
    revision: str | None,
    cache_folder: str | None,
    token: bool | str | None,
    alternatives: Sequence[Fetch],
    *,
    local_files_only: bool,
) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    cache = cache_folder or os.environ.get("SENTENCE_TRANSFORMERS_HOME")

    def download(patterns: list[str], ignored: list[str]) -> Path:
        return Path(
            snapshot_download(
                name,
                revision=revision,
                cache_dir=expand_home(cache) if cache else None,
                token=token,
                local_files_only=local_files_only,
                allow_patterns=patterns,
                ignore_patterns=ignored,
            )
        )

    try:
        for fetch in alternatives:
            folder = download(fetch.allowed, fetch.ignored)
            if fetch.is_met(folder):
                break
        if not fetch.weights and not fetch.is_met(folder):
            _raise_without_graph(name, revision, token, fetch, local_files_only=local_files_only)
        if fetch.weights and _lacks_weights(folder):
            folder = download([*fetch.allowed, "*.bin"], fetch.ignored)
            if fetch.instead and _lacks_weights(folder, pickled=True):
                graphs = Fetch(weights=False, graphs=fetch.instead)
                folder = download(graphs.allowed, graphs.ignored)
    except HFValidationError as error:
        raise ModelNotFound(f"{name!r} is neither a folder nor a valid Hub name: {error}") from error
    except ModelError:
        raise
    except Exception as error:  # huggingface_hub does not wrap errors of its HTTP client and of the file system
        raise ModelNotFound(_download_error(name, revision, error, local_files_only=local_files_only)) from error
    return folder


def _raise_without_graph(
    name: str, revision: str | None, token: bool | str | None, fetch: Fetch, *, local_files_only: bool
) -> None:
    """Raise ModelNotFound for a repository without the requested graph; the message lists the graphs it contains."""
    message = f"the Hub model {name!r} has no graph {fetch.graphs[0]!r}"
    if local_files_only:
        raise ModelNotFound(f"{message} in the local cache (local_files_only=True)")
    from huggingface_hub import HfApi

    suffix = PurePosixPath(fetch.graphs[0]).suffix
    files = HfApi(token=token).list_repo_files(name, revision=revision)
    raise ModelNotFound(f"{message}; graphs: {', '.join(each for each in files if each.endswith(suffix)) or 'none'}")


def _lacks_weights(folder: Path, *, pickled: bool = False) -> bool:
    """Return whether a transformer in the folder or its subfolders has no safetensors files.

    With ``pickled``, files of pickled weights count as well.
    """
    patterns = ("*.safetensors", *(("pytorch_model*.bin", "adapter_model.bin") if pickled else ()))
    transformers = [path.parent for path in folder.rglob("config.json") if "model_type" in read_optional_object(path)]
    return not all(any(any(each.glob(one)) for one in patterns) for each in transformers or [folder])


def _download_error(name: str, revision: str | None, error: Exception, *, local_files_only: bool) -> str:
    """Return the error message for a name that is not a folder and cannot be downloaded from the Hub."""
    message = f"no folder {name!r}, and the Hub model {name!r}" + (f" at revision {revision!r}" if revision else "")
    if local_files_only:
        return f"{message} is not in the local cache (local_files_only=True)"
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"{message} cannot be downloaded ({reason}); check the name, the network and the token"


ADAPTER = "adapter_config.json"
"""The file that marks the folder of a PEFT adapter, whose base model is another checkpoint."""


def adapter_base(folder: Path, hub: Mapping[str, Any]) -> Path | None:
    """Return the local folder of the base model of an adapter; None for a folder without an adapter.

    ``hub`` are options of :func:`find_checkpoint`. Raises ModelBroken if the adapter names no base model, and
    ModelNotFound if the base model does not exist.
    """
    if not is_present(folder / ADAPTER):
        return None
    adapter = read_object(folder / ADAPTER)
    base = adapter.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise adapter.broken("base_model_name_or_path", "the name of the adapter's base model")
    try:
        return find_checkpoint(base, organisation="sentence-transformers", **hub)[0]
    except ModelNotFound as error:
        raise ModelNotFound(f"{folder / ADAPTER}: base model: {error}") from error
