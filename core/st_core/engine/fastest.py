"""``backend="auto"``: which backend computes a model fastest in float32 on this machine, measured once and remembered.

The choice is kept in the folder ``fastest`` of the cache, under a hash of the model, of the backends there were to choose from and of the machine:
processor, cores and versions. Whatever of these changes, it is measured again.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from st_core.backends.graph.kept import cache_root
from st_core.engine.call import Call
from st_core.engine.engine import Engine

if TYPE_CHECKING:
    from st_core.backends import Features

__all__ = ["fastest", "pass_over"]

logger = logging.getLogger(__name__)

PROSE = (
    "A library keeps books so that people who do not own them can read them, and a catalogue says where each of them stands; "
    "whoever knows neither author nor title asks in words of his own, and hopes that somebody has thought of those words before. "
)
LENGTHS = (4, 6, 9, 12, 16, 24, 32, 48, 64, 96, 160)
"""Words of each text that is timed: from a short question to a long paragraph."""

SECONDS, ROUNDS = 1.5, 7
"""How long the timing goes on after a first pass for warming up, and how often at most; the round that is begun is finished."""

PACKAGES = ("st-connectors", "torch", "transformers", "openvino", "onnxruntime", "onnxscript")


def fastest(model: str, names: Sequence[str], make: Callable[[str], Engine], task: str | None) -> Engine:
    """The model on the fastest of the backends ``names``, each made by ``make``; ``model`` is a hash of it, ``task`` what is timed.

    A backend that cannot run the model is passed over, and the log says why; where none can, the last one's error is raised.
    """
    if len(names) == 1:
        return make(names[0])
    here = machine()
    root = cache_root()
    place = None if root is None else root / "fastest" / f"{_key(model, names, here)}.json"
    known = _remembered(place)
    if known is not None and known in names:
        try:
            return make(known)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it now, the others are tried
            pass_over(known, error)
    engines = _made(names, make)
    seconds = _timed(engines, task) if len(engines) > 1 else {}
    chosen = min(engines, key=lambda name: seconds.get(name, float("inf")))
    logger.info("backend='auto' takes %s; seconds for the same texts: %s", chosen, seconds)
    _remember(place, {"backend": chosen, "seconds": seconds, "machine": here})
    return engines[chosen]


def _made(names: Sequence[str], make: Callable[[str], Engine]) -> dict[str, Engine]:
    """The model on each backend that can run it; raises the last one's error where there is none."""
    engines: dict[str, Engine] = {}
    for index, name in enumerate(names):
        try:
            engines[name] = make(name)
        except Exception as error:
            if index == len(names) - 1 and not engines:
                raise
            pass_over(name, error)
    return engines


def pass_over(name: str, error: Exception) -> None:
    """Say in the log why a backend is not used."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    logger.warning("backend='auto' passes over %s: %s", name, reason)


def _timed(engines: Mapping[str, Engine], task: str | None) -> dict[str, float]:
    """The shortest time in which each backend did the same texts; rounds are interleaved, so that a busy machine disturbs all alike."""
    texts = [" ".join((PROSE * 4).split()[:length]) for length in LENGTHS]
    best: dict[str, float] = {}
    for name, engine in engines.items():
        try:
            _once(engine, texts, task)
        except Exception as error:  # noqa: BLE001 - runtimes raise errors of their own; the others may do
            pass_over(name, error)
        else:
            best[name] = float("inf")
    if not best:
        raise RuntimeError("backend='auto': no backend computes this model; load it with backend='torch' to see why")
    began = perf_counter()
    for _ in range(ROUNDS):
        for name, least in best.items():
            best[name] = min(least, _once(engines[name], texts, task))
        if perf_counter() - began > SECONDS:
            break
    return best


def _once(engine: Engine, texts: Sequence[str], task: str | None) -> float:
    began = perf_counter()
    for _, features in engine.run(texts, Call(task=task, progress=False)):
        _wait(features)
    return perf_counter() - began


def _wait(features: Features) -> None:
    """Wait until a result is there: a card is handed its work and computes it later."""
    for name in ("scores", "sentence_embedding"):
        if hasattr(features.get(name), "cpu"):
            features[name].cpu()


def machine() -> dict[str, Any]:
    """What of a machine a choice depends on."""
    cards = sorted(path.name for path in Path("/dev").glob("nvidia[0-9]*"))
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "cards": cards,
        "versions": {package: _version(package) for package in PACKAGES},
    }


def _processor() -> str:
    """Its name where the system tells it; Python's own answer is empty on Linux."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    named = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return named or platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _key(model: str, names: Sequence[str], where: Mapping[str, Any]) -> str:
    from xxhash import xxh3_128_hexdigest

    return xxh3_128_hexdigest(json.dumps([model, list(names), where], sort_keys=True).encode())


def _remembered(place: Path | None) -> str | None:
    """The backend kept at a place, None where there is nothing that can be read."""
    if place is None:
        return None
    try:
        return str(json.loads(place.read_text("utf-8"))["backend"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remember(place: Path | None, value: Mapping[str, Any]) -> None:
    """Keep a choice, whole or not at all; a cache that is not there or cannot be written to only means measuring again."""
    if place is None:
        logger.warning("backend='auto' cannot keep its choice: the user has no home folder; set ST_CONNECTORS_CACHE")
        return
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=place.parent, suffix=".new", delete=False, encoding="utf-8") as file:
            json.dump(value, file, indent=1)
        Path(file.name).replace(place)
    except OSError as error:
        logger.warning("backend='auto' cannot keep its choice in %s: %s", place.parent, error)
