"""Collect the docstrings of Python's standard library: real text that is present on every machine.

Python sources are parsed, not executed. Names implemented in C are read from imported modules; only modules whose
import has no side effects are listed here.
"""

from __future__ import annotations

import ast
import inspect
import sys
import sysconfig
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from types import ModuleType

__all__ = ["MINIMUM_WORDS", "Docstring", "collect", "has_enough_words"]

MINIMUM_WORDS = 3
"""Docstrings with fewer words are not indexed, because they contain too little information."""

EXCLUDED = frozenset(
    """
    antigravity ensurepip idlelib ntpath pydoc_data test this turtledemo
    aifc asynchat asyncore cgi cgitb chunk distutils imghdr imp lib2to3 mailcap nntplib pipes smtpd sndhdr sunau
    telnetlib uu xdrlib
    """.split()  # noqa: SIM905
)
"""Applications, tests, data, jokes, path functions of another system, and modules that Python 3.12 and 3.13 removed."""

PUBLIC_MODULES = {
    "posixpath": "os.path",
    "genericpath": "os.path",
    "_collections_abc": "collections.abc",
    "_pydatetime": "datetime",
    "_pydecimal": "decimal",
    "_pyio": "io",
    "_strptime": "time",
    "_weakrefset": "weakref",
}
"""Public module by the private module that implements it."""

PACKAGES = """
asyncio concurrent.futures ctypes email.policy importlib.abc importlib.machinery importlib.metadata
importlib.resources json getpass logging multiprocessing sqlite3 tkinter tomllib unittest unittest.mock urllib.request
xml.etree.ElementTree zoneinfo
""".split()  # noqa: SIM905
"""Packages that export names of their submodules, private ones included; importing them has no side effects."""

C_MODULES = """
builtins os os.path sys math cmath time datetime itertools functools operator collections array struct zlib bz2
lzma binascii hashlib hmac re json csv random bisect heapq decimal io string unicodedata codecs select
socket ssl errno atexit gc weakref types inspect marshal mmap threading contextvars queue sqlite3 pickle
copyreg zoneinfo statistics signal resource fcntl pwd grp termios tty syslog faulthandler tracemalloc ast
symtable tokenize warnings asyncio abc enum ctypes multiprocessing secrets uuid
xml.etree.ElementTree xml.parsers.expat
""".split()  # noqa: SIM905  (as a list it would be seventy lines long)
"""Modules that export names implemented in C; importing them has no side effects."""


@dataclass(frozen=True, slots=True)
class Docstring:
    """A documented name: ``kind`` is module, class or function; ``signature`` is empty if it is unknown."""

    name: str
    kind: str
    signature: str
    text: str

    @property
    def module(self) -> str:
        """The top-level module."""
        return self.name.partition(".")[0]


def has_enough_words(docstring: Docstring, minimum: int = MINIMUM_WORDS) -> bool:
    """Return whether a docstring has at least ``minimum`` words, separated by whitespace."""
    return len(docstring.text.split()) >= minimum


def collect() -> list[Docstring]:
    """Return the distinct docstrings that have enough words, under their most public names and sorted by name."""
    with warnings.catch_warnings():
        # Accessing a deprecated name warns, and none of them is used here.
        warnings.simplefilter("ignore", DeprecationWarning)
        candidates = [docstring for docstring in _read_all() if has_enough_words(docstring)]
    by_text: dict[str, Docstring] = {}
    for docstring in candidates:
        previous = by_text.get(docstring.text)
        if previous is None or _publicity(docstring.name) < _publicity(previous.name):
            by_text[docstring.text] = docstring
    by_name: dict[str, Docstring] = {}
    for docstring in by_text.values():
        by_name.setdefault(docstring.name, docstring)
    return [by_name[name] for name in sorted(by_name)]


def _read_all() -> Iterator[Docstring]:
    for name in C_MODULES:
        try:
            module = import_module(name)
        except ImportError:
            continue  # absent on this platform or in this build
        yield from _read_module(module, name)
    root = Path(sysconfig.get_path("stdlib"))
    exported = _exported_names()
    for path in sorted(root.rglob("*.py")):
        module_name = _module_name(path.relative_to(root))
        if module_name is not None:
            for docstring in _read_source(path, module_name):
                name = _public_name(docstring.name, exported)
                if not any(_is_private(part) for part in name.split(".")):
                    yield replace(docstring, name=name)


def _exported_names() -> dict[str, str]:
    """Return the names that packages export from their submodules, by the name under which each is defined."""
    exported: dict[str, str] = {}
    for name in PACKAGES:
        try:
            module = import_module(name)
        except ImportError:
            continue
        for key in sorted({*getattr(module, "__all__", ()), *vars(module)}):
            value = getattr(module, key, None)
            if not (inspect.isclass(value) or inspect.isfunction(value)) or key.startswith("_"):
                continue
            if value.__module__ == name or value.__module__.startswith((f"{name}.", "_")) or "._" in value.__module__:
                exported.setdefault(f"{value.__module__}.{value.__qualname__}", f"{name}.{key}")
    return exported


