"""Resolve a model name to a local folder: a folder, a built-in model, or a download from the Hub."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from st_core import builtin
from st_core.checkpoint.files import is_there, read_object
from st_core.errors import ModelBroken, ModelError, ModelNotFound

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
"""What is fetched from the Hub; the transformer's ``*.bin`` follows only where it has no safetensors. The small modules behind it often
have nothing else, even where the transformer was converted. Code is read only where the caller trusts it."""

OTHER_FORMATS = ("onnx/*", "openvino/*", "coreml/*", "tf/*", "graphs/*")


@dataclass(frozen=True, slots=True)
class Fetch:
    """What to fetch of a repository on the Hub: with ``weights`` or without those of the transformer, and ``graphs``, patterns of file names."""

    weights: bool = True
    graphs: tuple[str, ...] = ()

    @property
    def allowed(self) -> list[str]:
        """The patterns to fetch."""
        plain = [each for each in HUB_PATTERNS if self.weights or not each.startswith("*.safetensors")]
        return [*plain, *([] if self.weights else ["*/*.safetensors"]), *self.graphs]

    @property
    def ignored(self) -> list[str]:
        """The patterns to leave out of these."""
        folders = {each.removeprefix("*/").partition("/")[0] for each in self.graphs}
        other = [each for each in OTHER_FORMATS if each.partition("/")[0] not in folders and "*" not in folders]
        return [*other, *([] if self.weights else ["*Transformer/*.safetensors"])]

    def met(self, folder: Path) -> bool:
        """Whether what was fetched holds a graph, or none was asked for."""
        return not self.graphs or any(any(folder.glob(each)) for each in self.graphs)


# Names published without an organisation before organisations existed; a bare name outside this list gets the family's organisation.
_BARE_NAMES = frozenset(
    """
    albert-base-v1 albert-base-v2 albert-large-v1 albert-large-v2 albert-xlarge-v1 albert-xlarge-v2 albert-xxlarge-v1 albert-xxlarge-v2
    bert-base-cased-finetuned-mrpc bert-base-cased bert-base-chinese bert-base-german-cased bert-base-german-dbmdz-cased
    bert-base-german-dbmdz-uncased bert-base-multilingual-cased bert-base-multilingual-uncased bert-base-uncased bert-large-cased
    bert-large-cased-whole-word-masking bert-large-cased-whole-word-masking-finetuned-squad bert-large-uncased
    bert-large-uncased-whole-word-masking bert-large-uncased-whole-word-masking-finetuned-squad camembert-base ctrl
    distilbert-base-cased distilbert-base-cased-distilled-squad distilbert-base-german-cased distilbert-base-multilingual-cased
    distilbert-base-uncased distilbert-base-uncased-distilled-squad distilbert-base-uncased-finetuned-sst-2-english distilgpt2
    distilroberta-base gpt2 gpt2-large gpt2-medium gpt2-xl openai-gpt roberta-base roberta-base-openai-detector roberta-large
    roberta-large-mnli roberta-large-openai-detector t5-11b t5-3b t5-base t5-large t5-small transfo-xl-wt103 xlm-clm-ende-1024
    xlm-clm-enfr-1024 xlm-mlm-100-1280 xlm-mlm-17-1280 xlm-mlm-en-2048 xlm-mlm-ende-1024 xlm-mlm-enfr-1024 xlm-mlm-enro-1024
    xlm-mlm-tlm-xnli15-1024 xlm-mlm-xnli15-1024 xlm-roberta-base xlm-roberta-large xlm-roberta-large-finetuned-conll02-dutch
    xlm-roberta-large-finetuned-conll02-spanish xlm-roberta-large-finetuned-conll03-english
    xlm-roberta-large-finetuned-conll03-german xlnet-base-cased xlnet-large-cased
    """.split()  # noqa: SIM905 - eighty names read better as text
)


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
    """The local folder of a model, its full name and its revision: a folder, a built-in's name, or a Hub name, which is downloaded.

    A bare Hub name gets ``organisation`` in front unless it is one of the old names without one. Of ``fetch`` the first is downloaded whose graphs the
    repository has, else the last. Raises ModelNotFound.
    """
    if name.startswith(builtin.PREFIX):
        return builtin.path(name), name, None
    if not name:
        raise ModelNotFound("there is no folder ''; expected a folder with a checkpoint, a Hub name or a built-in")
    try:
        path = Path(name).expanduser()
        is_folder, is_file = path.is_dir(), path.is_file()
    except (OSError, RuntimeError) as error:  # no permission, a name too long, no such user
        raise ModelNotFound(f"{name[:200]!r} cannot be looked for: {error}") from error
    if is_folder:
        return path, name, revision
    if is_file:
        raise ModelNotFound(f"{name!r} is a file; expected a folder with a checkpoint, a Hub name or a built-in")
    looks_local = name.count("/") > 1 or name.startswith((".", "/", "~")) or (os.sep == "\\" and "\\" in name)
    if looks_local:
        raise ModelNotFound(
            f"there is no folder {name!r}; expected a folder with a checkpoint, a Hub name or a built-in"
        )
    if "/" not in name and name.lower() not in _BARE_NAMES:
        name = f"{organisation}/{name}"
    folder = _download(name, revision, cache_folder, token, fetch, local_files_only=local_files_only)
    return folder, name, folder.name if len(folder.name) == 40 else revision  # a commit's hash


def _download(
    name: str,
    revision: str | None,
    cache_folder: str | None,
    token: bool | str | None,
    wanted: Sequence[Fetch],
    *,
    local_files_only: bool,
) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    def fetch(patterns: list[str], ignored: list[str]) -> Path:
        return Path(
            snapshot_download(
                name,
                revision=revision,
                cache_dir=cache_folder or os.environ.get("SENTENCE_TRANSFORMERS_HOME"),
                token=token,
                local_files_only=local_files_only,
                allow_patterns=patterns,
                ignore_patterns=ignored,
            )
        )

    try:
        for each in wanted:
            folder = fetch(each.allowed, each.ignored)
            if each.met(folder):
                break
        if not each.weights and not each.met(folder):
            _refuse_without_graph(name, revision, token, each, local_files_only=local_files_only)
        if each.weights and _lacks_weights(folder):
            folder = fetch([*each.allowed, "*.bin"], each.ignored)
    except HFValidationError as error:
        raise ModelNotFound(f"{name!r} is neither a folder nor a possible Hub name: {error}") from error
    except ModelError:
        raise
    except Exception as error:  # the Hub's library lets all errors of its HTTP client through, and those of the disk
        raise ModelNotFound(_why_not_downloaded(name, revision, error, local_files_only=local_files_only)) from error
    return folder


def _refuse_without_graph(
    name: str, revision: str | None, token: bool | str | None, wanted: Fetch, *, local_files_only: bool
) -> None:
    """Raise ModelNotFound for a repository that lacks the graph that was asked for by name, saying what it has."""
    message = f"the Hub model {name!r} holds no graph {wanted.graphs[0]!r}"
    if local_files_only:
        raise ModelNotFound(f"{message} in the local cache (local_files_only=True)")
    from huggingface_hub import HfApi

    ending = PurePosixPath(wanted.graphs[0]).suffix
    files = HfApi(token=token).list_repo_files(name, revision=revision)
    raise ModelNotFound(f"{message}; there are: {', '.join(each for each in files if each.endswith(ending)) or 'none'}")


def _lacks_weights(folder: Path) -> bool:
    """Whether a transformer in the folder, or below it, has no safetensors."""
    transformers = [path.parent for path in folder.rglob("config.json") if "model_type" in read_object(path)]
    return not all(any(each.glob("*.safetensors")) for each in transformers or [folder])


def _why_not_downloaded(name: str, revision: str | None, error: Exception, *, local_files_only: bool) -> str:
    what = f"{name!r}" + (f" at revision {revision!r}" if revision else "")
    if local_files_only:
        return f"no folder {name!r}, and the Hub model {what} is not in the local cache (local_files_only=True)"
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"no folder {name!r}, and the Hub model {what} cannot be fetched ({reason}); check the name, the network and the token"


ADAPTER = "adapter_config.json"
"""Marks a folder of a PEFT adapter, whose model is another checkpoint."""


def adapter_base(folder: Path, hub: Mapping[str, Any]) -> Path | None:
    """The local folder of the model that the adapter in a folder belongs to, None where there is no adapter.

    ``hub`` are options of :func:`find_checkpoint`. Raises ModelBroken for an adapter that names no model, ModelNotFound for one that is
    not there.
    """
    if not is_there(folder / ADAPTER):
        return None
    named = read_object(folder / ADAPTER).get("base_model_name_or_path")
    if not isinstance(named, str) or not named:
        raise ModelBroken(f"{folder / ADAPTER}: base_model_name_or_path must name the adapter's model, found {named!r}")
    try:
        return find_checkpoint(named, organisation="sentence-transformers", **hub)[0]
    except ModelNotFound as error:
        raise ModelNotFound(f"{folder / ADAPTER}: the adapter's model: {error}") from error
