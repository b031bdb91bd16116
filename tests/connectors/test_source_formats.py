"""Formats, encodings, compressions and templates of sources: the right documents, and refusals for single records."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import json
import lzma
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from st_connectors.ingest import Document, DocumentError
from st_connectors.ingest.sources import (
    Format,
    Meter,
    Notes,
    Reading,
    check_encoding,
    count_path,
    format_of,
    parse_template,
    read_path,
    read_stream,
    size_of_path,
)
from st_connectors.schema import FilterKind

ROWS = [{"id": "1", "text": 'red, "quoted" {[]}'}, {"id": "2", "text": "grün\n€", "n": {"a": [1, None]}}]
DOCUMENTS = [(row["id"], {key: value for key, value in row.items() if key != "id"}) for row in ROWS]


def shown(items) -> list[object]:
    """Documents as (id, payload), refusals as their text."""
    return [str(item) if isinstance(item, DocumentError) else (item.id, dict(item.payload)) for item in items]


def read(content: str | bytes, form: Format, **options) -> list[object]:
    raw = content.encode() if isinstance(content, str) else content
    return shown(read_stream(io.BytesIO(raw), form, Reading(**options), "in"))


class Dribble(io.RawIOBase):
    """A stream that gives a few bytes at a time, as a pipe does."""

    def __init__(self, raw: bytes, size: int) -> None:
        self._raw, self._size = io.BytesIO(raw), size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        part = self._raw.read(min(self._size, len(buffer)))
        buffer[: len(part)] = part
        return len(part)


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(ROWS),
        json.dumps(ROWS, indent=2, ensure_ascii=False),
        "\ufeff \n" + json.dumps(ROWS) + "\n\n",
        "\n".join(json.dumps(row, indent=1) for row in ROWS),
        "".join(json.dumps(row) for row in ROWS),
        "\n".join(json.dumps(row) for row in ROWS),
    ],
    ids=["array", "indented array", "array after a mark", "indented objects", "objects in a row", "lines"],
)
@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_a_json_file_is_an_array_or_objects(content, size):
    """Whatever its white space, and wherever the pieces end in which it arrives."""
    stream = io.BufferedReader(Dribble(content.encode(), size), 16)

    assert shown(read_stream(stream, Format.JSON, Reading(), "in")) == DOCUMENTS


@given(
    st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=9) | st.integers() | st.lists(st.none()))),
    st.sampled_from([None, 1]),
    st.integers(1, 30),
)
def test_the_elements_of_any_array_are_those_of_json(values, indent, size):
    """For any keys and strings, among them quotes, backslashes and brackets."""
    rows = [{"id": str(number), "text": "x", "value": value} for number, value in enumerate(values)]
    stream = io.BufferedReader(Dribble(json.dumps(rows, indent=indent).encode(), size), 16)

    results = shown(read_stream(stream, Format.JSON, Reading(), "in"))

    assert results == [(row["id"], {"text": "x", "value": row["value"]}) for row in rows]


@pytest.mark.parametrize("content", ["", " \n", "[]", "[ ]\n"])
def test_an_empty_json_file_has_no_documents(content):
    """Neither does an empty array."""
    assert read(content, Format.JSON) == []


def test_an_element_that_is_not_json_is_refused_alone():
    """Its neighbours are read, also those after an element of another type, and the place is the number."""
    good = '{"id": "g", "text": "t"}'
    results = read(f'[{good}, {{"id": "x", text: "t"}}, 7, [{good}], {good},]', Format.JSON)

    assert [item for item in results if isinstance(item, tuple)] == [("g", {"text": "t"})] * 2
    assert [item for item in results if isinstance(item, str)] == [
        "in element 2: not JSON: Expecting property name enclosed in double quotes at column 13",
        "in element 3: expected a JSON object, not int",
        "in element 4: expected a JSON object, not list",
        "in element 6: not JSON: Expecting value at column 1",
    ]


def test_a_json_file_that_is_cut_off_says_so():
    """The complete elements are read; the last one, which may be cut, is refused with its text."""
    source = read_stream(io.BytesIO(b'[{"id": "1", "text": "a"}, {"id": "2", "te'), Format.JSON, Reading(), "in")

    first, last = list(source)
    assert isinstance(first, Document)
    assert str(last) == "in element 2: the file ends inside the array"
    assert last.value == ' {"id": "2", "te'


def test_text_after_a_json_array_is_refused():
    """It may be a second array, which would be lost from view."""
    assert read('[{"id": "1", "text": "a"}]\n[{"id": "2", "text": "b"}]', Format.JSON) == [
        ("1", {"text": "a"}),
        "in element 2: text after the end of the array",
    ]


@pytest.mark.parametrize("form", [Format.JSON, Format.JSONL, Format.CSV])
def test_a_large_file_is_not_held_in_memory(form):
    """After the first document no more than a few buffers of a 20 MB source were taken."""
    rows = ({"id": str(number), "text": "word " * 200} for number in range(20_000))
    texts = (",".join(row.values()) if form is Format.CSV else json.dumps(row) for row in rows)
    start, between, end = {Format.JSON: ("[", ",", "]"), Format.CSV: ("id,text\n", "\n", "\n")}.get(
        form, ("", "\n", "\n")
    )
    stream = io.BytesIO((start + between.join(texts) + end).encode())

    documents = read_stream(stream, form, Reading(), "in")

    assert next(documents).id == "0"
    assert stream.tell() < 500_000
    assert sum(1 for _ in documents) == 19_999


def test_tsv_and_other_delimiters():
    """A tab separates the cells of a TSV file, and any character those of a CSV file."""
    expected = [("1", {"text": "red; old", "year": 3})]
    kinds = {"year": FilterKind.INT}

    assert read("id\ttext\tyear\n1\tred; old\t3\n", Format.TSV, filterable=kinds) == expected
    assert read('id;text;year\n1;"red; old";3\n', Format.CSV, delimiter=";", filterable=kinds) == expected
    assert read("id|text|year\n1|red; old|3\n", Format.TSV, delimiter="|", filterable=kinds) == expected


def test_a_header_with_another_delimiter_names_it():
    """The message says which character seems to separate the cells."""
    with pytest.raises(ValueError, match=r"no column 'id', 'text'.*separated by ';': pass it as the delimiter"):
        read("id;text\n1;red\n", Format.CSV)


@pytest.mark.parametrize(("cell", "value"), [("2020.0", 2020), ("-3", -3), ("1e3", 1000)])
def test_whole_numbers_with_a_point_in_a_csv_are_whole_numbers(cell, value):
    """Pandas writes 2020.0 for a whole number if another cell of the column is empty."""
    table = f"id,text,year\n1,a,{cell}\n2,b,\n"

    assert read(table, Format.CSV, filterable={"year": FilterKind.INT}) == [
        ("1", {"text": "a", "year": value}),
        ("2", {"text": "b"}),
    ]


@pytest.mark.parametrize("cell", ["2020.5", "nan", "inf", "1e300", "9007199254740993.0"])
def test_other_numbers_are_no_whole_numbers(cell):
    """A fraction, and a number beyond the whole ones that a float holds exactly."""
    [refusal] = read(f"id,text,year\n1,a,{cell}\n", Format.CSV, filterable={"year": FilterKind.INT})

    assert refusal == f"in line 2: 'year' must be int, not '{cell}'"


CONTENT = "id,text\n1,grün\n2,rot\n"
COMPRESSIONS = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}


def zstd(content: bytes) -> bytes:
    pa = pytest.importorskip("pyarrow")
    return pa.compress(content, "zstd", asbytes=True)


@pytest.mark.parametrize("kind", [*COMPRESSIONS, "zst"])
@pytest.mark.parametrize("times", [1, 2])
def test_compressed_files_are_read_as_their_content(tmp_path: Path, kind, times):
    """Compression is detected by the first bytes, also in a stream; consecutive members are one file."""
    compress = COMPRESSIONS.get(kind, zstd)
    rows = [json.dumps({"id": str(number), "text": "grün " * 50}) + "\n" for number in range(2000)]
    half = len(rows) // times
    parts = [compress("".join(rows[start : start + half]).encode()) for start in range(0, len(rows), half)]
    path = tmp_path / f"a.jsonl.{kind}"
    path.write_bytes(b"".join(parts))

    results = list(read_path(path, Format.JSONL, Reading()))

    assert [item.id for item in results] == [str(number) for number in range(2000)]
    assert str(results[-1].place) == f"{path} line 2000"
    with path.open("rb") as stream:
        assert list(read_stream(stream, Format.JSONL, Reading(), "in")) == results
    assert count_path(path, Format.JSONL, Reading()) == 2000


@pytest.mark.parametrize("kind", [*COMPRESSIONS, "zst"])
def test_a_compressed_file_that_is_cut_off_is_named(tmp_path: Path, kind):
    """Documents before the fault stay; the message has the name and the compression."""
    rows = "".join(json.dumps({"id": str(n), "text": f"{n * 7919 % 104729}" * 9}) + "\n" for n in range(20_000))
    raw = COMPRESSIONS.get(kind, zstd)(rows.encode())
    path = tmp_path / f"a.jsonl.{kind}"
    path.write_bytes(raw[: len(raw) // 2])

    results: list[str] = []
    ids = (item.id for item in read_path(path, Format.JSONL, Reading()))
    with pytest.raises(ValueError, match=rf"a\.jsonl\.{kind}: damaged or cut off, as \w+ data: "):
        results.extend(ids)
    assert len(results) < 20_000
    assert results == [str(number) for number in range(len(results))]


@pytest.mark.parametrize("name", ["a.parquet.gz", "a.txt.xz", "a.feather.zst"])
def test_formats_that_are_not_read_compressed_are_named(name):
    """They need a file that can be read from any place, or are many files."""
    with pytest.raises(ValueError, match=f"{name}: .* decompress it first"):
        format_of(Path(name))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-16-le", "utf-16-be", "utf-32-be", "utf-8-sig"])
@pytest.mark.parametrize(
    ("content", "form"),
    [(CONTENT, Format.CSV), ('{"id": 1, "text": "grün"}\n{"id": 2, "text": "rot"}', Format.JSONL)],
)
def test_a_byte_order_mark_tells_the_encoding(encoding, content, form):
    """As Windows writes it."""
    mark = {"utf-16-le": codecs.BOM_UTF16_LE, "utf-16-be": codecs.BOM_UTF16_BE, "utf-32-be": codecs.BOM_UTF32_BE}

    assert read(mark.get(encoding, b"") + content.encode(encoding), form) == [
        ("1", {"text": "grün"}),
        ("2", {"text": "rot"}),
    ]


@pytest.mark.parametrize("encoding", ["cp1252", "cp1251", "shift_jis", "utf-16-le", "gb18030"])
def test_a_named_encoding_is_used(encoding):
    """For whatever text; nothing is guessed."""
    notes = Notes()
    text = {"cp1252": "grün…", "cp1251": "красный", "shift_jis": "赤い表"}.get(encoding, "grün 赤")

    results = read(f"id,text\n1,{text}\n".encode(encoding), Format.CSV, encoding=encoding, notes=notes)

    assert results == [("1", {"text": text})]
    assert notes.sentences == ()


@pytest.mark.parametrize("form", [Format.CSV, Format.JSONL, Format.JSON])
def test_western_text_that_is_not_utf_8_is_guessed_and_shown(form):
    """Once, with an excerpt that shows whether the guess is right."""
    rows = {
        Format.CSV: "id,text\n1,Die Straße war grün\n2,café \u2013 “là”\n",
        Format.JSONL: '{"id": "1", "text": "Die Straße war grün"}\n{"id": "2", "text": "café \u2013 “là”"}\n',
        Format.JSON: '[{"id": "1", "text": "Die Straße war grün"}, {"id": "2", "text": "café \u2013 “là”"}]',
    }
    notes = Notes()

    results = read(rows[form].encode("cp1252"), form, notes=notes)

    assert results == [("1", {"text": "Die Straße war grün"}), ("2", {"text": "café \u2013 “là”"})]
    [note] = notes.sentences
    assert note.startswith("in: not UTF-8; read as cp1252, which is a guess: ")
    assert "Straße war" in note


@pytest.mark.parametrize("first", ["Öl", "grün", "été"])
def test_a_short_text_is_guessed_by_other_lines(first):
    """It has too few letters to decide alone; without other lines it is refused."""
    notes = Notes()
    raw = f"id,text\n1,{first}\n2,Müller und Söhne GmbH\n3,red\n".encode("cp1252")

    assert read(raw, Format.CSV, notes=notes) == [
        ("1", {"text": first}),
        ("2", {"text": "Müller und Söhne GmbH"}),
        ("3", {"text": "red"}),
    ]
    assert notes.sentences == (f"in: not UTF-8; read as cp1252, which is a guess: {f'1,{first}'!r}",)


def test_a_short_text_is_not_guessed_by_lines_that_are_not_western():
    """Neither by lines in UTF-8, which do not show in what encoding it is."""
    reason = "in line 2: not UTF-8: if the source has another encoding, name it"
    head = b"id,text\n1,\xd6l\n"

    assert read(head + "2,Müller und Söhne\n".encode(), Format.CSV)[0] == reason
    assert read(head + "2,красный цвет\n".encode("cp1251"), Format.CSV)[0] == reason


def test_a_guess_is_not_made_for_a_file_with_utf_8():
    """A line that is not UTF-8 among others that are is damaged, and refused."""
    notes = Notes()
    raw = "id,text\n1,grün\n".encode() + "2,blässlich\n".encode("cp1252") + b"3,red\n"

    assert read(raw, Format.CSV, notes=notes) == [
        ("1", {"text": "grün"}),
        "in line 3: not UTF-8: if the source has another encoding, name it",
        ("3", {"text": "red"}),
    ]
    assert notes.sentences == ()


@pytest.mark.parametrize("raw", ["красный цвет".encode("cp1251"), "赤い表が".encode("shift_jis"), b"a\x81b", b"ab\xff"])
def test_bytes_that_are_no_western_words_are_not_guessed(raw):
    """Their rows are refused."""
    notes = Notes()

    assert read(b"id,text\n1," + raw + b"\n", Format.CSV, notes=notes) == [
        "in line 2: not UTF-8: if the source has another encoding, name it"
    ]
    assert notes.sentences == ()


def test_an_encoding_that_does_not_fit_ends_the_reading_with_its_name():
    """UTF-16 with half of a surrogate pair has no lines that could be refused alone."""
    with pytest.raises(ValueError, match=r"in: not utf-16-le: .*; pass the right encoding"):
        read(
            "id,text\n1,x\n".encode("utf-16-le") + b"\x41\xd8" + "x\n".encode("utf-16-le"),
            Format.CSV,
            encoding="utf-16-le",
        )


@pytest.mark.parametrize(
    ("name", "message"), [("utf-9", "unknown encoding 'utf-9'"), ("rot13", "not an encoding of text")]
)
def test_an_unknown_encoding_is_named(name, message):
    """Also one of Python's that is none of text."""
    with pytest.raises(ValueError, match=message):
        check_encoding(name)


