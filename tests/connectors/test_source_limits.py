"""Documents that are too large are refused alone, without being in memory; what JSON does not allow is refused too."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from st_connectors import Index
from st_connectors.cli.sources import make_reading
from st_connectors.ingest import DocumentError
from st_connectors.ingest.sources import Format, Reading, Skip, count_path, read_path, read_stream

LIMIT = 2000
HINT = "divide it into several documents, or raise the limit (option max-document)"


def read(content: bytes, form: Format, limit: int = LIMIT, **options) -> list[object]:
    """Return ids, and refusals as text and value."""
    documents = read_stream(io.BytesIO(content), form, Reading(max_bytes=limit, **options), "in")
    return [(str(item), item.value) if isinstance(item, DocumentError) else item.id for item in documents]


def jsonl(identifier: str, text: str) -> bytes:
    return json.dumps({"id": identifier, "text": text}, ensure_ascii=False).encode()


LARGE = "ü" * 1_000_000
LARGE_TEXTS = {
    "letters": LARGE,
    "quotes and brackets": '"}]{[\\' * 100_000,
    "backslashes": "\\" * 500_001,
}


@pytest.mark.parametrize("name", LARGE_TEXTS)
@pytest.mark.parametrize("form", [Format.JSONL, Format.JSON])
def test_a_large_object_is_refused_alone(form, name):
    """With its size, its place and its first kilobyte; the neighbours are read."""
    large = jsonl("large", LARGE_TEXTS[name])
    objects = [jsonl("a", "x"), large, jsonl("b", "y")]
    content = b"\n".join(objects) + b"\n" if form is Format.JSONL else b"[" + b" ,\n".join(objects) + b"]"
    size = len(large) + (form is Format.JSONL)
    place = "line" if form is Format.JSONL else "element"

    first, (reason, start), last = read(content, form)

    assert (first, last) == ("a", "b")
    assert reason == f"in {place} 2: {size:,} bytes are more than the limit of 2,000; {HINT}"
    assert len(start) == 1024
    assert large.startswith(start)


@pytest.mark.parametrize("form", [Format.JSONL, Format.JSON])
def test_the_limit_counts_bytes(form):
    """A text of 1,000 letters may have 2,000 bytes."""
    lines = [jsonl("a", "ü" * 900), jsonl("b", "ü" * 1000), jsonl("c", "u" * 1900)]
    content = b"\n".join(lines) if form is Format.JSONL else b"[" + b",".join(lines) + b"]"

    first, (reason, _), last = read(content, form)

    assert (first, last) == ("a", "c")
    assert reason.startswith(f"in {'line' if form is Format.JSONL else 'element'} 2: 2,02")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "cp1252"])
def test_a_large_line_in_another_encoding(encoding):
    """Its size is that in UTF-8, in which it would be stored."""
    text = "\n".join(json.dumps({"id": name, "text": "é" * size}, ensure_ascii=False) for name, size in SIZES)
    options = {"encoding": "cp1252"} if encoding == "cp1252" else {}

    first, (reason, _), last = read(text.encode(encoding), Format.JSONL, **options)

    assert (first, last) == ("a", "c")
    assert reason.startswith("in line 2: 100,024 bytes are more than the limit of 2,000; ")


SIZES = [("a", 3), ("b", 50_000), ("c", 3)]


ROWS = {
    "one line": ('2,"{}"', "x" * 5000, 1),
    "without quotes": ("2,{}", "x" * 5000, 1),
    "a quote in a cell without quotes": ('2,5" disk {}', "x" * 5000, 1),
    "lines in quotes": ('2,"{}"', "3,line\n" * 5000, 5001),
    "lines with commas, quotes and carriage returns": ('2,"{}"', '"",4\r\n5,""x""\r\n' * 5000, 10001),
    "a line that ends in a quote": ('2,"{}"', 'a line """"\n' * 400 + "x" * 70_000, 401),
    "a long line after a short one": ('2,"{}"', "short\n" + "x" * 200_000, 2),
}


