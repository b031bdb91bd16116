"""What ``--help`` tells: every spelling that an option takes, and usages that can be typed."""

from __future__ import annotations

import pytest


def _words(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("command", ["create", "ingest"])
def test_the_help_tells_what_a_field_without_a_kind_is(cli, command):
    """``--filterable year`` makes a keyword of it, so the help says that beside the kinds."""
    outcome = cli(command, "--help")

    assert outcome.status == 0
    assert "year:int; a keyword if no KIND (int, float, bool, date) is given" in _words(outcome.out)


@pytest.mark.parametrize("command", ["create", "ingest", "search"])
def test_the_help_tells_every_spelling_of_a_fusion(cli, command):
    """What the error for a wrong fusion proposes stands in the help as well."""
    outcome = cli(command, "--help")

    for spelling in ("rrf,", "rrf:60 ", "rrf:60:1,2 ", "weighted:0.25,0.75"):
        assert spelling in _words(outcome.out)


@pytest.mark.parametrize(
    ("command", "usage"),
    [
        ("export", "MODEL"),
        ("ingest", "SOURCE..."),
        ("get", "ID..."),
        ("copy", "FROM TO"),
        ("encode", "[TEXT...]"),
        ("search", "QUERY"),
        ("conform", "URL"),
    ],
)
def test_usages_name_arguments_as_people_write_them(cli, command, usage):
    """No braces round what must be given, and dots once."""
    outcome = cli(command, "--help")

    assert outcome.out.splitlines()[0] == f"Usage: st-connectors {command} [OPTIONS] {usage}"


@pytest.mark.parametrize("command", ["create", "encode", "ingest", "search"])
def test_the_help_tells_what_runs_models_in_the_same_words(cli, command):
    """Which backends and types there are, and an example with both or one of them."""
    words = _words(cli(command, "--help").out)

    assert "What runs transformers: torch, openvino, onnx, or auto, the fastest here." in words
    assert "What they compute in: float32, float16, bfloat16, or int8 (openvino and onnx); by default" in words
    assert words.count(f"Example: st-connectors {command}") == 2
    assert "--backend openvino" in words.rpartition("Example:")[2]
