"""Reading files: good records come as documents, bad ones as refusals with their place."""

from __future__ import annotations

import io
import re
import sys
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from st_connectors.ingest import Document, DocumentError
from st_connectors.ingest.sources import Format, Notes, Reading, format_of, read_path, read_stream
from st_connectors.schema import FilterKind
from st_core.install import install_command


def shown(items) -> list[object]:
    """Documents as (id, payload), refusals as their text."""
    return [str(item) if isinstance(item, DocumentError) else (item.id, item.payload) for item in items]


def read(content: str | bytes, form: Format, **options) -> list[object]:
    raw = content.encode() if isinstance(content, str) else content
    return shown(read_stream(io.BytesIO(raw), form, Reading(**options), "in"))


def test_jsonl_lines_are_documents():
    """Each line is a record, blank lines and a byte order mark are skipped, and the last line needs no end."""
    assert read('\ufeff{"id": "a", "text": "red", "n": [1, 1.0, null]}\n\n{"id": 2, "text": "ü"}', Format.JSONL) == [
        ("a", {"n": [1, 1.0, None], "text": "red"}),
        ("2", {"text": "ü"}),
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"id": "a", "text": ', "in line 2: not JSON: Expecting value"),
        (b'{"id": "a", "text": NaN}', "in line 2: not JSON: NaN is not a JSON value"),
        (b'{"id": "a", "text": "\xff"}', "in line 2: not UTF-8"),
        (b"[1]", "in line 2: expected a JSON object, not list"),
        (b'{"text": "x"}', "in line 2: 'id' is missing"),
        (b'{"id": "x"}', "in line 2: 'text' is missing"),
        (b'{"id": "x", "text": 5}', "in line 2: 'text' must be a string, not int"),
        (b"[" * 100_000, "in line 2: nested too deeply"),
    ],
)
def test_a_bad_jsonl_line_is_named_and_the_others_are_read(line, reason):
    """A refusal says which line, and why; the neighbours are read."""
    good = b'{"id": "g", "text": "t"}'

    before, bad, after = read(good + b"\n" + line + b"\n" + good + b"\n", Format.JSONL)

    assert before == after == ("g", {"text": "t"})
    assert isinstance(bad, str)
    assert bad.startswith(reason)


def test_fields_are_chosen_by_name():
    """One text field is renamed, and reasons speak of the columns as the source calls them."""
    rows = '{"key": 7, "body": "red", "year": 3}\n{"key": 8}\n{"body": "x"}\n'

    assert read(rows, Format.JSONL, id_field="key", text_fields=("body",)) == [
        ("7", {"year": 3, "text": "red"}),
        "in line 2: 'body' is missing",
        "in line 3: 'key' is missing",
    ]


def test_several_text_fields_are_joined_and_kept():
    """Title and body become one text, empty ones left out, and stay in the payload."""
    rows = '{"id": "1", "title": "T", "body": "B"}\n{"id": "2", "title": null, "body": "B"}\n{"id": "3", "title": ""}\n'

    assert read(rows, Format.JSONL, text_fields=("title", "body")) == [
        ("1", {"title": "T", "body": "B", "text": "T\nB"}),
        ("2", {"title": None, "body": "B", "text": "B"}),
        "in line 3: 'text' is missing",
    ]


@pytest.mark.parametrize(
    ("row", "options", "payload", "name"),
    [
        ('{"id": "1", "sku": "2", "text": "t"}', {"id_field": "sku"}, {"original_id": "1", "text": "t"}, "id"),
        (
            '{"id": "1", "text": "t", "body": "b"}',
            {"text_fields": ("body",)},
            {"original_text": "t", "text": "b"},
            "text",
        ),
        (
            '{"id": "1", "text": "t", "body": "b"}',
            {"text_fields": ("text", "body")},
            {"original_text": "t", "body": "b", "text": "t\nb"},
            "text",
        ),
    ],
)
def test_a_column_named_id_or_text_is_kept_beside_the_chosen_field(row, options, payload, name):
    """Under another name, which is said once for all rows; a row that has this name too is refused."""
    notes = Notes()
    rows = f"{row}\n{row}\n" + row.replace("{", f'{{"original_{name}": 1, ')

    first, second, third = read(rows, Format.JSONL, **options, notes=notes)

    assert first == second == ("2" if name == "id" else "1", payload)
    assert third == f"in line 3: the column {name!r} cannot be stored as 'original_{name}', which exists: rename one"
    assert notes.sentences == (f"in: the column {name!r} is stored in the payload as 'original_{name}'",)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"id_field": "nope"}, "'nope' is missing"),
        ({"text_fields": ("nope",)}, "'nope' is missing"),
        ({"text_fields": ("title", "body")}, "'title' and 'body' are missing"),
    ],
)
def test_a_chosen_field_that_is_not_there_is_missing(options, reason):
    """A misspelt field name is told as such, whatever else the record has."""
    assert read('{"id": "1", "text": "t"}', Format.JSONL, **options) == [f"in line 1: {reason}"]


