"""The image and the unit name options, extras and variables that exist."""

from __future__ import annotations

import configparser
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer.main

from st_connectors.cli import app

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


def options():
    """The options of ``serve``."""
    command = typer.main.get_command(app).commands["serve"]
    return {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}


def test_the_image():
    """Its extras are declared, and its command parses; nothing runs as root."""
    text = (DEPLOY / "Containerfile").read_text("utf-8")
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    [extras] = re.findall(r"/src\[([\w,]+)\]", text)
    [entry] = re.findall(r"^ENTRYPOINT (.*)$", text, re.MULTILINE)
    words = json.loads(entry)

    assert set(extras.split(",")) <= declared.keys()
    assert words[:2] == ["st-connectors", "serve"]
    assert {word for word in words if word.startswith("--")} <= options()
    [user] = re.findall(r"^USER (.*)$", text, re.MULTILINE)
    assert int(user) > 0
    assert f"--uid {user} " in text
    assert set(re.findall(r"--[a-z-]+", text.partition("FROM")[0])) <= options()


def test_the_unit():
    """Its command parses, and it stops later than the server needs for its running requests."""
    unit = configparser.ConfigParser(strict=False)
    unit.optionxform = str
    unit.read(DEPLOY / "st-connectors.service", encoding="utf-8")
    words = unit["Service"]["ExecStart"].split()

    assert words[1] == "serve"
    assert {word for word in words if word.startswith("--")} <= options()
    assert int(unit["Service"]["TimeoutStopSec"]) > 30


def test_systemd_reads_the_unit(tmp_path):
    """All settings are known and have values that it understands."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("needs systemd-analyze")
    text = (DEPLOY / "st-connectors.service").read_text("utf-8")
    unit = tmp_path / "st-connectors.service"
    unit.write_text(re.sub(r"(?<=ExecStart=)\S+", sys.executable, text), "utf-8")

    found = subprocess.run([analyze, "verify", str(unit)], capture_output=True, text=True, check=False)

    assert (found.returncode, found.stdout + found.stderr) == (0, "")