def _public_name(name: str, exported: Mapping[str, str]) -> str:
    """Return a name with its longest exported prefix replaced by the package's name for it."""
    parts = name.split(".")
    for count in range(len(parts), 1, -1):
        prefix = exported.get(".".join(parts[:count]))
        if prefix is not None:
            return ".".join([prefix, *parts[count:]])
    return name


def _publicity(name: str) -> tuple[int, int, int, str]:
    """Return a sort key, most public first: no private part, then the shortest path, then the shortest first part.

    The last rule prefers ``set`` to ``frozenset``.
    """
    parts = name.split(".")
    return sum(_is_private(part) for part in parts), len(parts), len(parts[0]), name


def _is_private(part: str) -> bool:
    return part.startswith("_") and not (part.startswith("__") and part.endswith("__"))


def _module_name(path: Path) -> str | None:
    """Return the dotted name of a source file of the library, or None for a file that is not read."""
    parts = [*path.parts[:-1], path.stem]
    if parts[0] not in sys.stdlib_module_names or parts[0] in EXCLUDED or "test" in parts or "tests" in parts:
        return None
    top = PUBLIC_MODULES.get(parts[0], parts[0])
    if top.startswith("_"):
        return None
    return ".".join([top, *(part for part in parts[1:] if part != "__init__")])


def _read_source(path: Path, module: str) -> Iterator[Docstring]:
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return  # a file with deliberate syntax errors
    text = ast.get_docstring(tree)
    if text:
        yield Docstring(module, "module", "", text)
    yield from _read_body(tree.body, module)


def _read_body(body: list[ast.stmt], prefix: str) -> Iterator[Docstring]:
    for node in body:
        match node:
            case ast.ClassDef(name=name) if not _is_private(name):
                yield from _read_class(node, f"{prefix}.{name}")
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) if not _is_private(name):
                text = ast.get_docstring(node)
                if text:
                    yield Docstring(f"{prefix}.{name}", "function", f"({ast.unparse(node.args)})", text)
            case ast.If() | ast.Try():
                yield from _read_body(_branches(node), prefix)
            case _:
                pass


def _read_class(node: ast.ClassDef, name: str) -> Iterator[Docstring]:
    """Yield the docstrings of a class and its methods; a class without one takes its constructor's."""
    own_text = ast.get_docstring(node)
    for docstring in _read_body(node.body, name):
        if docstring.name == f"{name}.__init__" and not own_text:
            yield Docstring(name, "class", docstring.signature, docstring.text)
        else:
            yield docstring
    if own_text:
        yield Docstring(name, "class", "", own_text)


def _branches(node: ast.If | ast.Try) -> list[ast.stmt]:
    handlers = [statement for handler in getattr(node, "handlers", []) for statement in handler.body]
    return [*node.body, *handlers, *node.orelse]


def _read_module(module: ModuleType, name: str) -> Iterator[Docstring]:
    """Yield the docstrings of an imported module and of its names implemented in C."""
    text = inspect.cleandoc(module.__doc__ or "")
    if text:
        yield Docstring(name, "module", "", text)
    for key, value in sorted(vars(module).items()):
        if key.startswith("_"):
            continue
        qualified_name = key if name == "builtins" else f"{name}.{key}"
        if not _is_own_name(value, key, name):
            continue
        if inspect.isroutine(value):
            yield from _read_native(value, qualified_name, "function")
        elif inspect.isclass(value):
            yield from _read_native(value, qualified_name, "class")
            for member, method in sorted(vars(value).items()):
                if not member.startswith("_"):
                    yield from _read_native(method, f"{qualified_name}.{member}", "function")


def _is_own_name(value: object, key: str, module: str) -> bool:
    """Return whether a function or class belongs to ``module``.

    A name implemented in C also counts if no other listed module exports it as its own.
    """
    origin = getattr(value, "__module__", None) or module
    home = PUBLIC_MODULES.get(origin, origin.lstrip("_"))
    if module in (home, "builtins"):
        return True
    is_native = inspect.isbuiltin(value) or inspect.ismethod(value)
    return is_native and not (home in C_MODULES and hasattr(import_module(home), key))


def _read_native(value: object, name: str, kind: str) -> Iterator[Docstring]:
    text = getattr(value, "__doc__", None)
    if isinstance(text, str) and text.strip():
        leading_signature, text = _split_signature(inspect.cleandoc(text), name.rpartition(".")[2])
        signature = getattr(value, "__text_signature__", None) or leading_signature
        yield Docstring(name, kind, signature.replace("$self, ", "").replace("$module, ", ""), text)


def _split_signature(text: str, name: str) -> tuple[str, str]:
    """Split a docstring that begins with a paragraph ``name(arguments)`` into the arguments and the rest."""
    first, _, rest = text.partition("\n\n")
    if rest.strip() and first.startswith(f"{name}("):
        return first.removeprefix(name).split("\n")[0], rest.strip()
    return "", text
