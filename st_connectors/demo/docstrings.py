"""The docstrings of Python's standard library: real text that every machine has.

Python sources are parsed, not run. Names written in C are read from modules that do nothing when imported, listed here.
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

__all__ = ["Docstring", "collect"]

LEAST_WORDS = 3

LEFT_OUT = frozenset(
    """
    antigravity ensurepip idlelib ntpath pydoc_data test this turtledemo
    aifc asynchat asyncore cgi cgitb chunk distutils imghdr imp lib2to3 mailcap nntplib pipes smtpd sndhdr sunau telnetlib uu xdrlib
    """.split()  # noqa: SIM905
)
"""Applications, tests, data, jokes, paths of another system, and what Python 3.12 and 3.13 have removed."""

KNOWN_AS = {
    "posixpath": "os.path",
    "genericpath": "os.path",
    "_collections_abc": "collections.abc",
    "_pydatetime": "datetime",
    "_pydecimal": "decimal",
    "_pyio": "io",
    "_strptime": "time",
    "_weakrefset": "weakref",
}
"""Modules whose names people know from another module."""

PACKAGES = """
asyncio concurrent.futures ctypes email.policy importlib.abc importlib.machinery importlib.metadata importlib.resources json
getpass logging multiprocessing sqlite3 tkinter tomllib unittest unittest.mock urllib.request xml.etree.ElementTree zoneinfo
""".split()  # noqa: SIM905
"""Packages that offer names of their submodules, private ones too, as their own; their import has no effect of its own."""

NATIVE = """
builtins os os.path sys math cmath time datetime itertools functools operator collections array struct zlib bz2
lzma binascii hashlib hmac re json csv random bisect heapq decimal io string unicodedata codecs select
socket ssl errno atexit gc weakref types inspect marshal mmap threading contextvars queue sqlite3 pickle
copyreg zoneinfo statistics signal resource fcntl pwd grp termios tty syslog faulthandler tracemalloc ast
symtable tokenize warnings asyncio abc enum ctypes multiprocessing secrets uuid
xml.etree.ElementTree xml.parsers.expat
""".split()  # noqa: SIM905  (as a list it would be seventy lines long)
"""Modules whose import has no effect of its own and which have names written in C."""


@dataclass(frozen=True, slots=True)
class Docstring:
    """One documented name: ``kind`` is module, class or function, ``signature`` the arguments as written, where they are known."""

    name: str
    kind: str
    signature: str
    text: str

    @property
    def module(self) -> str:
        """The top-level module."""
        return self.name.partition(".")[0]


def collect() -> list[Docstring]:
    """Every distinct docstring of five words or more under its most public name, sorted by name."""
    best: dict[str, Docstring] = {}
    with warnings.catch_warnings():
        # Looking at a deprecated name is enough for a warning, and nothing here uses one.
        warnings.simplefilter("ignore", DeprecationWarning)
        everything = list(_all())
    for found in everything:
        if len(found.text.split()) < LEAST_WORDS:
            continue
        known = best.get(found.text)
        if known is None or _rank(found.name) < _rank(known.name):
            best[found.text] = found
    names: dict[str, Docstring] = {}
    for found in best.values():
        names.setdefault(found.name, found)
    return sorted(names.values(), key=lambda found: found.name)


def _all() -> Iterator[Docstring]:
    for name in NATIVE:
        try:
            module = import_module(name)
        except ImportError:
            continue  # not on this platform, or left out of this build
        yield from _of_module(module, name)
    root = Path(sysconfig.get_path("stdlib"))
    known = _known_names()
    for path in sorted(root.rglob("*.py")):
        module_name = _module_name(path.relative_to(root))
        if module_name is not None:
            for found in _of_source(path, module_name):
                name = _known(found.name, known)
                if not any(_is_private(part) for part in name.split(".")):
                    yield replace(found, name=name)


def _known_names() -> dict[str, str]:
    """The names by which packages offer what their submodules define, by the names under which it is defined."""
    known: dict[str, str] = {}
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
                known.setdefault(f"{value.__module__}.{value.__qualname__}", f"{name}.{key}")
    return known


def _known(name: str, known: Mapping[str, str]) -> str:
    """A name, or the beginning of it, as its package offers it."""
    parts = name.split(".")
    for count in range(len(parts), 1, -1):
        offered = known.get(".".join(parts[:count]))
        if offered is not None:
            return ".".join([offered, *parts[count:]])
    return name


def _rank(name: str) -> tuple[int, int, int, str]:
    """The most public name first: no private part, then the shortest path, then the shortest first part (set, not frozenset)."""
    parts = name.split(".")
    return sum(_is_private(part) for part in parts), len(parts), len(parts[0]), name


def _is_private(part: str) -> bool:
    return part.startswith("_") and not (part.startswith("__") and part.endswith("__"))


def _module_name(path: Path) -> str | None:
    """The dotted name of a source file of the library, or None where it is not for reading."""
    parts = [*path.parts[:-1], path.stem]
    if parts[0] not in sys.stdlib_module_names or parts[0] in LEFT_OUT or "test" in parts or "tests" in parts:
        return None
    top = KNOWN_AS.get(parts[0], parts[0])
    if top.startswith("_"):
        return None
    return ".".join([top, *(part for part in parts[1:] if part != "__init__")])


def _of_source(path: Path, module: str) -> Iterator[Docstring]:
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return  # a file that shows bad syntax on purpose
    text = ast.get_docstring(tree)
    if text:
        yield Docstring(module, "module", "", text)
    yield from _of_body(tree.body, module)


def _of_body(body: list[ast.stmt], prefix: str) -> Iterator[Docstring]:
    for node in body:
        match node:
            case ast.ClassDef(name=name) if not _is_private(name):
                yield from _of_class(node, f"{prefix}.{name}")
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) if not _is_private(name):
                text = ast.get_docstring(node)
                if text:
                    yield Docstring(f"{prefix}.{name}", "function", f"({ast.unparse(node.args)})", text)
            case ast.If() | ast.Try():
                yield from _of_body(_branches(node), prefix)
            case _:
                pass


def _of_class(node: ast.ClassDef, name: str) -> Iterator[Docstring]:
    """A class and its methods; where it has no docstring of its own, its constructor's speaks for it."""
    own = ast.get_docstring(node)
    for found in _of_body(node.body, name):
        if found.name == f"{name}.__init__" and not own:
            yield Docstring(name, "class", found.signature, found.text)
        else:
            yield found
    if own:
        yield Docstring(name, "class", "", own)


