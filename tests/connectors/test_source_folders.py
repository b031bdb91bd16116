"""Folders of text: what is skipped and why, ``.gitignore``, and front matter as payload."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from st_connectors.ingest import Document, DocumentError, Place
from st_connectors.ingest.sources import Format, Notes, Reading, count_path, read_path, size_of_path
from st_connectors.ingest.sources.front_matter import split_front_matter
from st_connectors.ingest.sources.ignore_rules import is_ignored, parse_rule, read_ignore_file


def fill(folder: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def read(folder: Path, **options) -> tuple[list[str], list[str]]:
    """Return the ids that were read, and the notes."""
    notes = Notes()
    results = list(read_path(folder, Format.TEXT, Reading(notes=notes, **options)))
    assert not any(isinstance(item, DocumentError) for item in results)
    assert count_path(folder, Format.TEXT, Reading(**options)) == len(results)
    return [item.id for item in results], list(notes.sentences)


def test_hidden_ignored_and_binary_files_are_skipped_and_counted(tmp_path: Path):
    """One line has the number of each, those with other endings by ending; a skipped folder counts once."""
    fill(
        tmp_path,
        {
            ".git/x.txt": "x",
            ".git/hooks/y.txt": "x",
            ".notes.md": "x",
            "a.md": "x",
            "b.txt": b"GIF89a\0\1",
            "code.py": "x",
            "deep/.cache/z.txt": "x",
            "deep/c.txt": "x",
            "deep/more.py": "x",
            "LICENSE": "x",
            "build/d.txt": "x",
            "draft.md": "x",
            ".gitignore": "build/\ndraft*\n",
        },
    )

    others = "3 that are no text files (2 .py, 1 without an ending)"
    assert read(tmp_path) == (
        ["a.md", "deep/c.txt"],
        [f"{tmp_path}: skipped 4 hidden, 2 ignored by .gitignore, 1 binary, {others}"],
    )
    assert size_of_path(tmp_path, Format.TEXT) == 1 + 1 + 8


def test_a_folder_without_other_files_has_no_note(tmp_path: Path):
    """Nothing was skipped."""
    assert read(fill(tmp_path, {"a.md": "x"})) == (["a.md"], [])


def test_a_folder_or_file_that_is_named_itself_is_read(tmp_path: Path):
    """Hidden or not, ignored or not."""
    fill(tmp_path, {".gitignore": "*\n", ".notes/a.md": "x", ".notes/.gitignore": "!a.md\n"})

    assert read(tmp_path / ".notes")[0] == ["a.md"]
    assert read(tmp_path / ".notes" / "a.md")[0] == ["a.md"]


def test_a_folder_in_which_everything_is_skipped_says_why(tmp_path: Path):
    """Beside the endings that it looked for."""
    fill(tmp_path, {".git/x.txt": "x", "code.py": "x"})

    with pytest.raises(ValueError, match=r"no file ends in .*\.txt \(skipped 1 hidden, 1 that are no text files"):
        read(tmp_path)


def test_the_rules_of_the_repository_count_in_a_folder_of_it(tmp_path: Path):
    """Those above the folder, up to the root of the repository and no further."""
    fill(
        tmp_path,
        {".gitignore": "a.md\n", "repo/.git/HEAD": "x", "repo/.gitignore": "/docs/b.md\n", "repo/docs/b.md": "x"},
    )
    fill(tmp_path, {"repo/docs/a.md": "x", "repo/docs/c.md": "x"})

    assert read(tmp_path / "repo" / "docs")[0] == ["a.md", "c.md"]


GIT = {
    "*.log.md\n": ["x.log.md", "a/b/x.log.md"],
    "/top.md\n": ["top.md"],
    "a/b.md\n": ["a/b.md"],
    "a/\n": ["a/b.md", "c/a/d.md"],
    "**/c/*.md\n": ["c/x.md", "b/c/x.md"],
    "a/**/z.md\n": ["a/z.md", "a/b/z.md", "a/b/c/z.md"],
    "deep/**\n": ["deep/x.md", "deep/e/f.md"],
    "*.md\n!keep.md\n": ["x.log.md", "top.md", "a/b.md"],
    "w?t.md\n": ["wet.md", "wat.md"],
    "w[!e]t.md\n": ["wat.md"],
    "w[a-b]t.md\n": ["wat.md"],
    "# comment\n\\#hash.md\nspace.md   \n": ["#hash.md", "space.md"],
    "a/b\n": [],
    "*/b.md\n": ["a/b.md"],
    "**\n!top.md\n": [],
    "foo\\*.md\n": ["foo*.md"],
}
NAMES = sorted(
    {
        *(name for names in GIT.values() for name in names),
        *("keep.md", "b/top.md", "c/a.md", "b/a/b.md", "z.md", "deeper/x.md", "foox.md", "wt.md", "c/d/x.md"),
    }
)


@pytest.mark.parametrize("rules", GIT)
def test_rules_ignore_what_git_ignores(tmp_path: Path, rules):
    """Compared with git itself, file by file."""
    if shutil.which("git") is None:
        pytest.skip("needs git")
    fill(tmp_path, dict.fromkeys(NAMES, "x") | {".gitignore": rules})
    subprocess.run(["git", "init", "-q", "."], cwd=tmp_path, check=True)
    listed = subprocess.run(
        [
            "git",
            "-c",
            "core.quotepath=off",
            "-c",
            "core.excludesFile=",
            "ls-files",
            "-z",
            "--others",
            "--exclude-standard",
        ],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split("\0")
    kept = sorted(name for name in listed if name and not name.startswith("."))

    if kept:
        assert sorted(read(tmp_path)[0]) == kept
    else:
        with pytest.raises(ValueError, match="ignored by"):
            read(tmp_path)
    assert set(GIT[rules]).isdisjoint(kept)


def test_rules_of_a_deeper_folder_come_last(tmp_path: Path):
    """They may include again what a folder above ignores, but not in an ignored folder."""
    fill(tmp_path, {".gitignore": "*.md\nno/\n", "a/.gitignore": "!b.md\n", "a/b.md": "x", "a/c.md": "x"})
    fill(tmp_path, {"no/.gitignore": "!d.txt\n", "no/d.txt": "x"})

    assert read(tmp_path)[0] == ["a/b.md"]


@pytest.mark.parametrize("line", ["", "   ", "# comment", "!", "/"])
def test_lines_without_a_rule(line):
    """Blank lines, comments, and what matches nothing."""
    assert parse_rule(line) is None


def test_an_ignored_folder_is_told_from_a_file(tmp_path: Path):
    """A rule with a slash at its end is for folders only."""
    file = read_ignore_file(fill(tmp_path, {".gitignore": "a/\n"}))

    assert is_ignored(tmp_path / "a", [file], is_folder=True)
    assert not is_ignored(tmp_path / "a", [file], is_folder=False)


MATTER = """---
title: "A title: with a colon"
tags: [a, b]
date: 2020-01-31
draft: false
weight: 3
id: slug
text: summary
authors:
  - name: N
