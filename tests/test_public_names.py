"""Public names and signatures: what users import, as recorded in ``public_names.json``.

After an intended change, write the record again: ``python tests/test_public_names.py``.
"""

from __future__ import annotations

import inspect
import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

RECORD = Path(__file__).with_name("public_names.json")
MODULES = (
    *("st_core", "st_core.errors", "st_core.protocols", "st_core.quantize", "st_core.rescore", "st_core.retrieval"),
    *("st_core.models", "st_core.remote", "st_core.similarity", "st_core.util", "st_core.vectors"),
    *(
        "st_connectors",
        "st_connectors.altering",
        "st_connectors.bm25",
        "st_connectors.copying",
        "st_connectors.errors",
        "st_connectors.filters",
    ),
    *("st_connectors.comparing", "st_connectors.migrating"),
    *("st_connectors.fusion", "st_connectors.index", "st_connectors.ingest", "st_connectors.memory"),
    *("st_connectors.encoder", "st_connectors.ingest.arrow", "st_connectors.ingest.arrow_task"),
    "st_connectors.ingest.ray",
    *("st_connectors.registry", "st_connectors.search", "st_connectors.store", "st_connectors.where"),
    *("st_connectors.elasticsearch", "st_connectors.milvus", "st_connectors.opensearch", "st_connectors.qdrant"),
    "st_connectors.server",
    "st_connectors.gateway",
    "st_connectors.testing",
    "st_core.util.quantization",
)


def signature(value: Any) -> list[str]:
    """Parameters by kind, name and default, without annotations."""
    parameters = inspect.signature(value).parameters.values()
    texts = [f"{each.kind.name}: {without_annotation(each)}" for each in parameters]
    return [text for text in texts if "0x" not in text]


def without_annotation(parameter: inspect.Parameter) -> str:
    """Name and default; sets are sorted, since their order changes from process to process."""
    if isinstance(parameter.default, frozenset):
        return f"{parameter.name}={sorted(parameter.default)}"
    return str(parameter.replace(annotation=inspect.Parameter.empty))


def described_class(value: type) -> Any:
    """The constructor and the public members of a class, one level deep."""
    members: dict[str, Any] = {}
    for name, member in inspect.getmembers(value):
        if name.startswith("_"):
            continue
        callable_member = inspect.isfunction(member) or inspect.ismethod(member)
        members[name] = signature(member) if callable_member else "attribute"
    try:
        made = signature(value)
    except (TypeError, ValueError):
        made = []
    return {"call": made, "members": members}


def recorded(module: str, names: list[str]) -> dict[str, Any]:
    """What a module offers under some names."""
    values = {name: getattr(import_module(module), name) for name in names}
    return {
        name: described_class(value)
        if inspect.isclass(value)
        else (signature(value) if inspect.isfunction(value) else "value")
        for name, value in values.items()
    }


EXPECTED: dict[str, dict[str, Any]] = json.loads(RECORD.read_text("utf-8")) if RECORD.exists() else {}


@pytest.mark.parametrize("module", EXPECTED)
def test_every_public_name_keeps_its_signature(module: str) -> None:
    """Names that users import stay where they are, with the same parameters and defaults."""
    found = recorded(module, list(EXPECTED[module]))

    assert found == EXPECTED[module]


if __name__ == "__main__":
    # Names that moved to other modules are recorded too: they still import from where they were.
    names = {each: sorted({*import_module(each).__all__, *EXPECTED.get(each, ())}) for each in MODULES}
    everything = {each: recorded(each, names[each]) for each in MODULES}
    RECORD.write_text(json.dumps(everything, indent=1, sort_keys=True) + "\n", "utf-8")
