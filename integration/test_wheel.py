"""The built wheel in a fresh environment: two packages, no torch, a working demo, and third-party adapters."""

import json
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def wheel() -> Path:
    """Return the wheel named by ``make test-wheel``."""
    path = os.environ.get("ST_WHEEL")
    if not path:
        pytest.fail("ST_WHEEL does not name a wheel: run `make test-wheel`")
    return Path(path).resolve()


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of programs of a fresh environment with the wheel and the extra of the embedded store."""
    return fresh(tmp_path_factory.mktemp("fresh"), f"{wheel}[qdrant]")


def fresh(root: Path, *targets: str | Path) -> Path:
    """Create an environment with some packages, and return its folder of programs."""
    if shutil.which("uv"):
        subprocess.run(["uv", "venv", "--quiet", "--python", sys.executable, root / "venv"], check=True)
    else:
        venv.create(root / "venv", with_pip=True)
    install(root / "venv" / "bin", *targets)
    return root / "venv" / "bin"


def install(programs: Path, *targets: str | Path) -> None:
    """Install packages."""
    python = programs / "python"
    if uv := shutil.which("uv"):
        subprocess.run([uv, "pip", "install", "--quiet", "--python", python, *targets], check=True)
    else:
        subprocess.run([python, "-m", "pip", "install", "--quiet", *targets], check=True)


def run(folder: Path, program: Path, *arguments: str, status: int = 0) -> str:
    """Run a program of an environment in a folder without access to this checkout, and return its output."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV", "ST_"))}
    done = subprocess.run([program, *arguments], cwd=folder, env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == status, f"{done.stdout[-3000:]}{done.stderr}"
    return done.stdout


def test_wheel_holds_two_packages(wheel):
    """The top level of the wheel is st_core, st_connectors and the metadata."""
    names = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}

    assert {name for name in names if not name.endswith(".dist-info")} == {"st_core", "st_connectors"}


def test_wheel_is_typed_and_light(wheel):
    """Both packages contain py.typed, the wheel has all built-in models and at most 25 MB, and no test or benchmark."""
    files = zipfile.ZipFile(wheel).infolist()

    assert {"st_core/py.typed", "st_connectors/py.typed"} <= {file.filename for file in files}
    weights = [Path(file.filename) for file in files if file.filename.endswith("model.safetensors")]
    assert {path.parts[2] for path in weights if path.parts[1] == "builtin"} == {"dense", "sparse", "rerank"}
    assert wheel.stat().st_size <= 25_000_000
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
    """The demo of the installed wheel works, and the search it recommends returns the expected function."""
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


PAGE = Path(__file__).parents[1] / "docs" / "writing-an-adapter.md"
SIGN = "-float(np.linalg.norm(vector - wide))"


def adapter(folder: Path, wheel: Path, planted: str | None = None) -> Path:
    """Build the page's adapter from its blocks, install it with the wheel, and return the programs of that environment.

    ``planted`` replaces the line with the sign.
    """
    package = folder / "package"
    package.mkdir()
    page = PAGE.read_text(encoding="utf-8")
    for name, text in re.findall(r"^`([\w.]+)`\n\n```\w+\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
        assert (SIGN in text) is (name == "shelf.py")
        (package / name).write_text(text if planted is None else text.replace(SIGN, planted), encoding="utf-8")
    return fresh(folder, f"{wheel}[testing]", package)


@pytest.fixture(scope="module")
def shelf(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the programs of an environment with the wheel and a third-party distribution."""
    return adapter(tmp_path_factory.mktemp("shelf"), wheel)


def test_an_adapter_of_somebody_else_conforms(shelf, tmp_path):
    """The installed wheel finds the adapter by its entry point, and the suite passes by address."""
    assert "shelf" in json.loads(run(tmp_path, shelf / "st-connectors", "stores", "--json"))

    report = json.loads(run(tmp_path, shelf / "st-connectors", "conform", "shelf:here.db", "--json"))
    outcomes = [result["outcome"] for result in report["results"]]
    assert report["passed"]
    assert outcomes.count("passed") > 300
    assert outcomes.count("skipped") <= 0.05 * len(outcomes)  # what the store does not declare


def test_the_six_line_subclass_conforms(shelf, tmp_path):
    """The suite passes in the adapter's own tests with pytest."""
    shutil.copy(shelf.parents[1] / "package" / "test_shelf.py", tmp_path)

    printed = run(tmp_path, shelf / "python", "-m", "pytest", "-q", "test_shelf.py")
    assert int(re.search(r"(\d+) passed", printed)[1]) > 300


def test_a_planted_fault_is_found_and_named(wheel, tmp_path):
    """With the sign of the distance removed, the run fails and reports the broken rules."""
    programs = adapter(tmp_path, wheel, planted=SIGN.removeprefix("-"))

    report = json.loads(run(tmp_path, programs / "st-connectors", "conform", "shelf:here.db", "--json", status=3))
    failures = {result["test"]: result["reason"] for result in report["results"] if result["outcome"] == "failed"}
    assert not report["passed"]
    assert set(failures) == {
        "test_dense_scores_equal_the_oracle[euclidean]",
        "test_scores_have_their_plain_meaning[euclidean]",
    }
    assert "assert" in failures["test_scores_have_their_plain_meaning[euclidean]"]
