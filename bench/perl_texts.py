"""Read Perl's documentation as texts for training and judging: sections under their headings, questions and answers.

The pages are those of Debian's package ``perl-doc``. ``ST_BENCH_PERL`` names a folder that contains them, such as one
that the package was unpacked into; without it they are read where the package installs them. Their licence is Perl's:
GPL 1 or later, or the Artistic Licence.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

__all__ = ["Section", "questions", "sections"]

LONGEST = 600
"""Characters of a text, about 150 word pieces."""

SHORTEST = 60
_INDEX = re.compile(r"[XZ]<[^<>]*>")
_LINK = re.compile(r"L<(?:([^<>|]*)\|)?([^<>|]*)>")
_CODES = re.compile(r"[A-Z]<+ ?([^<>]*?) ?>+")
_OTHERS = re.compile(r"perlfaq|perl\w*delta|perltoc|Config")
_WORD = re.compile(r"\b[A-Za-z][a-z]+\b")
_HEADING = re.compile(r"=(?:head[1-4]|item)\s+(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and the start of the text under it."""

    heading: str
    text: str


def folder() -> Path:
    """Return the folder of the pages; raise FileNotFoundError if there is none."""
    configured = Path(os.environ.get("ST_BENCH_PERL", "/usr/share/perl"))
    found = sorted(path.parent for path in configured.rglob("perlfaq4.pod"))
    if not found:
        raise FileNotFoundError(
            f"no pages of Perl's documentation under {configured}; run `apt-get download perl-doc`, unpack it with "
            "`dpkg-deb -x`, and set ST_BENCH_PERL to that folder"
        )
    return found[0]


@cache
def sections() -> tuple[Section, ...]:
    """Return the sections of all pages but those of questions and of release notes; every heading occurs once."""
    pages = [
        path
        for path in sorted(folder().glob("*.pod"))
        if not re.match(r"perlfaq|perl\w*delta|perltoc|Config", path.name)
    ]
    every = [section for path in pages for section in _read(path)]
    often = Counter(section.heading.lower() for section in every)
    return tuple(section for section in every if often[section.heading.lower()] == 1)


@cache
def questions() -> tuple[Section, ...]:
    """Return the questions of the FAQ as headings of their answers."""
    pages = sorted(folder().glob("perlfaq[1-9].pod"))
    return tuple(section for path in pages for section in _read(path) if section.heading.endswith("?"))


def _read(path: Path) -> Iterator[Section]:
    """Yield the sections of a page that have enough text; code is left out."""
    heading, texts = "", []
    for block in [*re.split(r"\n\s*\n", path.read_text("utf-8", errors="replace")), "=head1 end"]:
        found = _HEADING.match(block.strip())
        if found:
            text = " ".join(texts)[:LONGEST].strip()
            if len(text) >= SHORTEST and len(_WORD.findall(heading)) >= 2:
                yield Section(heading, text)
            heading, texts = _plain(found[1]).removeprefix("* "), []
        elif not block.startswith((" ", "\t", "=", "\n ", "\n\t")):
            texts.append(_plain(block))


def _plain(text: str) -> str:
    """Return text without the codes of its form, such as ``B<bold>``, and with single spaces."""
    text, before = _LINK.sub(lambda found: found[1] or found[2].strip("/"), _INDEX.sub("", text)), ""
    while before != text:
        before, text = text, _CODES.sub(r"\1", text)
    return " ".join(text.split())
