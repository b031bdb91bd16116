"""Library messages are silenced while models load, without changing anybody else's settings."""

from __future__ import annotations

import logging
import threading
import warnings

import pytest

torch = pytest.importorskip("torch", reason="needs torch")
transformers = pytest.importorskip("transformers", reason="needs transformers")

import st_core  # noqa: E402 -- after the guards
from st_core.backends.torch.hush import hushed  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.long]


def bar():
    """Whether transformers would draw a bar in this thread."""
    from transformers.utils import logging as theirs

    return not isinstance(theirs.tqdm([], desc="Loading weights", disable=True), theirs.EmptyTqdm)


def test_loading_shows_nothing(checkpoints, capfd):
    """Neither a bar nor the report of tensors that are not used, which a plain checkpoint with a head has."""
    folder = checkpoints.folder("plain-bert-masked")
    capfd.readouterr()

    st_core.SentenceTransformer(folder, device="cpu")
    assert capfd.readouterr() == ("", "")

    transformers.AutoModel.from_pretrained(folder)  # as somebody else would: bars and report are as they were
    assert "Loading weights" in capfd.readouterr().err


def test_only_this_thread_is_hushed(monkeypatch):
    """Another thread sees its bars and its warnings meanwhile, and this one again afterwards."""
    logger = logging.getLogger("transformers.modeling_utils")
    seen, messages = {}, []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())

    def elsewhere():
        seen["bar"] = bar()
        logger.warning("elsewhere")

    monkeypatch.setattr(logger, "handlers", [handler])
    with hushed():
        assert not bar()
        logger.warning("here")
        logger.error("an error")
        other = threading.Thread(target=elsewhere)
        other.start()
        other.join()

    assert seen["bar"]
    assert bar()
    logger.warning("afterwards")
    assert messages == ["an error", "elsewhere", "afterwards"]


def test_an_export_changes_no_setting(exports, tmp_path, monkeypatch, capfd):
    """Warning filters, log levels and torch's settings are unchanged at every step, and nothing is written."""
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    monkeypatch.setenv("ST_CONNECTORS_CACHE", str(tmp_path / "cache"))
    folder = exports.checkpoints.folder("distilbert-cls")
    names = ("torch", "torch.onnx", "torch.export", "transformers", "onnxscript", "onnx_ir")

    def settings():
        levels = [logging.getLogger(name).level for name in names]
        return list(warnings.filters), levels, torch.get_num_threads(), torch.is_grad_enabled()

    exports.folder("distilbert-cls", "onnx")  # imports what sets itself up
    before, steps = settings(), []
    capfd.readouterr()

    def told(step):
        steps.append(step)
        assert settings() == before

    st_core.export_model(folder, tmp_path / "out", backend="onnx", told=told)

    assert capfd.readouterr() == ("", "")
    assert settings() == before
    assert steps == ["locating it", "tracing it", "writing its graph for onnx", "comparing it with torch"]