def _branches(node: ast.If | ast.Try) -> list[ast.stmt]:
    handlers = [statement for handler in getattr(node, "handlers", []) for statement in handler.body]
    return [*node.body, *handlers, *node.orelse]


def _of_module(module: ModuleType, name: str) -> Iterator[Docstring]:
    """The names of an imported module that are written in C, and the module itself."""
    text = inspect.cleandoc(module.__doc__ or "")
    if text:
        yield Docstring(name, "module", "", text)
    for key, value in sorted(vars(module).items()):
        if key.startswith("_"):
            continue
        full = key if name == "builtins" else f"{name}.{key}"
        if not _belongs(value, key, name):
            continue
        if inspect.isroutine(value):
            yield from _native(value, full, "function")
        elif inspect.isclass(value):
            yield from _native(value, full, "class")
            for member, method in sorted(vars(value).items()):
                if not member.startswith("_"):
                    yield from _native(method, f"{full}.{member}", "function")


def _belongs(value: object, key: str, module: str) -> bool:
    """Whether a function or class is the module's own, or one written in C that no other of these modules offers as its own."""
    origin = getattr(value, "__module__", None) or module
    home = KNOWN_AS.get(origin, origin.lstrip("_"))
    if module in (home, "builtins"):
        return True
    native = inspect.isbuiltin(value) or inspect.ismethod(value)
    return native and not (home in NATIVE and hasattr(import_module(home), key))


def _native(value: object, name: str, kind: str) -> Iterator[Docstring]:
    text = getattr(value, "__doc__", None)
    if isinstance(text, str) and text.strip():
        written, text = _signature_apart(inspect.cleandoc(text), name.rpartition(".")[2])
        signature = getattr(value, "__text_signature__", None) or written
        yield Docstring(name, kind, signature.replace("$self, ", "").replace("$module, ", ""), text)


def _signature_apart(text: str, name: str) -> tuple[str, str]:
    """The arguments and the rest of a docstring that begins with ``name(arguments)`` in a paragraph of its own."""
    first, _, rest = text.partition("\n\n")
    if rest.strip() and first.startswith(f"{name}("):
        return first.removeprefix(name).split("\n")[0], rest.strip()
    return "", text
