"""Shape: the store follows the protocol, declares its capabilities, and passes the unmodified suite."""

from __future__ import annotations

import inspect
import subprocess
import sys
from typing import ClassVar

import pytest

from st_connectors.plugin import CONTRACT
from st_connectors.schema import Metric
from st_connectors.store import Store
from st_connectors.testing.base import Group, Lab, Make, names_of_tests, plugin_of

__all__ = ["Shape"]

_METHODS = ["create", "drop", "upsert", "delete", "get", "search", "scan", "count", "refresh", "close"]
_FILTERS = frozenset({"eq", "in", "range", "exists", "and", "or", "not"})


class Shape(Group):
    """Signatures, capabilities, and the suite itself."""

    client_modules: ClassVar[tuple[str, ...]] = ()
    """Modules of the store's client that importing its plugin must not load."""
    promises: ClassVar[frozenset[str]] = frozenset()
    """Capabilities beyond the minimum that this store must keep declaring.

    Names of boolean fields of ``Capabilities``, such as "persistent" and "optional_vectors".
    """

    def test_every_test_is_the_suites_own(self) -> None:
        """No subclass overrides or removes a test; tests that a store cannot pass are listed in ``gaps``."""
        changed = [
            name
            for cls in type(self).__mro__
            if not cls.__module__.startswith("st_connectors.testing.")
            for name in vars(cls)
            if any(
                name in names_of_tests(base)
                for base in cls.__mro__[1:]
                if base.__module__.startswith("st_connectors.testing.")
            )
        ]
        assert changed == []

    @pytest.mark.parametrize("method", _METHODS)
    def test_signatures_equal_the_protocols(self, lab: Lab, method: str) -> None:
        """Every method has the parameters of the protocol, with the same names."""
        mine = inspect.signature(getattr(lab.library().store, method))
        theirs = inspect.signature(getattr(Store, method))
        wanted = [(each.name, each.kind, each.default) for each in list(theirs.parameters.values())[1:]]
        assert [(each.name, each.kind, each.default) for each in mine.parameters.values()] == wanted

    def test_the_minimum_is_declared(self, lab: Lab) -> None:
        """Every store has cosine, inner product and Euclidean distance, sparse vectors, text, and all filters."""
        declared = lab.capabilities
        assert declared.metrics == frozenset(Metric)
        assert declared.sparse
        assert declared.text
        assert declared.filters == _FILTERS

    def test_promises_are_kept(self, lab: Lab) -> None:
        """A store keeps declaring what it promises, so that declaring less does not skip tests."""
        declared = lab.capabilities
        assert {name for name in self.promises if not getattr(declared, name)} == set()

    def test_precision_is_declared_for_every_field(self, lab: Lab) -> None:
        """A store declares a precision for each field of its schema, and none is looser than a hundredth."""
        store = lab.library().store
        assert set(store.schema.fields) <= set(store.capabilities.fields)
        assert all(0 < precision.score_rtol <= 1e-2 for precision in store.capabilities.fields.values())

    def test_the_store_can_no_more_than_its_plugin(self, lab: Lab, make: Make) -> None:
        """A plugin's capabilities are the upper bound of those of its stores."""
        most, can = plugin_of(make).capabilities, lab.capabilities
        assert can.metrics <= most.metrics
        assert can.quantizations <= most.quantizations
        assert can.filters <= most.filters
        assert can.efforts <= most.efforts
        assert can.fusion <= most.fusion
        for name in ("sparse", "text", "optional_vectors", "persistent", "partial_failure"):
            assert getattr(most, name) or not getattr(can, name), name
        for name in ("max_batch", "max_bytes", "max_dimension", "max_limit", "max_fused_legs", "max_filter_values"):
            limit = getattr(most, name)
            assert limit is None or (getattr(can, name) is not None and getattr(can, name) <= limit), name

    def test_the_plugin_loads_without_its_client(self, make: Make) -> None:
        """Importing a plugin to read its capabilities imports no client, and its contract version is current."""
        code = (
            "import sys; from st_connectors.registry import plugins; "
            f"plugin = plugins()[{plugin_of(make).name!r}]; assert plugin.contract == {CONTRACT}; "
            f"print(*(set({self.client_modules!r}) & set(sys.modules)))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=600)  # noqa: S603  # our own code
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == []
