"""The demo: what it collects, what it indexes, and what it finds."""

from __future__ import annotations

from pathlib import Path

import pytest

from st_connectors.cli.demo import ADDRESS, COLLECTION, NEXT, QUESTIONS, build, documents
from st_connectors.cli.docstrings import Docstring, collect
from st_connectors.cli.plain_words import plain_words

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
    "collections.abc.Mapping.get",
    "heapq.heappush",
    "sorted",
    "open",
]


@pytest.fixture(scope="session")
def found() -> list[Docstring]:
    return collect()


def test_there_are_enough_distinct_docstrings(found):
    """At least 6,000, all different, of five words or more, each name once, in order."""
    texts = {item.text for item in found}
    names = [item.name for item in found]

    assert len(texts) == len(found) >= 6000
    assert min(len(text.split()) for text in texts) >= 5
    assert names == sorted(set(names))


def test_names_are_the_public_ones(found):
    """The names people know are there, of Python and of C, and none is private."""
    names = {item.name for item in found}

    assert [name for name in KNOWN if name not in names] == []
    assert [name for name in names if any(p.startswith("_") and not p.endswith("__") for p in name.split("."))] == []


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
    document = by_id["shutil.copytree"]

    assert document["docstring"].startswith("Recursively copy a directory tree")
    assert document["text"].startswith("shutil.copytree\nRecursively copy a directory tree")
    assert "folder" in document["text"].split()
    assert len(document["text"]) < len(document["docstring"])
    assert (document["module"], document["kind"]) == ("shutil", "function")


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
    monkeypatch.setattr("st_connectors.cli.docstrings.collect", lambda: some)

    outcome = cli("demo")

    assert outcome.status == 0
    assert all(f"“{question}”" in outcome.out for question in QUESTIONS)
    assert "shutil.copytree" in outcome.out
    line = outcome.out.splitlines()[-1].strip()
    assert line == f'st-connectors search "{NEXT}" --in {ADDRESS} --collection {COLLECTION}'
    answer = cli(*shlex.split(line)[1:])
    assert "shutil.rmtree" in answer.out
