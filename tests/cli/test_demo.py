"""The demo: what it collects, what it indexes, and what it finds."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from st_connectors.cli.demo import ADDRESS, COLLECTION, NEXT, QUESTIONS, build, documents
from st_connectors.demo.docstrings import Docstring, _of_source, collect
from st_connectors.demo.plain_words import plain_words
from st_connectors.demo.wordings import wordings

pytest.importorskip("qdrant_edge")

KNOWN = [
    "shutil.copytree",
    "shutil.rmtree",
    "os.remove",
    "os.path.exists",
    "datetime.datetime.strptime",
    "time.sleep",
    "json.loads",
    "math.sqrt",
    "str.split",
    "list.append",
    "random.shuffle",
    "itertools.groupby",
    "collections.Counter.most_common",
    "pathlib.Path.glob",
    "re.sub",
    "concurrent.futures.Executor.submit",
    "concurrent.futures.ThreadPoolExecutor",
    "asyncio.sleep",
    "unittest.TestCase.assertEqual",
    "getpass.getpass",
    "os.path.splitext",
    "os.path.dirname",
    "set.intersection",
    "signal.signal",
    "struct.pack",
    "collections.abc.Mapping.get",
    "heapq.heappush",
    "sorted",
    "open",
]


@pytest.fixture(scope="session")
def found() -> list[Docstring]:
    return collect()


def test_there_are_enough_distinct_docstrings(found):
    """At least 6,000 of five words or more, all different, each name once, in order; none shorter than "Greatest Common Divisor."."""
    texts = {item.text for item in found}
    names = [item.name for item in found]

    assert len(texts) == len(found)
    assert sum(len(text.split()) >= 5 for text in texts) >= 6000
    assert min(len(text.split()) for text in texts) == 3
    assert names == sorted(set(names))


def test_names_are_the_public_ones(found):
    """The names people know are there, of Python and of C, and none is private."""
    names = {item.name for item in found}

    assert [name for name in KNOWN if name not in names] == []
    assert [name for name in names if any(p.startswith("_") and not p.endswith("__") for p in name.split("."))] == []


def test_a_name_is_not_given_to_whom_it_does_not_belong(found):
    """Neither by the submodule that defines it, nor by a module that merely imports it, nor by a private module."""
    names = {item.name for item in found}

    assert names.isdisjoint(
        {"asyncio.tasks.sleep", "unittest.case.TestCase", "pickle.pack", "ast.contextmanager", "email.get_word"}
    )


def test_where_a_class_has_no_docstring_its_constructor_speaks(tmp_path):
    """Under the name of the class; where the class has one of its own, both stand."""
    source = tmp_path / "some.py"
    source.write_text(
        'class A:\n    def __init__(self, x):\n        """Make an A."""\n'
        'class B:\n    """A B."""\n    def __init__(self):\n        """Make a B."""\n'
    )

    rows = [(item.name, item.kind, item.signature, item.text) for item in _of_source(source, "some")]

    assert rows == [
        ("some.A", "class", "(self, x)", "Make an A."),
        ("some.B.__init__", "function", "(self)", "Make a B."),
        ("some.B", "class", "", "A B."),
    ]


def test_docstrings_are_the_objects_own(found):
    """Parsed from the source they equal what Python itself shows."""
    import inspect
    import shutil
    import textwrap

    texts = {item.name: item for item in found}
    assert texts["shutil.copytree"].text == inspect.getdoc(shutil.copytree)
    assert texts["textwrap.dedent"].text == inspect.getdoc(textwrap.dedent)
    assert texts["shutil.copytree"].signature.startswith("(src, dst, symlinks=False")
    assert texts["shutil"].kind == "module"
    assert texts["collections.Counter"].kind == "class"


def test_a_signature_in_a_docstring_of_c_is_set_apart(found):
    """C's docstrings may begin with the call; what is searched begins with what it does."""
    [sleep] = [item for item in found if item.name == "time.sleep"]

    assert sleep.signature == "(seconds)"
    assert sleep.text.startswith("Delay execution")


def test_what_is_searched_is_name_beginning_and_plain_words(found):
    """The document shows the whole docstring, and searches its beginning with everyday words."""
    by_id = {document["id"]: document for document in documents(found)}
    document = by_id["http.server.SimpleHTTPRequestHandler.list_directory"]

    assert document["docstring"].startswith("Helper to produce a directory listing")
    assert document["text"].startswith("http.server.SimpleHTTPRequestHandler.list_directory\nHelper to produce")
    assert "folder" in document["text"].split()
    assert (document["module"], document["kind"], document["wordings"]) == ("http", "function", "")


