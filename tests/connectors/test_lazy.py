"""Names and functions whose modules are imported on first use."""

from __future__ import annotations

import re
import sys

import pytest

from st_connectors.lazy import lazy_attributes, lazy_function
from st_core.install import install_command


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Create a package with a submodule ``inner``, and one that imports a missing driver."""
    folder = tmp_path / "lazy_example"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "inner.py").write_text("def double(value):\n    return 2 * value\n")
    (folder / "driven.py").write_text("import absent_driver.part\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "lazy_example"
    for name in [each for each in sys.modules if each.partition(".")[0] == "lazy_example"]:
        del sys.modules[name]


def test_a_name_is_imported_once(package):
    """Afterwards it is an attribute of the package; other names have no attribute."""
    module = __import__(package)
    get = lazy_attributes(package, {"double": "inner"})

    assert f"{package}.inner" not in sys.modules
    assert get("double")(4) == 8
    assert module.double is get("double")
    with pytest.raises(AttributeError, match="module 'lazy_example' has no attribute 'triple'"):
        get("triple")


def test_a_function_is_imported_when_it_is_called(package):
    """Positional and keyword arguments are passed on."""
    double = lazy_function(f"{package}.inner", "double", extra="inner", drivers=())

    assert f"{package}.inner" not in sys.modules
    assert double(3) == double(value=3) == 6


def test_a_missing_driver_names_the_extra(package):
    """The message is the command that installs it."""
    options = {"extra": "example", "drivers": ("absent_driver",)}
    message = f"^absent_driver is missing: {re.escape(install_command('example'))}$"
    with pytest.raises(ImportError, match=message):
        lazy_attributes(package, {"read": "driven"}, **options)("read")
    with pytest.raises(ImportError, match=message):
        lazy_function(f"{package}.driven", "read", **options)()


def test_other_missing_modules_are_no_missing_driver(package):
    """They are faults of the package or of its installation."""
    with pytest.raises(ModuleNotFoundError, match="absent_driver"):
        lazy_function(f"{package}.driven", "read", extra="example", drivers=("another_driver",))()
