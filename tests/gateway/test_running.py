"""The command ``gateway``: how it begins, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading

import pytest
from stub_nodes import ok, raw_node, talk

from st_connectors.cli import run

pytest.importorskip("h11", reason="needs the extra server")
pytest.importorskip("elasticsearch", reason="needs the extra elasticsearch")

COMMAND = (sys.executable, "-c", "from st_connectors.cli import main; main()", "gateway")
GET = b"GET /_cat HTTP/1.1\r\nHost: es\r\nConnection: close\r\n\r\n"


def test_command_passes_requests_on_and_answers_the_last_one_before_it_stops():
    """SIGTERM ends the command with status 0, after the request that runs has its answer."""
    begun, may_answer = threading.Event(), threading.Event()

    def respond(request: bytes) -> bytes:
        if not request.startswith(b"GET / "):
            begun.set()
            may_answer.wait(30)
        return ok(b"late")

    with raw_node(respond) as node:
        address = f"elasticsearch://127.0.0.1:{node.port}"
        command = [*COMMAND, address, "--port", "0", "--json"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            started = json.loads(process.stdout.readline())
            answers: list[bytes] = []
            port = int(started["address"].rpartition(":")[2])
            client = threading.Thread(target=lambda: answers.append(talk(port, GET)))
            client.start()
            assert begun.wait(30)
            process.send_signal(signal.SIGTERM)
            may_answer.set()
            client.join()
            error = process.communicate(timeout=60)[1]

    assert started["nodes"] == [address]
    assert answers[0].endswith(b"late")
    assert process.returncode == 0
    assert error.splitlines() == [f"st-connectors: listening on {started['address']} for {address}; Ctrl-C stops"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "no node: name one"),
        (["qdrant://localhost:6333"], "nodes of elasticsearch or opensearch"),
        (["elasticsearch+https://localhost?ca=absent.pem"], "there is no file 'absent.pem'"),
        (["elasticsearch://localhost", "--settings", "absent.toml"], "absent.toml"),
        (["elasticsearch://ada:secret@localhost"], "must not contain a user or password"),
        (["elasticsearch://localhost", "--port", "70000"], "port 70000"),
    ],
)
def test_mistakes_are_one_line(capsys, arguments, reason):
    """A mistake in the arguments ends the command with status 2 and one line that says what to do."""
    status = run(["gateway", *arguments])

    printed = capsys.readouterr()
    assert (status, printed.out) == (2, "")
    assert reason in printed.err
    assert printed.err.count("\n") == 1


def test_port_in_use_is_named(capsys):
    """A port that another program uses is named, with the option that changes it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        status = run(["gateway", "elasticsearch://localhost", "--port", port])

    error = capsys.readouterr().err
    assert status == 2
    assert f"cannot listen on 127.0.0.1:{port}" in error
    assert "--port" in error


def test_nodes_are_not_asked_before_the_gateway_listens():
    """A gateway starts without its nodes, so that the order in which services start does not matter."""
    from st_connectors.gateway import Settings, serving

    with serving(Settings(("opensearch://127.0.0.1:1",))) as address:
        answer = talk(int(address.rpartition(":")[2]), GET)

    assert answer.startswith(b"HTTP/1.1 502 ")
    assert b"X-elastic-product" not in answer
    assert os.linesep.encode() not in answer.partition(b"\r\n\r\n")[2]


def test_a_missing_package_of_the_engine_is_named_with_its_extra():
    """The gateway uses the store's own code, whose packages are in the extra of the store."""
    command = "import sys; sys.modules['orjson'] = None; from st_connectors.cli import run; sys.exit(run(sys.argv[1:]))"
    ended = subprocess.run(
        [sys.executable, "-c", command, "gateway", "opensearch://localhost:1"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert ended.returncode == 2
    assert ended.stderr.startswith("st-connectors: the store 'opensearch' needs orjson: ")
    assert ended.stderr.count("\n") == 1