---

# Heading
"""


def test_front_matter_is_payload(tmp_path: Path):
    """With its types and ISO 8601 dates; columns that the id or the text would overwrite get other names."""
    fill(tmp_path, {"a.md": MATTER})

    [document] = read_path(tmp_path, Format.TEXT, Reading())

    assert document == Document(
        "a.md",
        "# Heading\n",
        {
            "title": "A title: with a colon",
            "tags": ["a", "b"],
            "date": "2020-01-31",
            "draft": False,
            "weight": 3,
            "original_id": "slug",
            "original_text": "summary",
            "authors": [{"name": "N"}],
        },
    )
    assert document.place == Place(str(tmp_path / "a.md"))


@pytest.mark.parametrize(
    ("text", "values", "body"),
    [
        ("---\na: 1\n---\nx", {"a": 1}, "x"),
        ("---\r\na: 1\r\n---\r\n\r\nx\r\n", {"a": 1}, "x\r\n"),
        ("---\na: 1\n...\nx", {"a": 1}, "x"),
        ("---\na: 1\n---", {"a": 1}, ""),
        ("---\n---\nx", {}, "x"),
        ("---\n2: a\ntrue: b\n---\n", {"2": "a", "True": "b"}, ""),
        ("---\nA paragraph between rules.\n---\nx", {}, "---\nA paragraph between rules.\n---\nx"),
        ("---\n- a\n---\nx", {}, "---\n- a\n---\nx"),
        ("---\nno end: 1\n", {}, "---\nno end: 1\n"),
        ("\n---\na: 1\n---\n", {}, "\n---\na: 1\n---\n"),
        ("----\na: 1\n----\n", {}, "----\na: 1\n----\n"),
        ("---\na: [1\n---\nx", None, "---\na: [1\n---\nx"),
        ("---\na: 2020-02-30\n---\nx", None, "---\na: 2020-02-30\n---\nx"),
        ("---\na: &b [1]\nc: *b\n---\nx", None, "---\na: &b [1]\nc: *b\n---\nx"),
        ("---\na: " + "[" * 1500 + "\n---\nx", None, "---\na: " + "[" * 1500 + "\n---\nx"),
        ("---\na: !!python/object:os.system x\n---\n", None, "---\na: !!python/object:os.system x\n---\n"),
    ],
)
def test_what_is_front_matter_and_what_is_text(text, values, body):
    """A block of YAML with keys, between lines of three hyphens at the very start; all else stays in the text."""
    assert split_front_matter(text) == (values, body)


def test_front_matter_that_cannot_be_read_stays_in_the_text_and_is_said(tmp_path: Path):
    """One note for the folder, with the first names."""
    text = "---\na: [1\n---\nx"
    fill(tmp_path, {f"{number}.md": text for number in range(5)})
    notes = Notes()

    results = list(read_path(tmp_path, Format.TEXT, Reading(notes=notes)))

    assert [item.text for item in results] == [text] * 5
    assert notes.sentences == (
        f"{tmp_path}: the front matter cannot be read and stays in the text: 0.md, 1.md, 2.md and 2 more",
    )


def test_files_in_another_encoding(tmp_path: Path):
    """UTF-16 with its mark is no binary file; a guess is said once for the folder; a named one is for all files."""
    fill(tmp_path, {"a.md": "grün".encode("utf-16"), "b.md": "Das war grün".encode("cp1252"), "c.md": "grün"})
    notes = Notes()

    results = list(read_path(tmp_path, Format.TEXT, Reading(notes=notes)))

    assert [item.text for item in results] == ["grün", "Das war grün", "grün"]
    assert notes.sentences == (f"{tmp_path}: not UTF-8; read as cp1252, which is a guess: b.md",)
    (tmp_path / "a.md").unlink()
    named = list(read_path(tmp_path, Format.TEXT, Reading(encoding="cp1252")))
    assert [item.text for item in named] == ["Das war grün", "grÃ¼n"]


def test_a_link_to_a_folder_is_not_followed(tmp_path: Path):
    """It may lead back to a folder above."""
    fill(tmp_path, {"a/b.md": "x"})
    (tmp_path / "a" / "loop").symlink_to(tmp_path)

    assert read(tmp_path) == (["a/b.md"], [f"{tmp_path}: skipped 1 linked"])


def test_a_folder_that_cannot_be_read_is_a_gap(tmp_path: Path, monkeypatch):
    """Its documents may exist, unlike those of files that are skipped."""
    fill(tmp_path, {"a/b.md": "x", "c.md": "y", "d.py": "z"})
    scandir = os.scandir

    def without_a(folder: Path):
        if folder.name == "a":
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    notes = Notes()
    assert len(list(read_path(tmp_path, Format.TEXT, Reading(notes=notes)))) == 2
    assert notes.gap is None

    monkeypatch.setattr(os, "scandir", without_a)
    assert len(list(read_path(tmp_path, Format.TEXT, Reading(notes=notes)))) == 1
    assert notes.gap == f"{tmp_path}: skipped 1 unreadable (Permission denied), 1 that are no text files (1 .py)"
