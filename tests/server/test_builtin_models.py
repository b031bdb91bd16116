"""The models of the package are served by their names alone, as what they are."""

from __future__ import annotations

import pytest

from st_connectors.server.loading import load
from st_connectors.server.settings import ModelSettings
from st_core import builtin
from st_core.protocols import ModelKind

KINDS = {"dense": ModelKind.DENSE, "sparse": ModelKind.SPARSE, "rerank": ModelKind.RERANKER}


@pytest.mark.parametrize("name", builtin.NAMES)
def test_each_is_loaded_as_its_kind(name):
    """Without a kind in the settings."""
    kind, [model] = load(ModelSettings(name=name, path=f"{builtin.PREFIX}{name}"))

    assert kind is KINDS[name]
    assert model.checkpoint.folder == builtin.path(name)
