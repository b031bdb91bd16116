"""Start an assembled node in a folder of its own, wait until it responds, and stop it."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import http.client
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from integration.nodes.assemble import assemble, jdk_for
from integration.nodes.recipes import Recipe

__all__ = ["Running", "StartError", "run"]

_HEAP = "1g"
_POLL_S = 0.2
_REQUEST_S = 5.0
_OWN_FOLDERS = ("config", "data", "logs", "tmp")
_LOCK = "run.lock"
_YOUNG_S = 60.0
"""Seconds; a lock file this new may belong to a run that is about to lock it."""
_UNPRIVILEGED = "nobody"
_LOG_LINES = 40


class StartError(RuntimeError):
    """A node did not start; the message ends with the last lines of its log."""


@dataclass(frozen=True, slots=True)
class Running:
    """A running node: its address, its process, and the seconds it took to start."""

    url: str
    process: int
    boot_s: float


@contextlib.contextmanager
def run(recipe: Recipe, *, port: int = 0, patience_s: float = 240.0) -> Iterator[Running]:
    """Yield a node, assembled first if needed; port 0 lets the system choose.

    Its data is removed afterwards, and the node ends when this process dies. Raises ``AssemblyError`` or
    ``StartError``.
    """
    kept = assemble(recipe)
    java = jdk_for(recipe).java
    with _home(recipe, kept, port) as home, (home / "console.log").open("wb") as console:
        somebody = pwd.getpwnam(_UNPRIVILEGED) if _is_root() else None
        started = time.monotonic()
        process = subprocess.Popen(
            _command(recipe, java, home),
            cwd=home,
            env=_environment(home),
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509 (one system call, no lock taken)
            # OpenSearch refuses to run as root.
            user=somebody.pw_uid if somebody else None,
            group=somebody.pw_gid if somebody else None,
            extra_groups=[] if somebody else None,
        )
        try:
            url = _wait(recipe, process, home, deadline=started + patience_s)
            yield Running(url, process.pid, time.monotonic() - started)
        finally:
            _end(process)


@contextlib.contextmanager
def _home(recipe: Recipe, kept: Path, port: int) -> Iterator[Path]:
    """Create a copy of the cached node from hard links, so that runs share no mutable files and take no space."""
    _sweep(recipe)
    with (
        tempfile.TemporaryDirectory(prefix=f"{recipe.title}-", ignore_cleanup_errors=True) as folder,
        (Path(folder) / _LOCK).open("w") as lock,
    ):
        fcntl.flock(lock, fcntl.LOCK_EX)
        home = Path(folder)
        shutil.copytree(kept, home, copy_function=_link, dirs_exist_ok=True)
        settings = {**recipe.settings, "http.port": str(port)}
        lines = [f"{key}: {value}\n" for key, value in settings.items()]
        (home / "config" / recipe.config).write_text("".join(lines), encoding="utf-8")
        if _is_root():
            for path in (home, *(home / name for name in _OWN_FOLDERS)):
                shutil.chown(path, _UNPRIVILEGED)
        home.chmod(0o755)
        yield home


def _sweep(recipe: Recipe) -> None:
    """Remove the folders of runs whose process was killed, whose locks are free."""
    for lock in Path(tempfile.gettempdir()).glob(f"{recipe.title}-*/{_LOCK}"):
        with contextlib.suppress(OSError), lock.open() as opened:
            if time.time() - lock.stat().st_mtime > _YOUNG_S:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(lock.parent, ignore_errors=True)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        # Another file system, or one without links.
        shutil.copy(source, target)


def _command(recipe: Recipe, java: Path, home: Path) -> list[str]:
    common = [f"-Xms{_HEAP}", f"-Xmx{_HEAP}", f"-Djava.io.tmpdir={home}/tmp", "-Dlog4j2.disable.jmx=true"]
    flags = [flag.replace("{home}", str(home)) for flag in recipe.flags]
    return [str(java), *common, *flags, "-cp", f"{home}/lib/*", recipe.main]


def _environment(home: Path) -> dict[str, str]:
    """Return a minimal environment, so that options for other Java programs do not affect the node."""
    return {"PATH": os.defpath, "HOME": str(home), "TMPDIR": f"{home}/tmp", "LANG": "C.UTF-8"}


def _is_root() -> bool:
    return os.geteuid() == 0


def _die_with_parent() -> None:
    """Ask Linux to end this process when its parent ends, for any reason."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # 1 is PR_SET_PDEATHSIG


def _wait(recipe: Recipe, process: subprocess.Popen[bytes], home: Path, *, deadline: float) -> str:
    while time.monotonic() < deadline:
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = process.wait(_POLL_S)
            raise StartError(f"{recipe.title}: the node ended with {code} before it answered\n{_log(home)}")
        url = _address(home)
        if url and _answers(url):
            return url
    raise StartError(f"{recipe.title}: the node did not answer in time\n{_log(home)}")


def _address(home: Path) -> str | None:
    """Return the address that the node wrote to its ports file, or None if there is none yet."""
    try:
        lines = (home / "logs" / "http.ports").read_text(encoding="utf-8").split()
    except FileNotFoundError:
        return None
    return next((f"http://{line}" for line in lines if line.startswith("127.0.0.1:")), None)


def _answers(url: str) -> bool:
    request = f"{url}/_cluster/health?wait_for_status=yellow&timeout=1s"
    try:
        with urllib.request.urlopen(request, timeout=_REQUEST_S) as answer:
            return json.load(answer)["status"] in {"yellow", "green"}
    except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError):
        return False


def _log(home: Path) -> str:
    text = (home / "console.log").read_text(encoding="utf-8", errors="replace")
    return "\n".join(text.splitlines()[-_LOG_LINES:])


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the node: an orderly shutdown of OpenSearch takes ten seconds, and its data is removed anyway."""
    process.kill()
    process.wait()
