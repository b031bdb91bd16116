"""The demo's docstrings, the documents built from them, and the answers of its index."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from st_connectors.demo.build import ADDRESS, COLLECTION, NEXT_QUESTION, QUESTIONS, build_index
from st_connectors.demo.corpus import documents
from st_connectors.demo.docstrings import MINIMUM_WORDS, Docstring, _read_source, collect, has_enough_words
from st_connectors.demo.plain_words import plain_words
from st_connectors.demo.wordings import wordings

pytest.importorskip("qdrant_edge")

pytestmark = pytest.mark.long

PUBLIC_NAMES = [
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
def docstrings() -> list[Docstring]:
    return collect()


def test_there_are_enough_distinct_docstrings(docstrings):
    """At least 6,000 docstrings have five words; all are different, sorted by name, and none is below the minimum."""
    texts = {item.text for item in docstrings}
    names = [item.name for item in docstrings]

    assert len(texts) == len(docstrings)
    assert sum(has_enough_words(item, 5) for item in docstrings) >= 6000
    assert all(has_enough_words(item) for item in docstrings)
    assert any(len(item.text.split()) == MINIMUM_WORDS for item in docstrings)
    assert names == sorted(set(names))


def test_names_are_the_public_ones(docstrings):
    """Well-known names implemented in Python and in C are present, and none is private."""
    names = {item.name for item in docstrings}

    assert [name for name in PUBLIC_NAMES if name not in names] == []
    assert [name for name in names if any(p.startswith("_") and not p.endswith("__") for p in name.split("."))] == []


def test_names_belong_to_the_module_that_exports_them(docstrings):
    """No name has the path of a defining submodule, of a module that merely imports it, or of a private module."""
    names = {item.name for item in docstrings}

    assert names.isdisjoint(
        {"asyncio.tasks.sleep", "unittest.case.TestCase", "pickle.pack", "ast.contextmanager", "email.get_word"}
    )


def test_a_class_without_docstring_takes_its_constructors(tmp_path):
    """The constructor's docstring appears under the class name; a class with a docstring of its own keeps both."""
    source = tmp_path / "some.py"
    source.write_text(
        'class A:\n    def __init__(self, x):\n        """Make an A."""\n'
        'class B:\n    """A B."""\n    def __init__(self):\n        """Make a B."""\n'
    )

    rows = [(item.name, item.kind, item.signature, item.text) for item in _read_source(source, "some")]

    assert rows == [
        ("some.A", "class", "(self, x)", "Make an A."),
        ("some.B.__init__", "function", "(self)", "Make a B."),
        ("some.B", "class", "", "A B."),
    ]


def test_docstrings_equal_those_of_inspect(docstrings):
    """Docstrings parsed from the source equal those that ``inspect.getdoc`` returns."""
    import inspect
    import shutil
    import textwrap

    texts = {item.name: item for item in docstrings}
    assert texts["shutil.copytree"].text == inspect.getdoc(shutil.copytree)
    assert texts["textwrap.dedent"].text == inspect.getdoc(textwrap.dedent)
    assert texts["shutil.copytree"].signature.startswith("(src, dst, symlinks=False")
    assert texts["shutil"].kind == "module"
    assert texts["collections.Counter"].kind == "class"


def test_a_leading_signature_is_separated_from_the_text(docstrings):
    """The docstring of a name implemented in C may begin with a call, which becomes the signature."""
    [sleep] = [item for item in docstrings if item.name == "time.sleep"]

    assert sleep.signature == "(seconds)"
    assert sleep.text.startswith("Delay execution")


def test_searched_text_is_name_beginning_and_plain_words(docstrings):
    """The payload has the whole docstring; the searched text is its beginning with everyday words."""
    by_id = {document["id"]: document for document in documents(docstrings)}
    document = by_id["http.server.SimpleHTTPRequestHandler.list_directory"]

    assert document["docstring"].startswith("Helper to produce a directory listing")
    assert document["text"].startswith("http.server.SimpleHTTPRequestHandler.list_directory\nHelper to produce")
    assert "folder" in document["text"].split()
    assert (document["module"], document["kind"], document["wordings"]) == ("http", "function", "")


