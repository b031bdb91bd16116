"""Vectors as short JSON that reads back to the same bits."""

from __future__ import annotations

import json

import numpy as np
import pytest

from st_connectors._lucene.encoding import decode_json, encode_json


def test_float32_is_written_short_and_read_back_to_the_bit():
    """For every exponent, subnormal numbers, minus zero and the largest number."""
    random = np.random.default_rng(7)
    bits = random.integers(0, 2**32, 200_000, dtype=np.uint32).view(np.float32)
    values = np.concatenate([bits[np.isfinite(bits)], np.array([-0.0, 1e-45, 3.4028235e38], np.float32)])

    text = encode_json({"v": values})

    back = np.asarray(json.loads(text)["v"], np.float32)
    np.testing.assert_array_equal(back.view(np.uint32), values.view(np.uint32))
    assert encode_json(np.array([0.1, 0.30000001], np.float32)) == b"[0.1,0.3]"


def test_a_number_whose_short_text_would_be_rounded_twice_is_written_long(monkeypatch):
    """Its text is that of the double."""
    value = np.array([0.1], np.float32)
    real = decode_json
    monkeypatch.setattr("orjson.loads", lambda text: real(text) if len(text) > 9 else [0.5])

    assert json.loads(encode_json(value)) == [float(value[0])]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused(value):
    """They are not written as null."""
    with pytest.raises(ValueError, match="neither NaN nor infinity"):
        encode_json({"v": np.array([1.0, value], np.float32)})


def test_payloads_keep_their_types_and_order():
    """1 differs from 1.0, integers have 64 bits, and letters are not escaped."""
    payload = {"z": 1, "a": 1.0, "big": [2**63 - 1, -(2**63)], "ü": "👩\n", "none": [None, True, {}]}

    assert encode_json(payload).decode() == json.dumps(payload, ensure_ascii=False, separators=(",", ":"))
    assert repr(decode_json(encode_json(payload))) == repr(payload)