def test_templates_compose_fields_of_columns():
    """The text from title and body, whose columns stay; an empty column leaves nothing behind."""
    rows = (
        '{"sku": "a", "lang": "en", "title": "T", "body": "B"}\n'
        '{"sku": "b", "lang": "de", "title": "T", "body": null}\n'
    )
    templates = {"text": parse_template("{title}. {body}"), "id": parse_template("{sku}-{lang}")}

    assert read(rows, Format.JSONL, templates=templates) == [
        ("a-en", {"sku": "a", "lang": "en", "title": "T", "body": "B", "text": "T. B"}),
        ("b-de", {"sku": "b", "lang": "de", "title": "T", "body": None, "text": "T. "}),
    ]


def test_a_template_of_a_single_column_keeps_the_type():
    """Also in CSV, where the kind of the new field counts."""
    templates = {"year": parse_template("{jahr}")}
    kinds = {"year": FilterKind.INT}

    assert read('{"id": 1, "text": "x", "jahr": 3}', Format.JSONL, templates=templates) == [
        ("1", {"text": "x", "jahr": 3, "year": 3})
    ]
    assert read("id,text,jahr\n1,x,3\n", Format.CSV, templates=templates, filterable=kinds) == [
        ("1", {"text": "x", "jahr": "3", "year": 3})
    ]