@pytest.mark.parametrize("name", ROWS)
def test_a_large_csv_row_is_refused_alone(name):
    """To the end of the row, even if quotes make it many lines; no line of it becomes a row."""
    template, text, lines = ROWS[name]
    row = template.format(text)

    first, (reason, start), last = read(f"id,text\n1,a\n{row}\n9,z\n".encode(), Format.CSV)

    extent = f"; lines 3 to {2 + lines} were read as one row" if lines > 1 else ""
    assert (first, last) == ("1", "9")
    assert reason == f"in line 3: {len(row) + 1:,} bytes are more than the limit of 2,000{extent}; {HINT}"
    assert row.startswith(start.decode())


def test_places_after_a_large_row_are_right():
    """Lines that were passed over count."""
    content = b'id,text\n2,"' + b"a\n" * 5000 + b'"\n\nbad\n3,z\n'

    documents = list(read_stream(io.BytesIO(content), Format.CSV, Reading(max_bytes=LIMIT), "in"))

    assert [str(each.place) for each in documents] == ["in line 2", "in line 5004", "in line 5005"]


def test_a_large_row_whose_quote_is_not_closed_says_which_lines_it_took():
    """All of them, as there is no other end."""
    _, (reason, _) = read(b'id,text\n1,a\n2,"' + b"b\n" * 5000, Format.CSV)

    assert "; lines 3 to 5002 were read as one row; " in reason


def test_quotes_may_be_ordinary_characters_in_a_large_row():
    """Then the row ends with its line."""
    assert [
        item if isinstance(item, str) else "refused"
        for item in read(b'id,text\n1,"' + b"x" * 5000 + b"\n2,y\n", Format.CSV, quote="")
    ] == ["refused", "2"]


def test_a_large_header_is_no_header():
    """Nothing can be read without columns."""
    with pytest.raises(ValueError, match=r"^in line 1: 5,004 bytes are more than the limit of 2,000; "):
        read(b"id," + b"x" * 5000 + b"\n1,a\n", Format.CSV)


def test_a_large_text_file_is_refused_without_being_read(tmp_path: Path):
    """It is a document of its own."""
    (tmp_path / "a.txt").write_text("x" * (LIMIT + 1))
    (tmp_path / "b.txt").write_text("x" * LIMIT)

    refusal, document = read_path(tmp_path, Format.TEXT, Reading(max_bytes=LIMIT))

    assert str(refusal) == f"{tmp_path}/a.txt: 2,001 bytes are more than the limit of 2,000; {HINT}"
    assert (refusal.id, refusal.value) == ("a.txt", None)
    assert document.id == "b.txt"


VALUES = st.recursive(
    st.integers(0, 9) | st.text(st.sampled_from('ab"\\[]{},: ü\n'), max_size=60),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("k\"'\\", max_size=5), inner, max_size=3),
    max_leaves=8,
)


