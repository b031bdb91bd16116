"""The arguments that the constructors and the calls of all models share."""

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

    ``revision``, ``cache_folder``, ``token`` and ``local_files_only`` are for the Hub. ``prompts`` override the
    checkpoint's. ``model_kwargs``, ``processor_kwargs`` (old name ``tokenizer_kwargs``) and ``config_kwargs`` go to
    transformers' loaders; on onnx and openvino ``model_kwargs={"file_name": "onnx/model_O3.onnx"}`` names a repository
    graph.

    ``backend`` is torch, onnx, openvino or auto: the fastest of these for the model on this machine, measured at the
    first load. ``dtype`` is float32, float16, bfloat16 or, not on torch, int8, and with auto always float32. On onnx
    and openvino it is the dtype of the stored weights; 16-bit weights are computed in float32 where the runtime has no
    better way. Models of static modules run on numpy under any backend. ``modules`` is refused: a model is loaded from
    a checkpoint.
    """

    modules: Sequence[object] | None
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
    """Where a call computes: on ``device`` here, in a process on each of ``devices``, or in ``pool``.

    Processes get ``chunk_size`` inputs at a time.
    """

    device: Device
    devices: list[Device] | None
    pool: WorkerPool | None
    chunk_size: int | None

    @classmethod
    def of(cls, device: Device | Iterable[Device], pool: WorkerPool | None, chunk_size: int | None) -> Placement:
        """Return the placement for the arguments of a call, where ``device`` is a device or a list of them."""
        devices = list(device) if isinstance(device, (list, tuple)) else None
        return cls(None if devices is not None else cast("Device", device), devices, pool, chunk_size)