def test_a_template_keeps_the_column_that_it_replaces():
    """Under another name, which is said."""
    notes = Notes()
    options = {"templates": {"text": parse_template("{title}: {text}")}, "notes": notes}

    assert read("id,title,text\n1,T,x\n", Format.CSV, **options) == [
        ("1", {"title": "T", "original_text": "x", "text": "T: x"})
    ]
    assert notes.sentences == ("in: the column 'text' is stored in the payload as 'original_text'",)


def test_a_record_without_the_columns_of_a_template_is_refused():
    """If all of them are absent or empty; a table without such a column is not read."""
    templates = {"text": parse_template("{title}. {body}")}

    assert read('{"id": "1", "title": ""}\n{"id": "2", "title": "T"}', Format.JSONL, templates=templates) == [
        "in line 1: 'text' is missing",
        ("2", {"title": "T", "text": "T. "}),
    ]
    with pytest.raises(ValueError, match="no column 'body'; the columns are id, title"):
        read("id,title\n1,T\n", Format.CSV, templates=templates)


@pytest.mark.parametrize(
    ("template", "filled"),
    [
        ("{a}", 1),
        ("{a}{b c}", "1x"),
        ("{{{a}}}", "{1}"),
        ("no column", "no column"),
        ("{list} {flag}", '["é"] true'),
        ("{absent}", None),
        ("{absent}-{empty}", None),
        ("{absent}-{a}", "-1"),
    ],
)
def test_what_a_template_makes_of_a_row(template, filled):
    """Values that are no texts are written as JSON."""
    row = {"a": 1, "b c": "x", "list": ["é"], "flag": True, "empty": ""}

    assert parse_template(template).fill(row) == filled


