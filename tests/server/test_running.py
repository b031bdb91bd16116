"""The process: its address, how it stops, TLS, the access log, several workers, and mistakes in its settings."""

from __future__ import annotations

import json
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.request

import pytest

from st_connectors.server.settings import Settings, model_of_option, read_settings
from st_core.protocols import ModelKind

pytest.importorskip("fastapi", reason="needs the extra server")


# A background parent process passes on an ignored Ctrl-C to its children; a terminal does not.
SERVED = """
import signal
from st_connectors.cli import main

signal.signal(signal.SIGINT, signal.default_int_handler)
main()
"""


class Process:
    """``st-connectors serve`` with options, and the lines that it prints."""

    def __init__(self, *options, **environment):
        command = [sys.executable, "-c", SERVED, "serve", "--port", "0", *options]
        self.process = subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"} | environment
        )
        self.lines: queue.Queue[str] = queue.Queue()
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self):
        for line in self.process.stderr:
            self.lines.put(line.rstrip("\n"))
        self.process.stderr.close()

    def line(self, pattern):
        """Wait for a line with a pattern, and return its match."""
        while True:
            match = re.search(pattern, self.lines.get(timeout=120))
            if match:
                return match

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        status = self.process.wait(60)
        self.reader.join()
        return status

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.reader.join()


def embed(address, context=None):
    request = urllib.request.Request(
        f"{address}/embed", json.dumps({"inputs": "a text"}).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60, context=context) as response:
        return json.loads(response.read())


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, 130)])
def test_it_serves_until_a_signal(number, status):
    """The address is printed, requests are logged without their texts, and a signal ends the process."""
    with Process() as process:
        address = process.line(r"listening on (http://\S+);")[1]
        process.line(": ready$")
        assert len(embed(address)[0]) == 256
        logged = process.line(r"^\{.*\}$")[0]
        assert "a text" not in logged
        assert {"path": "/embed", "status": 200, "texts": 1}.items() <= json.loads(logged).items()
        assert process.stop(number) == status


def test_the_address_as_json():
    """A program that starts the server on a free port reads where it is, and can connect at once."""
    command = [sys.executable, "-c", "from st_connectors.cli import main; main()", "serve", "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        line = process.stdout.readline()
        [port] = re.fullmatch(r"http://127\.0\.0\.1:(\d+)", json.loads(line)["address"]).groups()
        socket.create_connection(("127.0.0.1", int(port)), 60).close()
        process.kill()


def test_tls(tmp_path):
    """With a certificate, the server speaks HTTPS only."""
    trustme = pytest.importorskip("trustme", reason="makes certificates")
    import ssl

    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "chain.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    options = ("--tls-certificate", str(tmp_path / "chain.pem"), "--tls-key", str(tmp_path / "key.pem"))

    with Process(*options) as process:
        address = process.line(r"listening on (https://\S+);")[1]
        process.line(": ready$")
        assert len(embed(address, context)[0]) == 256
        process.stop()


@pytest.mark.long
def test_several_workers():
    """Each process has its models, and all answer at one address."""
    with Process("--workers", "2", "--model", "builtin:dense") as process:
        address = process.line(r"listening on (http://\S+);")[1]
        for _ in range(2):
            process.line(": ready$")
        assert all(len(embed(address)[0]) == 256 for _ in range(10))
        process.stop()


@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.long)])
def test_a_model_that_cannot_be_loaded_ends_the_process(workers):
    """With the reason, and the status of a failure."""
    with Process("--model", "./missing-folder", "--workers", workers) as process:
        process.line("missing-folder")
        assert process.process.wait(120) == 3


