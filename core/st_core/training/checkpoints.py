"""Checkpoints of a training: folders that load as models, with what a training needs to continue."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, no_grad

from st_core.backends.graph.folders import is_out_of_space
from st_core.training.form import Form, save_form

if TYPE_CHECKING:
    from st_core.model import Model
    from st_core.training.objective import Objective

__all__ = [
    "STATE_FILE",
    "check_same_training",
    "is_complete",
    "last_complete",
    "load_objective",
    "save_objective",
    "staged",
]

LOSS_FILE = "loss.safetensors"
"""The parameters that belong to losses and not to the model."""

ADAPTED_FILE = "adapted.safetensors"
"""The trained parameters of a model with an adapter, whose other weights are those of its base."""

IDENTITY_FILE = "training.json"
"""What a training must have in common with the one that a checkpoint continues."""

STATE_FILE = "trainer_state.json"
"""The file that is written last."""


def save_objective(model: Model, objective: Objective, identity: Mapping[str, Any], folder: Path) -> None:
    """Save the model with its current parameters, those of the losses, and the identity of the training."""
    from safetensors.torch import save_file

    save_form(model, objective.form, folder)
    extra = {name: value.contiguous().cpu() for name, value in objective.extra_state_dict().items()}
    if extra:
        save_file(extra, str(folder / LOSS_FILE))
    if objective.form.adapters():
        trained = {name: value.contiguous() for name, value in _trained(objective).items()}
        save_file(trained, str(folder / ADAPTED_FILE))
    (folder / IDENTITY_FILE).write_text(json.dumps(identity, indent=2) + "\n", encoding="utf-8")


def load_objective(model: Model, objective: Objective, folder: Path) -> None:
    """Set all parameters to those of a checkpoint; raise ValueError for one of another model or other losses."""
    from safetensors.torch import load_file

    if objective.form.adapters():
        _load_trained(objective, folder / ADAPTED_FILE)
    else:
        kind: Any = type(model)
        saved = Form(kind(str(folder), device=str(objective.form.device)))
        try:
            objective.form.load_state_dict(saved.state_dict())
        except RuntimeError as error:
            raise ValueError(
                f"{folder}: the checkpoint is of another model: {str(error).splitlines()[-1].strip()}"
            ) from error
    path = folder / LOSS_FILE
    objective.load_extra_state_dict(load_file(str(path)) if path.is_file() else {})


def _trained(objective: Objective) -> dict[str, Tensor]:
    """Return the parameters of the model that are trained beside or in an adapter, by name."""
    parameters = objective.form.named_parameters()
    return {name: value.detach() for name, value in parameters if value.requires_grad}


def _load_trained(objective: Objective, path: Path) -> None:
    """Set the parameters that :func:`_trained` returned; raise ValueError for a checkpoint of others."""
    from safetensors.torch import load_file

    own, saved = _trained(objective), load_file(str(path)) if path.is_file() else {}
    if own.keys() != saved.keys() or any(own[name].shape != saved[name].shape for name in own):
        raise ValueError(
            f"{path.parent}: the checkpoint is of another adapter; resume with the same one, or train anew"
        )
    with no_grad():
        for name, value in saved.items():
            own[name].copy_(value)


def is_complete(folder: Path) -> bool:
    """Return whether a checkpoint was written completely."""
    return (folder / STATE_FILE).is_file()


def last_complete(folder: Path) -> Path | None:
    """Return the last complete checkpoint in an output folder, None if there is none."""
    found = [path for path in folder.glob("checkpoint-*") if path.name.split("-")[-1].isdigit() and is_complete(path)]
    return max(found, key=lambda path: int(path.name.split("-")[-1]), default=None)


@contextmanager
def staged(folder: Path, *, is_first: bool, wait: Callable[[], None]) -> Iterator[Path]:
    """Yield a folder beside another for a checkpoint, which takes its place at the end of the block.

    Several processes write into the folder: the first one creates and moves it, and ``wait`` returns when all have
    called it. If an error occurs, the folder stays as it was; a full disk is named, with the checkpoint to resume from.
    """
    workspace = folder.parent / f".writing-{folder.name}"
    if is_first:
        shutil.rmtree(workspace, ignore_errors=True)
        workspace.mkdir(parents=True)
    wait()
    try:
        yield workspace
        wait()
        if is_first:
            _take_place(workspace / folder.name, folder)
    except Exception as error:
        if workspace.is_dir() and is_out_of_space(error, workspace):
            raise _no_space(folder) from error
        raise
    finally:
        if is_first:
            shutil.rmtree(workspace, ignore_errors=True)
    wait()


def _take_place(new: Path, folder: Path) -> None:
    """Move a folder to the place of another, which may exist."""
    old = folder.parent / f".replaced-{folder.name}"
    if folder.exists():
        folder.replace(old)
    new.replace(folder)
    shutil.rmtree(old, ignore_errors=True)


def _no_space(folder: Path) -> OSError:
    free, last = shutil.disk_usage(folder.parent).free / 1e6, last_complete(folder.parent)
    advice = "train anew" if last is None else f"resume from {last.name} with resume_from_checkpoint=True"
    return OSError(
        errno.ENOSPC,
        f"the checkpoint cannot be written to {folder}: its disk has {free:.1f} MB left; free some space, or set "
        f"save_total_limit, and {advice}",
    )


def check_same_training(folder: Path, identity: Mapping[str, Any]) -> None:
    """Raise ValueError where a checkpoint belongs to a training with other data, losses or arguments."""
    path = folder / IDENTITY_FILE
    if not is_complete(folder) or not path.is_file():
        raise ValueError(f"{folder}: no complete checkpoint of a training; pass the folder of one, or train anew")
    saved = json.loads(path.read_text(encoding="utf-8"))
    other = [name for name in {**saved, **identity} if saved.get(name) != json.loads(json.dumps(identity.get(name)))]
    if other:
        name = other[0]
        raise ValueError(
            f"{folder}: the checkpoint and this training differ in {name}: {_short(saved.get(name))}, now "
            f"{_short(identity.get(name))}; resume with the same data and arguments, or train anew"
        )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:79]}…"