def test_wordings_are_searched_twice_and_shown(found):
    """After the first paragraph of the docstring, and in a field of their own."""
    by_id = {document["id"]: document for document in documents(found)}
    document = by_id["shutil.copytree"]

    lines = document["text"].split("\n")
    assert lines[:2] == ["shutil.copytree", "Recursively copy a directory tree and return the destination directory."]
    assert lines[2] == lines[3] == document["wordings"] == wordings()["shutil.copytree"]
    assert len(document["text"]) < len(document["docstring"])


def test_wordings_are_for_names_that_are_there(found):
    """A general table: at least 1,000 names, all but a few of them in every version of Python."""
    names = {item.name for item in found}
    table = wordings()

    assert len(table) >= 1000
    assert len([name for name in table if name not in names]) <= len(table) // 50
    assert all(phrases == phrases.strip() and phrases for phrases in table.values())


def test_wordings_are_not_the_questions_they_are_measured_with():
    """No phrase has three words and three quarters of those of a question that its function answers.

    The questions held out were written after the wordings by somebody who had not read them: where they agree, it is by chance.
    """
    files = [
        path
        for path in sorted((Path(__file__).parents[2] / "bench").glob("python_questions*.jsonl"))
        if path.stem != "python_questions_held_out"
    ]
    table = wordings()
    copied = [
        (row["question"], phrase)
        for file in files
        for row in map(json.loads, file.read_text().splitlines())
        for answer in row["answers"]
        for phrase in table.get(answer, "").split("; ")
        if len(both := _stems(phrase) & _stems(row["question"])) >= 3
        and len(both) >= 0.75 * len(_stems(row["question"]))
    ]

    assert len(files) == 3
    assert copied == []


def _stems(text: str) -> set[str]:
    return {word[:4] for word in re.findall(r"[a-z0-9]+", text.lower()) if len(word) > 3}


def test_what_a_name_belongs_to_is_searched_too():
    """The first lines of class and module, the nearest first; nothing where they are not documented."""
    shop = Docstring("shop", "module", "", "A shop for all.\n\nWith much more.")
    cart = Docstring("shop.Cart", "class", "", "What a customer takes.\nSecond line.")
    add = Docstring("shop.Cart.add", "function", "(thing)", "Put one thing in.")
    alone = Docstring("lone.thing", "class", "", "Belongs to nobody known.")

    texts = [document["text"].split("\n") for document in documents([shop, cart, add, alone])]

    assert texts[2] == ["shop.Cart.add", "Put one thing in.", "What a customer takes.", "A shop for all."]
    assert texts[1][-1] == "A shop for all."
    assert texts[3] == ["lone.thing", "Belongs to nobody known."]


def test_plain_words_are_given_once_in_order():
    """Each everyday word once, for whole words of the text only."""
    assert plain_words("Delete a directory, then delete the directory") == "remove erase folder"
    assert plain_words("undeleted") == ""


def test_the_index_finds_functions_and_is_made_anew(found, tmp_path: Path):
    """Built twice over, it holds what was given once, and says that there was one before."""
    address = f"qdrant+edge:{tmp_path / 'demo-index'}"
    some = [item for item in found if item.module in {"shutil", "os", "textwrap", "math"}]

    first, report, replaced = build(address, some)
    first.close()
    again, _, replaced_again = build(address, some[10:])

    assert (report.confirmed, report.refused_total) == (len(some), 0)
    assert (replaced, replaced_again) == (False, True)
    assert again.count() == len(some) - 10
    assert "shutil.copytree" in [hit.id for hit in again.search(QUESTIONS[0], limit=3)]
    assert "shutil.rmtree" in [hit.id for hit in again.search(NEXT, limit=3)]
    again.close()


def test_the_demo_ends_with_the_command_to_go_on_with(cli, found, tmp_path, monkeypatch):
    """It answers its questions and prints a search line that works as it stands."""
    import shlex

    monkeypatch.chdir(tmp_path)
    some = [item for item in found if item.module in {"shutil", "datetime", "collections"}]
    monkeypatch.setattr("st_connectors.demo.docstrings.collect", lambda: some)

    outcome = cli("demo")

    assert outcome.status == 0
    assert all(f"“{question}”" in outcome.out for question in QUESTIONS)
    assert "shutil.copytree" in outcome.out
    line = outcome.out.splitlines()[-1].strip()
    assert line == f'st-connectors search "{NEXT}" --in {ADDRESS} --collection {COLLECTION}'
    answer = cli(*shlex.split(line)[1:])
    assert "shutil.rmtree" in answer.out