class Chunks(io.BytesIO):
    """A stream whose readers receive a few bytes at a time."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(min(3, size) if size and size > 0 else 3)

    def read1(self, size: int = -1) -> bytes:
        return self.read(size)


@given(
    values=st.lists(st.dictionaries(st.sampled_from("abc"), VALUES, max_size=3), max_size=5), limit=st.integers(1, 150)
)
def test_exactly_the_large_elements_are_refused(values, limit, tmp_path_factory):
    """Whatever is in them, and however the text arrives; a count counts them all."""
    texts = [json.dumps({"id": str(number), "text": "t", **value}) for number, value in enumerate(values)]
    expected = [str(number) if len(text) <= limit else "refused" for number, text in enumerate(texts)]
    content = f"[{' , '.join(texts)}]".encode()

    for stream in (io.BytesIO(content), Chunks(content)):
        documents = read_stream(stream, Format.JSON, Reading(max_bytes=limit), "in")
        assert ["refused" if isinstance(each, DocumentError) else each.id for each in documents] == expected

    path = tmp_path_factory.mktemp("limits") / "a.json"
    path.write_bytes(content)
    assert count_path(path, Format.JSON, Reading(max_bytes=limit)) == len(expected)


CELLS = st.text(st.sampled_from('ab",;\n\rü '), min_size=1, max_size=30)


@given(
    texts=st.lists(CELLS, max_size=6),
    end=st.sampled_from(["\n", "\r\n"]),
    limit=st.integers(10, 60),
)
def test_exactly_the_large_rows_of_a_table_are_refused(texts, end, limit):
    """Whatever is in their cells, as the csv module writes it; the others are what they were."""
    rows = []
    for number, text in enumerate(texts):
        line = io.StringIO()
        csv.writer(
            line, quoting=csv.QUOTE_ALL if number % 2 or "\r" in text else csv.QUOTE_MINIMAL, lineterminator=end
        ).writerow([number, text])
        rows.append(line.getvalue().encode())
    expected = [(str(n), texts[n]) if len(row) <= limit else "refused" for n, row in enumerate(rows)]
    stream = io.BytesIO(b"id,text" + end.encode() + b"".join(rows))

    documents = read_stream(stream, Format.CSV, Reading(max_bytes=limit), "in")

    assert ["refused" if isinstance(each, DocumentError) else (each.id, each.text) for each in documents] == expected


@given(content=st.text(st.sampled_from('ab,"\n\r '), max_size=60), limit=st.integers(8, 40))
def test_any_text_is_a_table_of_which_any_number_of_rows_can_be_skipped(content, limit):
    """Also with open quotes, blank lines and large rows, at the places where they are."""

    def read_rows(count: int) -> list[tuple[str, str]]:
        stream = io.BytesIO(b"id,text\n" + content.encode())
        documents = read_stream(stream, Format.CSV, Reading(max_bytes=limit, skip=Skip(count)), "in")
        return [(str(each), str(each.place)) for each in documents]

    full = read_rows(0)
    for count in range(len(full) + 1):
        assert read_rows(count) == full[count:]


@pytest.mark.parametrize("form", [Format.JSONL, Format.JSON, Format.CSV])
def test_large_documents_are_skipped_as_others(form):
    """They count, and nothing after them moves."""
    objects = [jsonl("1", "x"), jsonl("2", LARGE), jsonl("3", "z"), jsonl("4", LARGE), jsonl("5", "z")]
    rows = [b'%d,"%s"' % (number, b"x\n" * (1 + 3000 * (number % 2))) for number in range(5)]
    contents = {
        Format.JSONL: b"\n".join(objects),
        Format.JSON: b"[" + b",".join(objects) + b"]",
        Format.CSV: b"id,text\n" + b"\n".join(rows),
    }
    full = read(contents[form], form)

    assert sum(isinstance(item, str) for item in full) in {2, 3}
    for count in range(6):
        assert read(contents[form], form, skip=Skip(count)) == full[count:]


PROGRAM = """
import resource, sys
from pathlib import Path
from st_connectors.ingest.sources import Format, Reading, read_path

reading = Reading(max_bytes=4_000_000)
list(read_path(Path(sys.argv[2]), Format(sys.argv[1]), reading))  # what libraries and buffers take
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
items = list(read_path(Path(sys.argv[3]), Format(sys.argv[1]), reading))
print(len(items), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform == "darwin", reason="ru_maxrss is in bytes there")
@pytest.mark.parametrize("form", [Format.JSONL, Format.JSON, Format.CSV])
def test_a_large_document_is_never_in_memory(tmp_path: Path, form):
    """Of 60 MB in one line, a limit of 4 MB takes far less than the line."""
    start, end = {Format.CSV: ('id,text\n1,a\n2,"', '"\n3,b\n')}.get(
        form, ('{"id": "1", "text": "a"}\n{"id": "2", "text": "', '"}\n{"id": "3", "text": "b"}\n')
    )
    for name, size in (("small", 3_000_000), ("large", 60_000_000)):
        (tmp_path / name).write_text(start + "x" * size + end)

    arguments = [form.value, str(tmp_path / "small"), str(tmp_path / "large")]
    outcome = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=True)

    count, kilobytes = map(int, outcome.stdout.split())
    assert count == 3
    assert kilobytes < 20_000


