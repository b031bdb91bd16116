"""Address options that both engines have."""

from __future__ import annotations

import pytest

from st_connectors._lucene.options import (
    CollectionOptions,
    check_choice,
    check_names,
    read_authorities,
    read_collection_options,
    read_timeout,
)
from st_connectors.registry import parse_address


def test_options_are_read():
    """Each has its type, and absent ones have their default."""
    full = parse_address("opensearch://h?shards=3&replicas=0&timeout=2.5&sparse=x")
    options = read_collection_options(full, "sparse")
    assert options == CollectionOptions({"sparse": "x"}, {"number_of_shards": 3, "number_of_replicas": 0})
    assert read_timeout(full) == 2.5
    bare = parse_address("opensearch://h")
    assert read_collection_options(bare, "sparse") == CollectionOptions({}, {})
    assert read_timeout(bare) == 60.0
    assert read_authorities(bare) is None


def test_a_certificate_authority_is_a_file(tmp_path):
    """It must exist, and the address must use TLS."""
    path = tmp_path / "ca.pem"
    path.write_text("")
    assert read_authorities(parse_address(f"opensearch+https://h?ca={path}")) == str(path)
    with pytest.raises(ValueError, match=r"no file 'missing\.pem'"):
        read_authorities(parse_address("elasticsearch+https://h?ca=missing.pem"))
    with pytest.raises(ValueError, match=r"write elasticsearch\+https://"):
        read_authorities(parse_address(f"elasticsearch://h?ca={path}"))


@pytest.mark.parametrize("wrong", ["shards=0", "shards=two", "replicas=-1", "timeout=0", "timeout=soon", "timeout=inf"])
def test_invalid_values_are_refused(wrong):
    """The message has the option and the value."""
    address = parse_address(f"elasticsearch://h?{wrong}")
    name, _, value = wrong.partition("=")
    read = read_timeout if name == "timeout" else read_collection_options
    with pytest.raises(ValueError, match=rf"{name} must be a .*'{value}'"):
        read(address)


def test_unknown_options_are_refused():
    """The message has the known ones."""
    with pytest.raises(ValueError, match="unknown option 'shard' of elasticsearch; expected one of shards, timeout"):
        check_names(parse_address("elasticsearch://h?shard=1"), ("shards", "timeout"))


def test_a_value_that_is_no_choice_is_refused():
    """The message has the choices."""
    check_choice("sparse", "a", ("a", "b"))
    with pytest.raises(ValueError, match="unknown sparse 'c'; expected one of a, b"):
        check_choice("sparse", "c", ("a", "b"))
