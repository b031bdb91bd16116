"""``--help`` lists every spelling that an option accepts, and usage lines that can be typed as printed."""

from __future__ import annotations

import pytest
import typer.main

from st_connectors.cli import app


def _words(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("command", ["create", "ingest"])
def test_help_names_the_default_kind_of_a_filterable_field(cli, command):
    """The help lists the kinds and says that a field without one is a keyword."""
    outcome = cli(command, "--help")

    assert outcome.status == 0
    assert "such as year:int. KIND is keyword, int, float, bool or date (default: keyword)." in _words(outcome.out)


@pytest.mark.parametrize("command", ["create", "ingest", "search"])
def test_help_lists_every_spelling_of_a_fusion(cli, command):
    """The help lists the same spellings as the error for an unknown fusion."""
    outcome = cli(command, "--help")

    for spelling in ("rrf,", "rrf:60 ", "rrf:60:1,2 ", "weighted:0.25,0.75"):
        assert spelling in _words(outcome.out)


@pytest.mark.parametrize(
    ("command", "usage"),
    [
        ("export", "MODEL"),
        ("ingest", "[SOURCE...]"),
        ("get", "[ID...]"),
        ("delete", "[ID...]"),
        ("copy", "FROM TO"),
        ("encode", "[TEXT...]"),
        ("search", "[QUERY]"),
        ("conform", "URL"),
    ],
)
def test_usage_lines_show_plain_arguments(cli, command, usage):
    """Required arguments have no braces, and repeated ones have dots once."""
    outcome = cli(command, "--help")

    assert outcome.out.splitlines()[0] == f"Usage: st-connectors {command} [OPTIONS] {usage}"


@pytest.mark.parametrize("command", ["create", "encode", "ingest", "search"])
def test_help_describes_backends_in_the_same_words(cli, command):
    """Every command that runs models lists the backends and dtypes, and shows an example with them."""
    words = _words(cli(command, "--help").out)

    assert (
        "Backend that runs transformer models: torch, openvino, onnx, or auto (the fastest on this machine)." in words
    )
    assert (
        "Type that weights are computed in: float32, float16, bfloat16, or int8 (openvino and onnx). Default:" in words
    )
    assert words.count(f"Example: st-connectors {command}") == {"ingest": 4}.get(command, 2)
    assert "--backend openvino" in words.rpartition("Example:")[2]


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["--help", "search"]])
def test_the_help_of_all_commands_is_that_of_the_whole_application(cli, capsys, arguments):
    """It is printed without building the options of the commands, and has the names and summaries of all."""
    typer.main.get_command(app)(arguments, prog_name="st-connectors", standalone_mode=False)
    whole = capsys.readouterr().out

    assert "  search " in whole
    assert (cli(*arguments).out, cli(*arguments).status) == (whole, 0)


def test_a_command_may_follow_the_end_of_options(cli):
    """``st-connectors -- stores`` runs the command."""
    assert cli("--", "stores").out == cli("stores").out != ""


def test_a_misspelled_command_is_corrected(cli):
    """The suggestion comes from all commands."""
    line = cli("ingst", "x").error_line()

    assert line == "No such command 'ingst'. Did you mean 'ingest', 'list'?; see st-connectors --help"
