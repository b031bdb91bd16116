"""The built wheel, installed into a fresh environment, as a newcomer gets it: two packages, no torch, and a demo that answers."""

import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def wheel() -> Path:
    """The wheel named by ``make test-wheel``."""
    path = os.environ.get("ST_WHEEL")
    if not path:
        pytest.fail("ST_WHEEL does not name a wheel: run `make test-wheel`")
    return Path(path).resolve()


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment that holds the wheel with the extra of the embedded store; its folder of programs."""
    root = tmp_path_factory.mktemp("fresh")
    target = f"{wheel}[qdrant]"
    if uv := shutil.which("uv"):
        subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, root / "venv"], check=True)
        subprocess.run([uv, "pip", "install", "--quiet", "--python", root / "venv/bin/python", target], check=True)
    else:
        venv.create(root / "venv", with_pip=True)
        subprocess.run([root / "venv/bin/python", "-m", "pip", "install", "--quiet", target], check=True)
    return root / "venv" / "bin"


def run(folder: Path, program: Path, *arguments: str) -> str:
    """Run a program of the environment in an empty folder, with nothing of this checkout in reach, and give its output."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV", "ST_"))}
    done = subprocess.run([program, *arguments], cwd=folder, env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_wheel_holds_two_packages(wheel):
    """The wheel's top level is st_core, st_connectors and the metadata, and nothing else."""
    names = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}

    assert {name for name in names if not name.endswith(".dist-info")} == {"st_core", "st_connectors"}


def test_wheel_is_typed_and_light(wheel):
    """Both packages carry py.typed; the built-in models stay under 10 MB; no test or benchmark travels."""
    files = zipfile.ZipFile(wheel).infolist()

    assert {"st_core/py.typed", "st_connectors/py.typed"} <= {file.filename for file in files}
    assert 0 < sum(file.file_size for file in files if "/builtin/" in file.filename) <= 10_000_000
    assert not [
        file.filename for file in files if file.filename.split("/")[0] in {"tests", "bench", "core", "integration"}
    ]


def test_import_without_torch(environment, tmp_path):
    """The light installation has no torch and no transformers, and both packages import and encode."""
    program = (
        "import importlib.util as u, st_core, st_connectors;"
        "assert not u.find_spec('torch') and not u.find_spec('transformers');"
        "print(st_core.SentenceTransformer('builtin:dense').encode('a word').shape[0] > 0, st_connectors.__version__)"
    )

    assert run(tmp_path, environment / "python", "-c", program).split()[0] == "True"


def test_demo_from_the_wheel(environment, tmp_path):
    """The demo indexes the standard library from the installed wheel, and the search it recommends finds the function."""
    output = run(tmp_path, environment / "st-connectors", "demo")
    assert "st-connectors search" in output

    arguments = [
        "search",
        "copy a directory tree",
        "--in",
        "qdrant+edge:demo-index",
        "--collection",
        "python-docs",
        "--json",
    ]
    answer = json.loads(run(tmp_path, environment / "st-connectors", *arguments))
    assert "shutil.copytree" in [hit["id"] for hit in answer["hits"][:3]]