def test_wordings_are_searched_twice_and_stored(docstrings):
    """Wordings follow the first paragraph of the docstring, and have a payload field of their own."""
    by_id = {document["id"]: document for document in documents(docstrings)}
    document = by_id["shutil.copytree"]

    lines = document["text"].split("\n")
    assert lines[:2] == ["shutil.copytree", "Recursively copy a directory tree and return the destination directory."]
    assert lines[2] == lines[3] == document["wordings"] == wordings()["shutil.copytree"]
    assert len(document["text"]) < len(document["docstring"])


def test_wordings_are_for_existing_names(docstrings):
    """The table has at least 1,000 names, almost all of them present in this version of Python."""
    names = {item.name for item in docstrings}
    table = wordings()

    assert len(table) >= 1000
    assert len([name for name in table if name not in names]) <= len(table) // 50
    assert all(phrases == phrases.strip() and phrases for phrases in table.values())


def test_wordings_do_not_copy_the_benchmark_questions():
    """No phrase shares three words and three quarters of the words of a question that its function answers.

    The held-out questions are exempt: they were written after the wordings and without reading them.
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


def test_enclosing_first_lines_are_searched_too():
    """The first lines of class and module follow, innermost first, if they are documented."""
    shop = Docstring("shop", "module", "", "A shop for all.\n\nWith much more.")
    cart = Docstring("shop.Cart", "class", "", "What a customer takes.\nSecond line.")
    add = Docstring("shop.Cart.add", "function", "(thing)", "Put one thing in.")
    alone = Docstring("lone.thing", "class", "", "Belongs to nobody known.")

    texts = [document["text"].split("\n") for document in documents([shop, cart, add, alone])]

    assert texts[2] == ["shop.Cart.add", "Put one thing in.", "What a customer takes.", "A shop for all."]
    assert texts[1][-1] == "A shop for all."
    assert texts[3] == ["lone.thing", "Belongs to nobody known."]


def test_plain_words_are_distinct_and_in_order():
    """Each everyday word appears once, and only whole words of the text count."""
    assert plain_words("Delete a directory, then delete the directory") == "remove erase folder"
    assert plain_words("undeleted") == ""


def test_building_twice_replaces_the_index(docstrings, tmp_path: Path):
    """The second build contains only its own docstrings, and reports that it replaced a collection."""
    address = f"qdrant+edge:{tmp_path / 'demo-index'}"
    some = [item for item in docstrings if item.module in {"shutil", "os", "textwrap", "math"}]

    first = build_index(address, some)
    first.index.close()
    second = build_index(address, some[10:])

    assert (first.report.confirmed, first.report.refused_total) == (len(some), 0)
    assert (first.is_replacement, second.is_replacement) == (False, True)
    with second.index as index:
        assert index.count() == len(some) - 10
        assert "shutil.copytree" in [hit.id for hit in index.search(QUESTIONS[0], limit=3)]
        assert "shutil.rmtree" in [hit.id for hit in index.search(NEXT_QUESTION, limit=3)]


def test_the_demo_ends_with_a_search_command(cli, docstrings, tmp_path, monkeypatch):
    """The demo answers its questions and prints a search command that works as printed."""
    import shlex

    monkeypatch.chdir(tmp_path)
    some = [item for item in docstrings if item.module in {"shutil", "datetime", "collections"}]
    monkeypatch.setattr("st_connectors.demo.docstrings.collect", lambda: some)

    outcome = cli("demo")

    assert outcome.status == 0
    assert all(f"“{question}”" in outcome.out for question in QUESTIONS)
    assert "shutil.copytree" in outcome.out
    line = outcome.out.splitlines()[-1].strip()
    assert line == f'st-connectors search "{NEXT_QUESTION}" --in {ADDRESS} --collection {COLLECTION}'
    assert "shutil.rmtree" in cli(*shlex.split(line)[1:]).out
