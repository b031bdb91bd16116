"""How the command line reads sources: the options that concern single documents."""

from __future__ import annotations

import json


def test_a_document_above_max_document_is_refused_alone(cli, tmp_path):
    """The others are stored, and the line says how to raise the limit."""
    source = tmp_path / "in.jsonl"
    rows = [{"id": "a", "text": "red"}, {"id": "b", "text": "x" * 3000}, {"id": "c", "text": "blue"}]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    target = ["--in", f"memory:{tmp_path}", "--collection", "c", "--create"]

    outcome = cli("ingest", source, *target, "--max-document", "1kB")

    assert outcome.status == 1
    assert outcome.out.startswith("2 of 3 documents confirmed in ")
    assert (
        f"{source} line 2: 3,024 bytes are more than the limit of 1,000; "
        "divide it into several documents, or raise the limit (option max-document)"
    ) in outcome.err + outcome.out
    assert cli("ingest", source, *target, "--max-document", "4kB").status == 0


def test_a_limit_that_is_no_size_is_refused_before_anything_is_read(cli, tmp_path):
    """On one line."""
    source = tmp_path / "in.jsonl"
    source.write_text("{}")

    outcome = cli("ingest", source, "--in", "memory:x", "--collection", "c", "--create", "--max-document", "large")

    assert outcome.status != 0
    assert "--max-document 'large': expected a size above 0 such as 2GB, 512MB or 4GiB" in outcome.err
