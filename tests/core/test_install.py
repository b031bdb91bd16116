"""The command that installs an extra, for each way in which the package can be installed."""

from __future__ import annotations

import json
import shlex
from importlib import metadata

import pytest

from st_core import install
from st_core.errors import missing_extra
from st_core.install import install_command, package_command


class Installed:
    """The metadata of an installed package."""

    def __init__(self, installer, origin):
        self.files = {"INSTALLER": installer, "direct_url.json": origin}

    def read_text(self, name):
        return self.files[name]


EDITABLE = {"url": "file:///home/me/my%20code", "dir_info": {"editable": True}}
FOLDER = {"url": "file:///home/me/code", "dir_info": {}}
COMMIT = {"url": "https://example.org/us/it.git", "vcs_info": {"vcs": "git", "commit_id": "0123abc"}}
WHEEL = {"url": "file:///tmp/st_connectors-0.1.0-py3-none-any.whl", "archive_info": {}}


@pytest.mark.parametrize(
    ("installer", "origin", "command"),
    [
        ("pip\n", None, "pip install 'st-connectors[torch]'"),
        ("uv", None, "uv pip install 'st-connectors[torch]'"),
        (None, "damaged", "pip install 'st-connectors[torch]'"),
        ("pip\n", json.dumps(EDITABLE), "pip install -e '/home/me/my code[torch]'"),
        ("uv", json.dumps(EDITABLE), "uv pip install -e '/home/me/my code[torch]'"),
        ("pip\n", json.dumps(FOLDER), "pip install '/home/me/code[torch]'"),
        ("pip\n", json.dumps(COMMIT), "pip install 'st-connectors[torch] @ git+https://example.org/us/it.git@0123abc'"),
        (
            "pip\n",
            json.dumps(WHEEL),
            "pip install 'st-connectors[torch] @ file:///tmp/st_connectors-0.1.0-py3-none-any.whl'",
        ),
    ],
    ids=["index", "uv", "damaged", "editable", "uv editable", "folder", "commit", "wheel"],
)
def test_the_command_extends_the_installation_that_runs(monkeypatch, installer, origin, command):
    """A package index may not have this version, or may have another package."""
    monkeypatch.setattr(install, "distribution", lambda _: Installed(installer, origin))

    assert install_command("torch") == command
    assert str(missing_extra("torch", "it")) == f"it needs the extra 'torch': {command}"


@pytest.mark.parametrize(("installer", "tool"), [("pip\n", "pip"), ("uv", "uv pip"), (None, "pip")])
def test_other_packages_are_installed_by_the_same_tool(monkeypatch, installer, tool):
    """Quoted for a shell."""
    monkeypatch.setattr(install, "distribution", lambda _: Installed(installer, None))

    assert package_command(["psycopg[binary]", "pyarrow"]) == f"{tool} install 'psycopg[binary]' pyarrow"


def test_the_command_without_an_installation(monkeypatch):
    """The source folder can be on the path."""

    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(install, "distribution", missing)
    assert install_command("torch") == "pip install 'st-connectors[torch]'"


def test_the_command_of_this_installation_names_an_existing_folder(request):
    """The tests run in a checkout."""
    *_, requirement = shlex.split(install_command("torch"))
    assert requirement in {f"{request.config.rootpath}[torch]", "st-connectors[torch]"}
