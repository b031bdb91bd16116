"""Which models of an encoder server a store is to call."""

from __future__ import annotations

import pytest
from imitated import DENSE, RERANKER, SPARSE, Imitation

from st_connectors.setup.encoder import choose_models, read_encoder
from st_core.errors import ModelUnavailable
from st_core.protocols import ModelKind

OTHER = DENSE.__class__("other", ModelKind.DENSE, 8)
URL = "http://10.0.0.5:8080"


def test_the_only_model_of_a_kind_is_chosen():
    """No name is needed, and a kind that is not served has no model."""
    found = choose_models([DENSE, SPARSE], {}, URL)

    assert found == {ModelKind.DENSE: DENSE, ModelKind.SPARSE: SPARSE, ModelKind.RERANKER: None}


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({}, "serves several dense models: choose one with --dense: dense, other"),
        ({ModelKind.DENSE: "splade"}, "--dense 'splade': http://10.0.0.5:8080 serves dense, other of the kind dense"),
        ({ModelKind.DENSE: "none", ModelKind.SPARSE: "none"}, "expected a dense or a sparse model"),
    ],
)
def test_unclear_and_unknown_models(chosen, message):
    """The message lists what is served."""
    with pytest.raises(ValueError, match=message):
        choose_models([DENSE, OTHER, SPARSE, RERANKER], chosen, URL)


def test_a_real_server(encoder_server):
    """Dimensions and similarities are the server's; the store may reach it under another address."""
    found = read_encoder(encoder_server, None, {}, "http://encoder:8080/")

    assert found.address == "http://encoder:8080"
    assert (found.dense.name, found.dense.dimension, found.dense.origin) == ("dense", 256, "builtin:dense")
    assert (found.sparse.name, found.sparse.kind, found.reranker) == ("sparse", ModelKind.SPARSE, None)
    assert found.url("/opensearch/dense", found.dense, input_type="query") == (
        "http://encoder:8080/opensearch/dense?model=dense&input_type=query"
    )


def test_other_servers():
    """A page in HTML, a server of another kind, and no server at all."""
    with Imitation(lambda *_: (200, b"<html>")) as page, pytest.raises(ModelUnavailable, match="expected JSON"):
        read_encoder(f"http://{page.place}", None, {})
    with (
        Imitation(lambda *_: (200, {"model_id": "x"})) as other,
        pytest.raises(ValueError, match="st-connectors serve"),
    ):
        read_encoder(f"http://{other.place}", None, {})
    with Imitation(lambda *_: (200, {})) as gone:
        address = f"http://{gone.place}"
    with pytest.raises(ModelUnavailable, match="no answer"):
        read_encoder(address, None, {})