@pytest.mark.parametrize("template", ["{a", "a}", "{}", "{a{b}}"])
def test_a_template_with_a_lone_brace_is_refused(template):
    """With its column, and how to write a brace."""
    with pytest.raises(ValueError, match=r"the brace at column \d has no partner; write \{\{ or \}\}"):
        parse_template(template)


@given(st.text(max_size=20))
def test_any_text_with_doubled_braces_is_its_own_template(text):
    """Braces are the only special characters."""
    assert parse_template(text.replace("{", "{{").replace("}", "}}")).fill({}) == text


@pytest.mark.parametrize("form", [Format.JSONL, Format.JSON, Format.CSV, Format.TSV])
def test_the_meter_knows_how_much_of_the_files_was_read(tmp_path: Path, form):
    """From 0 to 1 over all files, growing, and about a half after the first of two."""
    rows = [{"id": str(number), "text": "word " * 20} for number in range(5000)]
    comma = "\t" if form is Format.TSV else ","
    table = "\n".join(["id" + comma + "text", *(comma.join(row.values()) for row in rows)])
    content = {Format.JSONL: "\n".join(map(json.dumps, rows)), Format.JSON: json.dumps(rows)}.get(form, table)
    paths = [tmp_path / "a", tmp_path / "b"]
    for path in paths:
        path.write_text(content)
    meter = Meter(sum(size_of_path(path, form) for path in paths))
    reading = Reading(meter=meter)

    shares = [meter.share() for path in paths for _ in read_path(path, form, reading)]

    assert len(shares) == 10_000
    assert shares == sorted(shares)
    assert shares[0] < 0.1
    assert shares[5000] == pytest.approx(0.5, abs=0.1)
    assert meter.share() == 1.0
    assert Meter().share() is None


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", b'\n{"id": 1, "text": "x"}\nnonsense\n\xff\n   \n[1]'),
        ("a.csv", b'id,text\n1,"a\nb"\n2\n\n3,x,y\n4,"a"b\n5,z\n'),
        ("a.tsv", b"id\ttext\n1\tx\n"),
        ("a.json", b'[{"id": 1, "text": "x"}, nonsense, {"id": 2}] x'),
        ("b.json", b'{"id": 1, "text": "x"}\n{"id": 2}\n'),
    ],
)
def test_documents_are_counted_as_they_are_read(tmp_path: Path, name, content):
    """Refused ones included, so that the number of what is left is exact."""
    path = tmp_path / name
    path.write_bytes(content)
    form = Format(path.suffix[1:])

    assert count_path(path, form, Reading()) == len(list(read_path(path, form, Reading()))) > 0
