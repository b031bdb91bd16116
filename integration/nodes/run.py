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


class Running:
    """A node: its address while it runs, its process, and the seconds that it took to start."""

    def __init__(self, recipe: Recipe, home: Path, port: int, patience_s: float) -> None:
        """Store the arguments; port 0 lets the system choose at the first start."""
        self.url = ""
        self.boot_s = 0.0
        self._recipe = recipe
        self._java = jdk_for(recipe).java
        self._home = home
        self._port = port
        self._patience_s = patience_s
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> int:
        """The number of the process; 0 if the node does not run."""
        return 0 if self._process is None else self._process.pid

    def start(self) -> None:
        """Start the node, again on the same port and with its data after ``kill``; raise ``StartError``.

        The node ends when the thread that starts it ends.
        """
        _configure(self._recipe, self._home, self._port)
        somebody = pwd.getpwnam(_UNPRIVILEGED) if _is_root() else None
        started = time.monotonic()
        with (self._home / "console.log").open("wb") as console:
            self._process = subprocess.Popen(
                _command(self._recipe, self._java, self._home),
                cwd=self._home,
                env=_environment(self._home),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509 (one system call, no lock taken)
                # OpenSearch refuses to run as root.
                user=somebody.pw_uid if somebody else None,
                group=somebody.pw_gid if somebody else None,
                extra_groups=[] if somebody else None,
            )
        self.url = _wait(self._recipe, self._process, self._home, deadline=started + self._patience_s)
        self.boot_s = time.monotonic() - started
        self._port = int(self.url.rpartition(":")[2])

    def kill(self) -> None:
        """Kill the node if it runs; its data stays.

        It is not shut down, which takes OpenSearch ten seconds.
        """
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextlib.contextmanager
def run(recipe: Recipe, *, port: int = 0, patience_s: float = 240.0) -> Iterator[Running]:
    """Yield a node, assembled first if needed; port 0 lets the system choose.

    Its data is removed afterwards, and the node ends when this process dies. Raises ``AssemblyError`` or
    ``StartError``.
    """
    kept = assemble(recipe)
    with _home(recipe, kept) as home:
        node = Running(recipe, home, port, patience_s)
        try:
            node.start()
            yield node
        finally:
            node.kill()


@contextlib.contextmanager
def _home(recipe: Recipe, kept: Path) -> Iterator[Path]:
    """Create a copy of the cached node from hard links, so that runs share no mutable files and take no space."""
    _sweep(recipe)
    with (
        tempfile.TemporaryDirectory(prefix=f"{recipe.title}-", ignore_cleanup_errors=True) as folder,
        (Path(folder) / _LOCK).open("w") as lock,
    ):
        fcntl.flock(lock, fcntl.LOCK_EX)
        home = Path(folder)
        shutil.copytree(kept, home, copy_function=_link, dirs_exist_ok=True)
        if _is_root():
            for path in (home, *(home / name for name in _OWN_FOLDERS)):
                shutil.chown(path, _UNPRIVILEGED)
        home.chmod(0o755)
        yield home


def _configure(recipe: Recipe, home: Path, port: int) -> None:
    """Write the settings of a node, and remove the address that it wrote when it ran before."""
    settings = {**recipe.settings, "http.port": str(port)}
    lines = [f"{key}: {value}\n" for key, value in settings.items()]
    (home / "config" / recipe.config).write_text("".join(lines), encoding="utf-8")
    (home / "logs" / "http.ports").unlink(missing_ok=True)


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
