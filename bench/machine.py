"""Description of the machine, its peak speed, and the cost of a text for a transformer."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

SIZE, CARD_SIZE = 2048, 8192
PACKAGES = (
    "torch",
    "transformers",
    "sentence-transformers",
    "tokenizers",
    "numpy",
    "onnxruntime",
    "openvino",
    "optimum-intel",
    "fastembed",
)


def wait_for(device: str) -> None:
    """Return when a device has finished its work: at once for a CPU, which computes synchronously."""
    if device != "cpu":
        import torch

        torch.cuda.synchronize(device)


def card(device: str) -> str:
    """Return the name of a GPU."""
    import torch

    return torch.cuda.get_device_name(device)


def limit(device: str = "cpu") -> float:
    """Return operations per second of a large float32 matrix product in torch, best of five."""
    import torch

    size = SIZE if device == "cpu" else CARD_SIZE
    left, right = torch.ones(size, size, device=device), torch.ones(size, size, device=device)
    wait_for(device)
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        torch.mm(left, right)
        wait_for(device)
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


def describe(device: str = "cpu") -> dict[str, Any]:
    """Return processor, cores, memory and versions, and the GPU if the device is one."""
    details: dict[str, Any] = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": platform.platform(terse=True),
    }
    details["memory_gb"] = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
    details["python"] = platform.python_version()
    for package in PACKAGES:
        try:
            details[package] = version(package)
        except PackageNotFoundError:
            continue
    return details if device == "cpu" else {"card": card(device), "cuda": _cuda(), **details}


def _cuda() -> str:
    import torch

    return str(torch.version.cuda)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    wide = [flag for flag in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8") if flag in flags]
    return f"{name} ({', '.join(wide)})"


@cache
def _tokenizer(folder: Path) -> Any:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    settings = folder / "sentence_bert_config.json"
    saved = json.loads(settings.read_text(encoding="utf-8")) if settings.is_file() else {}
    tokenizer.enable_truncation(saved.get("max_seq_length") or 512)
    return tokenizer


def token_lengths(folder: Path, inputs: Sequence[Any]) -> list[int]:
    """Return the number of tokens of each text or pair; empty for a folder without a transformer."""
    if not (folder / "tokenizer.json").is_file() or not (folder / "config.json").is_file():
        return []
    return [len(encoding.ids) for encoding in _tokenizer(folder).encode_batch(list(inputs))]


def cost_of_tokens(folder: Path, lengths: Sequence[int]) -> float:
    """Return the floating-point operations of an encoder's matrix products for these lengths, without padding."""
    if not lengths:
        return 0.0
    config: Mapping[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    width = config.get("hidden_size") or config["dim"]
    inner = config.get("intermediate_size") or config["hidden_dim"]
    layers = config.get("num_hidden_layers") or config["n_layers"]
    each = layers * (4 * width * width + 2 * width * inner)
    if any(name.endswith("ForMaskedLM") for name in config.get("architectures") or []):
        each += width * width + width * config["vocab_size"]
    attention = layers * 2 * width
    return float(sum(2 * (each * length + attention * length * length) for length in lengths))
