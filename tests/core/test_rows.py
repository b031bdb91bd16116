"""Rows of a training and judgements are read from files, with the line of what cannot be read."""

from __future__ import annotations

import json

import pytest

from st_core.evaluation.files import read_judgements, read_queries
from st_core.rows import is_file_set, rows_of_files

ROWS = [
    {"query": "copy a tree", "answer": 'shutil.copytree, "whole"', "score": 0.5},
    {"query": "naïve 🙂", "answer": "two\nlines", "score": 1},
    {"query": "", "answer": "none", "score": [1.5, -2]},
]


def written(path, text):
    """The path, after writing text to it."""
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def json_lines(folder, rows, name="rows.jsonl"):
    """A JSON Lines file with blank lines and a byte order mark."""
    lines = "\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    return written(folder / name, f"\ufeff{lines}\r\n")


CSV = """query,answer,score
copy a tree,"shutil.copytree, ""whole""\",0.5

naïve 🙂,"two
lines",1
"",none,"[1.5, -2]"
"""


def test_rows_of_json_lines_and_tables_are_equal(tmp_path):
    """Read in any order; cells of several lines, quotes, and labels that are lists."""
    pytest.importorskip("pyarrow", reason="writes the Parquet file")
    from pyarrow import Table, parquet

    plain = [row | {"score": 0.25} for row in ROWS]
    parquet.write_table(Table.from_pylist(plain), tmp_path / "rows.parquet")
    rows = [
        rows_of_files(json_lines(tmp_path, ROWS)),
        rows_of_files(written(tmp_path / "rows.csv", CSV.replace("\n", "\r\n").replace("two\r\n", "two\n"))),
        rows_of_files(written(tmp_path / "rows.tsv", "a\tscore\nx, y\t2\n")),
        rows_of_files(str(tmp_path / "rows.parquet")),
    ]

    assert [rows[0][place] for place in (2, 0, 1)] == [ROWS[2], ROWS[0], ROWS[1]]
    assert [rows[1][place] for place in (2, 0, 1)] == [ROWS[2], ROWS[0], ROWS[1]]
    assert rows[2][0] == {"a": "x, y", "score": 2}
    assert [rows[3][place] for place in range(3)] == plain


def test_several_files_are_one_data_set(tmp_path):
    """In order; only paths are files."""
    first, second = (json_lines(tmp_path, part, f"{place}.jsonl") for place, part in enumerate((ROWS[:2], ROWS[2:])))
    rows = rows_of_files([first, str(second)])

    assert list(rows) == ROWS
    assert is_file_set(first)
    assert is_file_set([str(first), second])
    assert not is_file_set(ROWS)
    assert not is_file_set([])


BROKEN = [
    ("a.jsonl", '{"a": 1}\n{"a": \n', 1, r"a.jsonl line 2: Expecting value"),
    ("a.jsonl", '{"a": 1}\n\n[1]\n', 1, r"a.jsonl line 3: expected a JSON object, got list"),
    ("a.csv", "a,b\n1,2\n3\n", 1, r"a.csv line 3: expected 2 cells, got 1"),
    ("a.csv", "a,a\n1,2\n", None, r"a.csv: the header repeats 'a'"),
    ("a.csv", "a,b\n", None, r"a.csv: no rows"),
    ("a.jsonl", b'{"a": "\xff"}\n', None, r"a.jsonl: not UTF-8: invalid start byte"),
    ("a.jsonl.gz", b"", None, r"the suffix '.gz' is not read; expected one of .jsonl.*without compression"),
]


@pytest.mark.parametrize(("name", "text", "position", "message"), BROKEN)
def test_what_is_no_row_is_named_with_its_line(tmp_path, name, text, position, message):
    """When the file is opened, or the row is read."""
    path = written(tmp_path / name, text)

    with pytest.raises(ValueError, match=message):
        rows_of_files(path)[position]


def test_files_of_other_columns_are_refused(tmp_path):
    """They would be read as rows with missing values."""
    first, second = json_lines(tmp_path, ROWS), written(tmp_path / "b.jsonl", '{"text": "a"}\n')

    with pytest.raises(ValueError, match=r"b.jsonl has the columns text, and .*rows.jsonl answer, query, score"):
        rows_of_files([first, second])


QUERIES = [
    ("q.jsonl", '{"_id": "q1", "text": "a b"}\n{"_id": 2, "text": "c"}\n'),
    ("q.tsv", "query-id\ttext\nq1\ta b\n2\tc\n"),
    ("q.tsv", "q1\ta b\n2\tc\n"),
    ("q.csv", 'text,id\n"a b",q1\nc,2\n'),
]


@pytest.mark.parametrize(("name", "text"), QUERIES)
def test_queries_are_read_from_any_form(tmp_path, name, text):
    """Of BEIR, of TREC, and tables with a header."""
    assert read_queries(written(tmp_path / name, text)) == {"q1": "a b", "2": "c"}


JUDGEMENTS = [
    ("qrels.tsv", "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td 2\t0\n"),
    ("qrels.tsv", "q1\td1\t2\nq1\td 2\t0\n"),
    ("qrels.txt", "q1\t0\td1\t2\nq1\t0\td 2\t0\n"),
    ("qrels.csv", "score,query_id,doc_id\n2,q1,d1\n0,q1,d 2\n"),
]


@pytest.mark.parametrize(("name", "text"), JUDGEMENTS)
def test_judgements_are_read_from_any_form(tmp_path, name, text):
    """Of BEIR, of TREC, and tables with a header."""
    assert read_judgements(written(tmp_path / name, text)) == {"q1": {"d1": 2.0, "d 2": 0.0}}


REFUSED = [
    (
        read_queries,
        "q.jsonl",
        '{"_id": "1", "text": "a"}\n{"_id": "1", "text": "b"}',
        "line 2: .*'1' is repeated",
    ),
    (read_queries, "q.jsonl", '{"text": "a"}', "line 1: expected an object with _id and text"),
    (read_queries, "q.tsv", "", "no queries"),
    (read_queries, "q.tsv", "alone\n", "line 1: expected the id and the text of a query"),
    (read_judgements, "r.txt", "", "no judgements"),
    (read_judgements, "r.txt", "q1 d1\n", "line 1: expected query, iteration, document and grade.*got 2 columns"),
    (read_judgements, "r.txt", "q1 0 d1 high\n", "line 1: the grade 'high' is not a number"),
    (read_judgements, "r.txt", "q1 0 d1 1\nq1 0 d1 2\n", "line 2: document 'd1' of query 'q1' has the grade 2, and 1"),
]


@pytest.mark.parametrize(("read", "name", "text", "message"), REFUSED)
def test_queries_and_judgements_of_another_form_are_refused(tmp_path, read, name, text, message):
    """With the file and the line."""
    with pytest.raises(ValueError, match=rf"{name}.*{message}"):
        read(written(tmp_path / name, text))
