"""A model that was loaded before a fork answers in each child, on every backend, and loading leaves no threads."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("sentence_transformers", reason="the checkpoints are made with it")

pytestmark = [
    pytest.mark.long,
    pytest.mark.torch,
    pytest.mark.skipif(sys.platform != "linux", reason="forks, and counts threads in /proc"),
]

DENSE, SPARSE, CROSS = "SentenceTransformer", "SparseEncoder", "CrossEncoder"
LARGE = {"hidden_size": 256, "intermediate_size": 1024}
"""Tensors large enough for torch to compute with them in threads."""

TEXTS = [f"heat moves fast over a flat plate, and more of it where the air is thin {number}" for number in range(24)]

HOST = """
import importlib, json, os, select, signal, sys, time
import numpy as np
import st_core

for package in json.loads(sys.argv[1]):
    importlib.import_module(package)

def answer(model, method, inputs):
    value = getattr(model, method)(inputs)
    return np.asarray(value.to_dense() if hasattr(value, "to_dense") else value).tolist()

def in_a_child(function):
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        with os.fdopen(writing, "w") as file:
            try:
                json.dump(function(), file)
            except BaseException as error:
                json.dump(repr(error), file)
        os._exit(0)
    os.close(writing)
    return child, reading

def result(child, reading, seconds):
    with os.fdopen(reading) as file:
        if select.select([reading], [], [], seconds)[0]:
            return json.load(file)
    os.kill(child, signal.SIGKILL)
    return "no answer"

def serve(kind, folder, options, method, inputs, first):
    count = lambda: len(os.listdir("/proc/self/task"))
    before = count()
    model = getattr(st_core, kind)(folder, **options)
    latest = time.monotonic() + 20  # the system may take a while to end a thread that Python has joined
    while count() > before and time.monotonic() < latest:
        os.sched_yield()
    threads = [before, count()]
    if first:
        answer(model, method, inputs)
    children = [in_a_child(lambda: answer(model, method, inputs)) for _ in range(2)]
    return {"threads": threads, "children": [result(*child, 60) for child in children]}

for line in sys.stdin:
    print(json.dumps(result(*in_a_child(lambda: serve(*json.loads(line))), 200)), flush=True)
"""
"""Imports packages, whose own threads do not count; each line makes a server that loads a model and forks two workers.

The server itself is a child, so that no model is loaded in a process that has computed. With ``first`` the server
encodes before it forks.
"""


@pytest.fixture(scope="module")
def serve():
    """Return what a server says of its threads and its workers' answers."""
    packages = [*("transformers.modeling_utils", "torch", "tokenizers"), *installed("peft", "onnxruntime", "openvino")]
    quiet = os.environ | {"CI": "true"}  # OpenVINO sends telemetry in a thread, which may hold locks at the fork
    command, pipe = [sys.executable, "-c", HOST, json.dumps(packages)], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=quiet) as host:

        def ask(kind, folder, options, *, first=False):
            method, inputs = ("predict", [["heat", text] for text in TEXTS]) if kind == CROSS else ("encode", TEXTS)
            print(json.dumps([kind, str(folder), options, method, inputs, first]), file=host.stdin, flush=True)
            return json.loads(host.stdout.readline())

        try:
            yield ask
        finally:
            host.kill()


def installed(*names):
    """Return the packages that can be imported."""
    from importlib.util import find_spec

    return [name for name in names if find_spec(name)]


def alone(kind, folder, options):
    """Return the answer of this process."""
    import st_core

    model = getattr(st_core, kind)(str(folder), **options)
    value = model.predict([["heat", text] for text in TEXTS]) if kind == CROSS else model.encode(TEXTS)
    return value.to_dense() if hasattr(value, "to_dense") else value


CPU = {"device": "cpu"}


@pytest.mark.parametrize(
    ("kind", "source", "options"),
    [
        (DENSE, ("bert", "Model"), CPU),
        (DENSE, ("modernbert", "Model"), CPU),
        (DENSE, ("qwen3", "Model"), CPU),
        (DENSE, ("bert", "Model"), CPU | {"dtype": "float16"}),
        (SPARSE, ("bert", "ForMaskedLM"), CPU),
        (SPARSE, ("modernbert", "ForMaskedLM"), CPU),
        (CROSS, ("bert", "ForSequenceClassification"), CPU),
        (CROSS, ("qwen2", "ForCausalLM"), CPU),
        (DENSE, "t5-mean", CPU),
        (DENSE, "words-lstm", CPU),
        (DENSE, "bow-once", CPU),
        (DENSE, "static", CPU),
        (SPARSE, "sparse-router", CPU),
        (SPARSE, "csr", CPU),
        (DENSE, "builtin:dense", {}),
        (SPARSE, "builtin:sparse", {}),
    ],
    ids=str,
)
def test_a_model_loaded_before_a_fork_answers_in_the_children(checkpoints, serve, agree, kind, source, options):
    """The threads of loading have ended, and no child waits for one."""
    if isinstance(source, tuple):
        folder = checkpoints.transformer(*source, **LARGE)
    else:
        folder = source if source.startswith("builtin:") else checkpoints.folder(source)
    told = serve(kind, folder, options)

    assert told["threads"][0] == told["threads"][1]
    for numbers in told["children"]:
        agree(numbers, alone(kind, folder, options), 1e-5 if "dtype" not in options else 2e-2)


def test_an_adapter_merged_before_a_fork_answers_in_the_children(checkpoints, serve, agree):
    """Merging multiplies matrices while the model is loaded."""
    pytest.importorskip("peft", reason="needs peft")
    folder = checkpoints.folder("lora")

    for numbers in serve(DENSE, folder, CPU)["children"]:
        agree(numbers, alone(DENSE, folder, CPU))


@pytest.mark.parametrize("first", [False, True], ids=["loaded", "used"])
@pytest.mark.parametrize("dtype", ["float32", "int8"])
@pytest.mark.parametrize(("backend", "runtime"), [("onnx", "onnxruntime"), ("openvino", "openvino")])
def test_a_graph_opened_before_a_fork_is_opened_again_in_the_children(
    exports, serve, agree, backend, runtime, dtype, first
):
    """The threads of a session do not survive a fork, so that each process opens its own."""
    pytest.importorskip(runtime, reason=f"needs {runtime}")
    folder, options = exports.folder("bert-mean", backend, dtype), {"backend": backend, "dtype": dtype}
    told = serve(DENSE, folder, options, first=first)

    assert told["threads"][0] == told["threads"][1]
    for numbers in told["children"]:
        agree(numbers, alone(DENSE, folder, options))


@pytest.mark.parametrize(("backend", "runtime"), [("onnx", "onnxruntime"), ("openvino", "openvino")])
def test_a_graph_of_a_repository_is_opened_again_in_the_children(exports, serve, agree, backend, runtime):
    """Its session is opened on loading, which reads its inputs and outputs."""
    pytest.importorskip(runtime, reason=f"needs {runtime}")
    folder, options = exports.given("bert-mean", backend), {"backend": backend}

    for numbers in serve(DENSE, folder, options)["children"]:
        agree(numbers, alone(DENSE, folder, options))


def test_a_static_model_that_was_used_answers_in_the_children(checkpoints, serve, agree):
    """OpenBLAS prepares its threads for a fork."""
    folder = checkpoints.folder("static")

    for numbers in serve(DENSE, folder, CPU, first=True)["children"]:
        agree(numbers, alone(DENSE, folder, CPU))
