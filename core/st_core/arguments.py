"""The arguments that are common to the constructors, and to the calls, of all models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict, cast

if TYPE_CHECKING:
    from st_core.engine.plan import Device
    from st_core.processes.pool import WorkerPool

__all__ = ["LoadArguments", "Placement"]


class LoadArguments(TypedDict, total=False):
    """The arguments of all models' constructors, with the names of sentence-transformers.

    ``revision``, ``cache_folder``, ``token`` and ``local_files_only`` are options for downloads from the Hub.
    ``prompts`` override the prompts of the checkpoint. ``model_kwargs``, ``processor_kwargs`` (old name
    ``tokenizer_kwargs``) and ``config_kwargs`` are passed to the loaders of transformers. On onnx and openvino,
    ``model_kwargs={"file_name": "onnx/model_O3.onnx"}`` selects a repository graph, and ``{"export": False}`` the
    default one.

    ``backend`` is torch, onnx, openvino or auto. With auto, the backend that is fastest for the model on this machine
    is measured at the first load. ``dtype`` is float32, float16, bfloat16 or int8; int8 is not available on torch, and
    auto always uses float32. On onnx and openvino the dtype is that of the stored weights: a runtime that cannot
    compute in 16 bits computes in float32. Models of static modules run on numpy under any backend.

    ``modules`` builds a model of modules, such as those in :mod:`st_core.models`, in place of a name. ``init_head``
    adds the head that the class needs, with random weights, to a transformer without one, for training.
    ``model_card_data`` becomes an attribute of the model; it is a :class:`st_core.model_card.ModelCardData` by default.
    """

    modules: Sequence[object] | None
    init_head: bool
    model_card_data: object
    device: Device
    dtype: object
    prompts: Mapping[str, str] | None
    default_prompt_name: str | None
    cache_folder: str | None
    trust_remote_code: bool
    revision: str | None
    local_files_only: bool
    token: bool | str | None
    model_kwargs: Mapping[str, object] | None
    processor_kwargs: Mapping[str, object] | None
    tokenizer_kwargs: Mapping[str, object] | None
    config_kwargs: Mapping[str, object] | None
    backend: str


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a call is computed.

    A call is computed in this process on ``device``, in one new process on each of ``devices``, or in the processes of
    ``pool``. Each process receives ``chunk_size`` inputs at a time.
    """

    device: Device
    devices: list[Device] | None
    pool: WorkerPool | None
    chunk_size: int | None

    @classmethod
    def of(cls, device: Device | Iterable[Device], pool: WorkerPool | None, chunk_size: int | None) -> Placement:
        """Return the placement for the arguments of a call; ``device`` is one device or a list of devices."""
        devices = list(device) if isinstance(device, (list, tuple)) else None
        return cls(None if devices is not None else cast("Device", device), devices, pool, chunk_size)
