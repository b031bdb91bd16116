"""Addresses of databases, such as ``sqlite:PATH`` or ``postgresql://USER@HOST/NAME``; passwords are never shown."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote

from st_core.home import expand_home

__all__ = ["IN_MEMORY", "PASSWORD", "SqlUrl", "parse_sql_url"]

PASSWORD = "ST_SQL_PASSWORD"  # noqa: S105  # the name of a variable
"""The environment variable of the password, if the address has none."""

FILES = frozenset({"sqlite", "duckdb"})
"""The databases that are files, whose address is a path."""
IN_MEMORY = frozenset({"", ":memory:"})
"""The paths of databases in memory."""
SERVERS = frozenset({"postgresql", "mysql"})
"""The databases that are servers, whose address has a host."""

_URL = re.compile(r"([a-z][a-z0-9_-]*)(?:\+([a-z0-9_.-]+))?:(.*)", re.DOTALL)
_ALIASES = {"postgres": "postgresql", "mariadb": "mysql"}
_SECRET = re.compile(r"(?i)key|token|secret|passw|pwd|auth|credential")
EXPECTED = "expected an address such as sqlite:PATH, duckdb:PATH, postgresql://USER@HOST/NAME or mysql://USER@HOST/NAME"


@dataclass(frozen=True, slots=True, repr=False)
class SqlUrl:
    """The address of a database.

    ``scheme`` is the kind of database, ``driver`` the name after a ``+``, or "". ``place`` is the rest without user and
    password: a path, or what precedes and follows them.
    """

    scheme: str
    driver: str
    place: tuple[str, str]
    user: str = ""
    password: str = ""

    def __repr__(self) -> str:
        return f"SqlUrl({self.shown!r})"

    @property
    def path(self) -> str:
        """The path of a database that is a file, empty for one in memory; else the address without scheme and user."""
        return "".join(self.place)

    @property
    def shown(self) -> str:
        """The address in messages: without user, password and options."""
        driver = f"+{self.driver}" if self.driver else ""
        place = self.path if self.scheme == "sqlite" else self.path.partition("?")[0]
        return f"{self.scheme}{driver}:{place}".removesuffix(":")

    @property
    def identity(self) -> str:
        """The address by which a later run recognizes the database: paths are absolute, secrets are left out."""
        driver = f"+{self.driver}" if self.driver else ""
        if self.scheme in FILES:
            path = self.path if self.path in IN_MEMORY else str(Path(self.path).absolute())
            return f"{self.scheme}{driver}:{path}"
        before, after = self.place
        user = f"{quote(self.user, safe='')}@" if self.user else ""
        return self.hide(f"{self.scheme}{driver}:{before}{user}{after}")

    def uri(self, *, has_user: bool = True) -> str:
        """Return the address as drivers take it, with or without user and password."""
        before, after = self.place
        scheme = f"{self.scheme}:" if before == "//" else ""
        password = f":{quote(self.password, safe='')}" if self.password else ""
        user = f"{quote(self.user, safe='')}{password}@" if has_user and (self.user or password) else ""
        return f"{scheme}{before}{user}{after}"

    def hide(self, text: str) -> str:
        """Return a text on one line, with passwords and other secrets of the address as ``***``."""
        options = parse_qsl(self.path.partition("?")[2])
        secrets = [self.password, *(value for name, value in options if _SECRET.search(name))]
        forms = {form for secret in secrets if secret for form in (secret, quote(secret, safe=""), quote(secret))}
        for form in sorted(forms, key=len, reverse=True):
            text = text.replace(form, "***")
        return " ".join(text.split())


def parse_sql_url(text: str) -> SqlUrl:
    """Parse an address; raise ValueError for one of another form, with a message that does not contain it.

    The path of a file may follow three slashes, as in SQLAlchemy: ``sqlite:///books.db`` is ``sqlite:books.db``. The
    password is that of the address, or of the environment.
    """
    match = _URL.fullmatch(text)
    if match is None:
        raise ValueError(EXPECTED)
    scheme, driver, rest = match[1], match[2] or "", match[3]
    scheme = _ALIASES.get(scheme, scheme)
    if scheme in FILES:
        return SqlUrl(scheme, driver, ("", _path(scheme, rest)))
    if scheme in SERVERS and not rest.startswith("//"):
        raise ValueError(f"{scheme}: expected {scheme}://USER@HOST/NAME")
    head, slashes, tail = rest.partition("//") if "//" in rest else ("", "", rest)
    account, _, after = tail.rpartition("@")
    if re.search("[/?#@]", account):
        raise ValueError(
            f"{scheme}: write '/', '?', '#' and '@' in a user, a password or an option as %2F, %3F, %23 and %40"
        )
    user, _, password = account.partition(":")
    secret = unquote(password) or os.environ.get(PASSWORD, "")
    return SqlUrl(scheme, driver, (head + slashes, after), unquote(user), secret)


def _path(scheme: str, rest: str) -> str:
    if rest.startswith("//"):
        if not rest.startswith("///"):
            raise ValueError(f"{scheme}: expected {scheme}:PATH, such as {scheme}:books.db")
        rest = rest[3:]
    return expand_home(rest)