def test_csv_rows_are_documents_with_typed_filterable_cells():
    """Cells are strings, except those of filterable columns, which are read by their kind; an empty one is absent."""
    table = '\ufeffid,text,year,score,done,tag,note\r\n1,red,1990,2.5,true,x,5\r\n2,"a\nb",,,,y,\r\n'
    kinds = {"year": FilterKind.INT, "score": FilterKind.FLOAT, "done": FilterKind.BOOL, "tag": FilterKind.KEYWORD}

    assert read(table, Format.CSV, filterable=kinds) == [
        ("1", {"text": "red", "year": 1990, "score": 2.5, "done": True, "tag": "x", "note": "5"}),
        ("2", {"text": "a\nb", "tag": "y", "note": ""}),
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("1,red,abc", "in line 2: 'year' must be int, not 'abc'"),
        ("1,red", "in line 2: fewer cells than columns"),
        ("1,red,3,4", "in line 2: more cells than columns"),
        (",red,3", "in line 2: 'id' is missing"),
        ("1,,3", "in line 2: 'text' is missing"),
        ('1,"red"x,3', "in line 2: not CSV"),
        (b"1,\xff,3", "in line 2: not UTF-8"),
    ],
)
def test_a_bad_csv_row_is_named_and_the_others_are_read(line, reason):
    """A refusal says which line, and why; the neighbour is read."""
    raw = line if isinstance(line, bytes) else line.encode()

    bad, good = read(b"id,text,year\n" + raw + b"\n9,t,1\n", Format.CSV, filterable={"year": FilterKind.INT})

    assert isinstance(bad, str)
    assert bad.startswith(reason)
    assert good == ("9", {"text": "t", "year": 1})


@pytest.mark.parametrize(
    ("rows", "reason", "after"),
    [
        ('2,"blue\n3,green\n4,grey\n', "lines 3 to 5 were read as one row", []),
        ('2,"blue\n3,green\n4,"grey"\n5,pink\n', "lines 3 to 5 were read as one row", [("5", {"text": "pink"})]),
    ],
)
def test_a_quote_that_is_not_closed_says_which_lines_are_lost(rows, reason, after):
    """One refusal stands for several rows, up to the next quote or the end of the file."""
    first, bad, *rest = read(f"id,text\n1,red\n{rows}", Format.CSV)

    assert first == ("1", {"text": "red"})
    assert bad.startswith("in line 3: not CSV: ")
    assert bad.endswith(f"; {reason}; a quote is not closed, or quotes are ordinary characters (option quote)")
    assert rest == after


def test_quotes_are_ordinary_characters_if_there_is_no_quote():
    """As in the TSV files of retrieval collections; by default such rows are refused or joined to the next one."""
    table = 'id\ttext\n1\t"Hello" he said\n2\t5" disk\n3\t"not closed\n4\tred\n'
    cells = ['"Hello" he said', '5" disk', '"not closed', "red"]
    texts = [(str(number), {"text": cell}) for number, cell in enumerate(cells, 1)]

    assert read(table, Format.TSV, quote="") == texts
    assert [item for item in read(table, Format.TSV) if isinstance(item, tuple)] == [("2", {"text": '5" disk'})]
    assert read("id,text\n1,'a, b'\n", Format.CSV, quote="'") == [("1", {"text": "a, b"})]


def test_a_csv_without_the_columns_says_which_it_has():
    """A wrong header stops the reading at once."""
    with pytest.raises(ValueError, match="in: no column 'text'; the columns are id, body"):
        read("id,body\n1,x\n", Format.CSV)


def test_a_csv_cell_may_be_a_book():
    """The csv module's own limit of 131,072 characters is not ours."""
    book = "word " * 100_000

    assert read(f"id,text\n1,{book}\n2,red\n", Format.CSV) == [("1", {"text": book}), ("2", {"text": "red"})]


