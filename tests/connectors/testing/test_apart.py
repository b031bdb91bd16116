"""Nothing else imports the suite, and without pytest its import error says what to install."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import st_connectors
from st_core.install import install_command

WITHOUT = """
import sys
sys.modules["pytest"] = None
try:
    import st_connectors.testing
except ImportError as error:
    print(error)
"""


def imported_at_once(tree):
    """Return the names that a module imports on import, without those inside functions and for type checkers."""
    for node in tree.body if isinstance(tree, ast.Module) else ast.iter_child_nodes(tree):
        match node:
            case ast.Import(names):
                yield from (name.name for name in names)
            case ast.ImportFrom(module):
                yield module
            case ast.If(ast.Name("TYPE_CHECKING")) | ast.FunctionDef() | ast.AsyncFunctionDef():
                continue
            case _:
                yield from imported_at_once(node)


def test_nothing_else_imports_the_suite():
    """No module outside the suite imports it, pytest or hypothesis on import, so that they are not dependencies."""
    package = Path(st_connectors.__file__).parent
    modules = [path for path in package.rglob("*.py") if "testing" not in path.relative_to(package).parts]
    importers = {
        (str(path.relative_to(package)), name)
        for path in modules
        for name in imported_at_once(ast.parse(path.read_text()))
        if name.startswith(("pytest", "hypothesis", "st_connectors.testing"))
    }
    assert len(modules) > 20
    assert importers == set()


def test_without_pytest_the_import_says_what_to_install():
    """The error contains the exact install command."""
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=True)
    assert install_command("testing") in done.stdout