@pytest.mark.parametrize(
    ("text", "size"), [("100MB", 100_000_000), ("64MiB", 64 * 2**20), ("5000", 5000), ("1.5 kb", 1500)]
)
def test_the_limit_may_have_a_unit(text, size):
    """Without one it is in bytes."""
    options = {"delimiter": None, "quote": None, "encoding": None}

    assert make_reading(None, None, None, **options, max_document=text).max_bytes == size
    assert make_reading(None, None, None, **options).max_bytes == 64 * 2**20


@pytest.mark.parametrize("text", ["", "0", "-5", "1XB", "many"])
def test_a_limit_that_is_no_size_is_refused(text):
    """With the option and examples."""
    with pytest.raises(ValueError, match=r"^--max-document '.*': expected a size above 0 such as 2GB, 512MB or 4GiB$"):
        make_reading(None, None, None, delimiter=None, quote=None, encoding=None, max_document=text)
    with pytest.raises(ValueError, match="expected max_bytes of at least 1, got 0"):
        Reading(max_bytes=0)


@pytest.mark.parametrize("form", [Format.JSONL, Format.JSON])
@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b'{"id": "x", "text": "t", "n": NaN}', "not JSON: NaN is not a JSON value"),
        (b'{"id": "x", "text": "t", "n": Infinity}', "not JSON: Infinity is not a JSON value"),
        (b'{"id": "x", "text": "t", "n": -Infinity}', "not JSON: -Infinity is not a JSON value"),
        (b'{"id": "x", "text": "\xff\xff"}', "not UTF-8: if the source has another encoding, name it"),
        (b'{"id": "x", "text": "t", "n": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
        (b'{"id": "x", "text": "t", "n": ' + b"1" * 5000 + b"}", "not JSON: Exceeds the limit"),
    ],
)
def test_what_json_does_not_allow_is_refused_alone(form, bad, reason):
    """In lines and in arrays, and the neighbours are read."""
    objects = [jsonl("a", "x"), bad, jsonl("b", "ü")]
    content = b"\n".join(objects) if form is Format.JSONL else b"[" + b",\n".join(objects) + b"]"

    first, (text, _), last = read(content, form, limit=10**6)

    assert (first, last) == ("a", "b")
    assert text.startswith(f"in {'line' if form is Format.JSONL else 'element'} 2: {reason}")


@pytest.mark.parametrize("form", [Format.JSONL, Format.JSON])
def test_of_a_key_that_occurs_twice_the_last_value_is_read(form):
    """As documented, and as in Python."""
    content = b'{"id": "x", "text": "a", "year": 1, "id": "y", "year": 2}\n'

    (document,) = read_stream(io.BytesIO(content), form, Reading(), "in")

    assert (document.id, document.payload) == ("y", {"text": "a", "year": 2})


def test_a_number_beyond_floats_is_refused_by_its_key():
    """Python reads it as infinity, which is no value of JSON."""
    content = b'{"id": "a", "text": "x", "n": {"k": [1, 1e999]}}\n{"id": "b", "text": "x", "n": 1e300}\n'

    with Index.create("memory:large", collection="c", dense="builtin:dense") as index:
        report = index.ingest(read_stream(io.BytesIO(content), Format.JSONL, Reading(), "in"))

    assert report.confirmed == 1
    assert report.refused[0].reason == (
        "payload['n']['k'][1] is inf, which JSON does not allow: leave it out or use null"
    )