def test_mistakes_are_one_line(cli_line, tmp_path):
    """With what to do, and the status of a usage error or of a model that cannot be loaded."""
    occupied = socket.create_server(("127.0.0.1", 0))
    with occupied:
        port = str(occupied.getsockname()[1])
        assert cli_line(2, "serve", "--port", port).startswith(f"cannot listen on 127.0.0.1:{port}: ")
    assert cli_line(2, "serve", "--model", "a=").startswith("--model 'a=': expected NAME=MODEL or MODEL")
    assert "two models have the name 'a'" in cli_line(2, "serve", "--model", "a=x", "--model", "a=y")
    assert "no such file" in cli_line(2, "serve", "--tls-certificate", str(tmp_path / "missing.pem"))
    assert "no such file" in cli_line(2, "serve", "--key-file", str(tmp_path / "missing"))
    assert cli_line(2, "serve", "--tls-key", "k").startswith("--tls-key needs --tls-certificate")


@pytest.fixture
def cli_line(capsys):
    """Return a function that runs a command and returns its only line of error, after checking its status."""
    from st_connectors.cli import run

    def call(status, *arguments):
        capsys.readouterr()
        assert run(list(arguments)) == status
        [line] = capsys.readouterr().err.splitlines()
        return line.removeprefix("st-connectors: ")

    return call


SETTINGS = """
host = "0.0.0.0"
port = 9000
key_file = "/run/keys"

[[models]]
path = "builtin:sparse"

[[models]]
name = "small"
path = "./all-MiniLM-L6-v2"
kind = "dense"
backend = "openvino"
dtype = "int8"
devices = ["cpu"]
aliases = ["text-embedding-3-small"]
prompts = {query = "query: "}

[limits]
texts = 64
body_s = 5

[queue]
batch_tokens = 512

[tls]
certificate = "chain.pem"
"""


def test_a_file_of_settings(tmp_path):
    """Tables become values; what is not set has its default."""
    file = tmp_path / "serve.toml"
    file.write_text(SETTINGS)

    settings = read_settings(file)

    assert (settings.host, settings.port, settings.key_file) == ("0.0.0.0", 9000, "/run/keys")
    assert [(each.name, each.kind) for each in settings.models] == [
        ("sparse", ModelKind.SPARSE),
        ("small", ModelKind.DENSE),
    ]
    assert settings.models[1].prompts == {"query": "query: "}
    assert settings.models[1].devices == ("cpu",)
    assert (settings.limits.texts, settings.limits.body_s, settings.limits.connections) == (64, 5, 1000)
    assert (settings.queue.batch_tokens, settings.tls.certificate) == (512, "chain.pem")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("models = 5", "models: expected tables [[models]]"),
        ("[[models]]\nname = 'a'", "models[0]: expected a table with path"),
        ("[[models]]\npath = 'a'\nkind = 'large'", "models[0].kind: unknown kind 'large'; expected one of dense"),
        ("[[models]]\npath = 'a'\nspeed = 1", "unknown setting models[0].speed; expected one of name, path"),
        ("[limits]\ntexts = 'many'", "limits.texts: expected a whole number, got 'many'"),
        ("[limits]\ntexts = true", "limits.texts: expected a whole number, got True"),
        ("[queue]\nsize = 1", "unknown setting queue.size; expected one of jobs"),
        ("port = 99999", "port 99999: expected a number from 0 to 65535"),
        ("workers = 0", "workers must be a positive integer, got 0"),
        ("port = ", "not a TOML file"),
    ],
)
def test_mistakes_in_a_file_of_settings(tmp_path, text, message):
    """The file and the entry are named."""
    file = tmp_path / "serve.toml"
    file.write_text(text)

    with pytest.raises(ValueError, match=re.escape(message)) as raised:
        read_settings(file)
    assert str(raised.value).startswith(str(file))


def test_names_of_models():
    """The end of the path, unless one is chosen."""
    assert model_of_option("./models/all-MiniLM-L6-v2").name == "all-MiniLM-L6-v2"
    assert model_of_option("builtin:sparse") == Settings().models[1]
    assert model_of_option("a=./b", backend="onnx").backend == "onnx"