def test_a_csv_with_a_column_twice_is_not_read():
    """One of the two would be lost."""
    with pytest.raises(ValueError, match="in: the header repeats 'year'; the columns are id, text, year, year"):
        read("id,text,year,year\n1,x,1,2\n", Format.CSV)


def test_parquet_rows_are_documents(tmp_path: Path):
    """Nulls are absent, moments become ISO 8601, decimals numbers, and a row without text is refused by its number."""
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [
        {
            "id": 1,
            "text": "red",
            "when": date(2020, 1, 31),
            "at": datetime.fromisoformat("2020-01-31T08:00"),
            "price": Decimal("1.50"),
            "tags": ["a", "b"],
        },
        {"id": 2, "text": None, "when": None, "at": None, "price": None, "tags": None},
    ]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")

    assert shown(read_path(tmp_path / "t.parquet", Format.PARQUET, Reading())) == [
        ("1", {"when": "2020-01-31", "at": "2020-01-31T08:00:00", "price": 1.5, "tags": ["a", "b"], "text": "red"}),
        f"{tmp_path / 't.parquet'} row 2: 'text' is missing",
    ]


def test_what_is_no_parquet_is_told_by_its_name(tmp_path: Path):
    """Of several sources the message says which."""
    pytest.importorskip("pyarrow")
    path = tmp_path / "x.parquet"
    path.write_bytes(b"no columns in here")

    with pytest.raises(ValueError, match=r"x\.parquet: not Parquet: "):
        list(read_path(path, Format.PARQUET, Reading()))


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The missing extra is an ImportError with the command."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "t.parquet").touch()

    with pytest.raises(ImportError, match=re.escape(install_command("parquet"))):
        list(read_path(tmp_path / "t.parquet", Format.PARQUET, Reading()))


def test_a_folder_gives_its_text_files_by_their_paths(tmp_path: Path):
    """Text and Markdown files at any depth, in order, by their paths.

    Others are left alone, and one that is no UTF-8 is refused.
    """
    (tmp_path / "sub").mkdir()
    (tmp_path / "b.md").write_text("# Title\n", encoding="utf-8")
    (tmp_path / "sub" / "a.txt").write_text("text", encoding="utf-8-sig")
    (tmp_path / "c.txt").write_bytes(b"ab\xff")
    (tmp_path / "d.py").write_text("code", encoding="utf-8")

    found = list(read_path(tmp_path, Format.TEXT, Reading()))

    assert [item for item in found if isinstance(item, Document)] == [
        Document("b.md", "# Title\n"),
        Document("sub/a.txt", "text"),
    ]
    [refusal] = [item for item in found if isinstance(item, DocumentError)]
    assert (refusal.id, str(refusal)) == ("c.txt", f"{tmp_path / 'c.txt'}: not UTF-8, at byte 2")


def test_a_folder_without_text_says_what_it_looked_for(tmp_path: Path):
    """An empty folder is a mistake, not an empty ingest."""
    with pytest.raises(ValueError, match=r"no file ends in \.markdown, \.md"):
        list(read_path(tmp_path, Format.TEXT, Reading()))


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("a.jsonl", "jsonl"),
        ("a.NDJSON", "jsonl"),
        ("a.csv", "csv"),
        ("a.parquet", "parquet"),
        ("a.md", "text"),
        ("a.TXT", "text"),
        ("a.json", "json"),
        ("a.tsv", "tsv"),
        ("a.feather", "arrow"),
        ("a.jsonl.gz", "jsonl"),
        ("a.CSV.ZST", "csv"),
    ],
)
def test_the_name_tells_the_format(name, form):
    """By the ending, whatever its case."""
    assert format_of(Path(name)) == form


def test_a_name_that_tells_no_format_says_which_there_are():
    """An unknown ending asks for --format's values."""
    with pytest.raises(
        ValueError, match=r"a\.xyz: the suffix '\.xyz' has no known format: pass one of jsonl, csv, parquet, text"
    ):
        format_of(Path("a.xyz"))


@pytest.mark.parametrize("form", [Format.PARQUET, Format.TEXT, Format.ARROW])
def test_what_cannot_stream_is_said(form):
    """Standard input is read once, forwards."""
    with pytest.raises(ValueError, match="cannot be read from a stream"):
        read(b"", form)
