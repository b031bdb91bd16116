"""Measure which backend computes a model fastest on this machine, for ``backend="auto"``.

The choice is cached in the folder ``fastest``. The file name is a hash of the model, the candidate backends and the
properties of the machine: processor, number of cores, graphics cards and package versions. After a change of any of
these, the backends are measured again.
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
from typing import TypeVar

from st_core.backends.graph.folders import cache_root
from st_core.engine.plan import pass_over

__all__ = ["fastest"]

logger = logging.getLogger(__name__)

Built = TypeVar("Built")

PROSE = (
    "A library keeps books so that people who do not own them can read them, and a catalogue says where each of them "
    "stands; "
    "whoever knows neither author nor title asks in words of his own, and hopes that somebody has thought of those "
    "words before. "
)
LENGTHS = (4, 6, 9, 12, 16, 24, 32, 48, 64, 96, 160)
"""The number of words of each timed text: from a short question to a long paragraph."""

SECONDS, ROUNDS = 1.5, 7
"""The limits of the measurement, which follows a warm-up pass.

It ends with the first round after which the time exceeds SECONDS, or after ROUNDS rounds.
"""

PACKAGES = ("st-connectors", "torch", "transformers", "openvino", "onnxruntime", "onnxscript")


def fastest(
    model: str, builders: Mapping[str, Callable[[], Built]], seconds: Callable[[Built, Sequence[str]], float]
) -> Built:
    """Build a model on each backend and return the build that computes texts fastest.

    ``model`` is a hash of the model. ``builders`` maps the name of a backend to a function that builds the model on it.
    ``seconds`` computes texts with a built model and returns the time that it took. If the choice is cached, the model
    is built on that backend only. A backend that cannot run the model is skipped, and a log message states the reason.
    If no backend can run the model, the error of the last backend is raised.
    """
    here = machine()
    root = cache_root()
    place = None if root is None else root / "fastest" / f"{_key(model, list(builders), here)}.json"
    known = _read_choice(place)
    if known is not None and known in builders:
        try:
            return builders[known]()
        except Exception as error:  # noqa: BLE001 - after any error of the cached choice, the other backends are tried
            pass_over(known, error)
    built = _build_all(builders)
    times = _timed(built, seconds) if len(built) > 1 else {}
    chosen = min(built, key=lambda name: times.get(name, float("inf")))
    logger.info("backend='auto' takes %s; seconds for the same texts: %s", chosen, times)
    _write_choice(place, {"backend": chosen, "seconds": times, "machine": here})
    return built[chosen]


def _build_all(builders: Mapping[str, Callable[[], Built]]) -> dict[str, Built]:
    """Build the model on each backend that can run it; raise the error of the last backend if no backend can."""
    built: dict[str, Built] = {}
    for index, (name, build) in enumerate(builders.items()):
        try:
            built[name] = build()
        except Exception as error:
            if index == len(builders) - 1 and not built:
                raise
            pass_over(name, error)
    return built


def _timed(built: Mapping[str, Built], seconds: Callable[[Built, Sequence[str]], float]) -> dict[str, float]:
    """Return the shortest time in seconds of each backend for the same texts.

    Each round runs every backend once, so that other load on the machine affects all backends alike.
    """
    texts = [" ".join((PROSE * 4).split()[:length]) for length in LENGTHS]
    best: dict[str, float] = {}
    for name, each in built.items():
        try:
            seconds(each, texts)
        except Exception as error:  # noqa: BLE001 - runtimes raise their own errors, and another backend may succeed
            pass_over(name, error)
        else:
            best[name] = float("inf")
    if not best:
        raise RuntimeError("backend='auto': no backend computes this model; load it with backend='torch' to see why")
    began = perf_counter()
    for _ in range(ROUNDS):
        for name, least in best.items():
            best[name] = min(least, seconds(built[name], texts))
        if perf_counter() - began > SECONDS:
            break
    return best


def machine() -> dict[str, object]:
    """Return the properties of this machine that the choice of a backend depends on."""
    cards = sorted(path.name for path in Path("/dev").glob("nvidia[0-9]*"))
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "cards": cards,
        "versions": {package: _version(package) for package in PACKAGES},
    }


def _processor() -> str:
    """Return the name of the processor.

    On Linux it is read from /proc/cpuinfo, because ``platform.processor()`` can be empty there.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return name or platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _key(model: str, names: Sequence[str], where: Mapping[str, object]) -> str:
    from xxhash import xxh3_128_hexdigest

    return xxh3_128_hexdigest(json.dumps([model, list(names), where], sort_keys=True).encode())


def _read_choice(place: Path | None) -> str | None:
    """Return the cached choice, or None if there is no readable file with a choice."""
    if place is None:
        return None
    try:
        return str(json.loads(place.read_text("utf-8"))["backend"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_choice(place: Path | None, value: Mapping[str, object]) -> None:
    """Write a choice to the cache, atomically.

    If the cache is not writable, a warning is logged, and the next load measures again.
    """
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
