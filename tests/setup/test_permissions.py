"""Settings of OpenSearch that forbid calls: which must change, and how a change is taken back."""

from __future__ import annotations

import pytest

from st_connectors.setup.opensearch.permissions import (
    PRIVATE,
    TRUSTED,
    TRUSTED_PRIVATE,
    Change,
    is_private,
    needed_settings,
    pattern_of,
    record_name,
    restoring,
)

ADDRESS = "http://10.0.0.5:8080"
PATTERN = "^http://10\\.0\\.0\\.5:8080/.*$"
VENDOR = "^https://api\\.openai\\.com/.*$"


def test_a_default_cluster_forbids_private_addresses_and_other_endpoints():
    """The list keeps its entries, because the new one replaces it."""
    current = {PRIVATE: "false", TRUSTED: [VENDOR]}

    needed = needed_settings(ADDRESS, current, (2, 19), is_private=True)

    assert needed == {PRIVATE: True, TRUSTED: [VENDOR, PATTERN]}


def test_nothing_changes_if_the_cluster_permits_the_call():
    """Any pattern that matches is enough; one that Python cannot read does not count."""
    current = {PRIVATE: "true", TRUSTED: ["(?<a", "^http://10\\..*$"]}

    assert needed_settings(ADDRESS, current, (2, 19), is_private=True) == {}


def test_public_addresses_need_no_private_ones():
    """Only the list of endpoints matters."""
    assert needed_settings("https://enc.example.org", {}, (3, 8), is_private=False) == {
        TRUSTED: ["^https://enc\\.example\\.org/.*$"]
    }


def test_since_3_7_private_endpoints_have_a_list_of_their_own():
    """Both lists must match."""
    current = {PRIVATE: "true", TRUSTED: [PATTERN]}

    assert needed_settings(ADDRESS, current, (3, 7), is_private=True) == {TRUSTED_PRIVATE: [PATTERN]}


@pytest.mark.parametrize(
    ("address", "expected"),
    [("http://127.0.0.1:8080", True), ("http://10.1.2.3", True), ("http://[::1]:80", True), ("http://8.8.8.8", False)],
)
def test_private_addresses(address, expected):
    """Loopback counts as private."""
    assert is_private(address) is expected


def test_patterns_match_only_the_server():
    """Signs of the address have no meaning in the pattern."""
    assert pattern_of("http://[::1]:80") == "^http://\\[::1\\]:80/.*$"


RECORD = {
    record_name("books"): Change({PRIVATE: None, TRUSTED: None}, {PRIVATE: True, TRUSTED: [VENDOR, PATTERN]}).to_text()
}


def test_a_change_is_taken_back_as_a_whole():
    """Settings that were not set before become the default again."""
    persistent = {**RECORD, PRIVATE: "true", TRUSTED: [VENDOR, PATTERN]}

    assert restoring("books", persistent) == {record_name("books"): None, PRIVATE: None, TRUSTED: None}


def test_changes_of_others_stay():
    """A list loses only the entry of the set-up, and a value that was changed since stays."""
    persistent = {**RECORD, PRIVATE: "false", TRUSTED: [VENDOR, PATTERN, "^http://other/.*$"]}

    assert restoring("books", persistent) == {record_name("books"): None, TRUSTED: [VENDOR, "^http://other/.*$"]}


def test_what_another_set_up_needs_stays():
    """Two set-ups with one encoder server share the settings; the last one to go restores them."""
    both = {**RECORD, record_name("films"): RECORD[record_name("books")], PRIVATE: "true", TRUSTED: [VENDOR, PATTERN]}

    assert restoring("books", both) == {record_name("books"): None}


def test_a_set_up_that_changed_nothing_restores_nothing():
    """Without a record there is no request."""
    assert restoring("books", {PRIVATE: "true"}) == {}
