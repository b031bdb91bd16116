"""Vocabularies: files of a model, one token for each index, and a digest."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from st_connectors._lucene.vocabulary import build_vocabulary, read_vocabulary
from st_core.vectors import MAX_INDEX


def written(folder, vocab, added=(), name="tokenizer.json"):
    path = folder / name
    tokens = [{"id": index, "content": token} for token, index in added]
    path.write_text(json.dumps({"model": {"vocab": vocab}, "added_tokens": tokens}))
    return path


def test_tokens_of_a_tokenizer_are_read(tmp_path):
    """Those of the model and the added ones; the folder is equivalent to its file."""
    path = written(tmp_path, {"tea": 3, "##pot": 7}, [("[MASK]", 9), ("tea", 3)])
    vocabulary = read_vocabulary(str(path))
    assert vocabulary.tokens == {3: "tea", 7: "##pot", 9: "[MASK]"}
    assert vocabulary.indices == {"tea": 3, "##pot": 7, "[MASK]": 9}
    assert read_vocabulary(str(tmp_path)) == vocabulary


def test_unigrams_are_numbered_in_their_order(tmp_path):
    """Their vocabulary is a list of tokens with scores."""
    path = written(tmp_path, [["<s>", 0.0], ["▁tea", -3.5]])
    assert read_vocabulary(str(path)).tokens == {0: "<s>", 1: "▁tea"}


@pytest.mark.parametrize("end", ["", "\n"])
def test_a_list_of_words_is_numbered_by_lines(tmp_path, end):
    """Lines end at newlines only: a token may contain other line separators of Python."""
    (tmp_path / "vocab.txt").write_bytes(f"[PAD]\na\u2028b\n\x0b{end}".encode())
    assert read_vocabulary(str(tmp_path)).tokens == {0: "[PAD]", 1: "a\u2028b", 2: "\x0b"}


def test_a_built_in_model_is_read_as_its_tokenizer_numbers_it():
    """The tokenizers library has the same index for every token."""
    from tokenizers import Tokenizer

    from st_core import builtin

    vocabulary = read_vocabulary("builtin:sparse")
    library = Tokenizer.from_file(str(builtin.path("sparse") / "tokenizer.json"))
    assert vocabulary.indices == library.get_vocab(with_added_tokens=True)


def test_reading_loads_neither_tokenizers_nor_torch():
    """The files are plain JSON and text."""
    code = (
        "import sys; from st_connectors._lucene.vocabulary import read_vocabulary; read_vocabulary('builtin:sparse');"
        "print({'torch', 'tokenizers', 'transformers'} & set(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([("a", 1), ("a", 2)], "the token 'a' stands for 1 and for 2"),
        ([("a", 1), ("b", 1)], "the index 1 stands for 'a' and for 'b'"),
        ([("", 1)], "token of index 1 must be a string that is not empty, not ''"),
        ([(None, 1)], "not None"),
        ([("a", -1)], "not -1"),
        ([("a", MAX_INDEX + 1)], f"not {MAX_INDEX + 1}"),
        ([("a", True)], "not True"),
        ([("a", "1")], "not '1'"),
        ([("\ud800", 1)], "half a surrogate pair"),
        ([("é" * 4_001, 1)], "has 8002 bytes"),
        ([], "no tokens"),
    ],
)
def test_invalid_vocabularies_are_refused(pairs, message):
    """Tokens and indices are one to one, and tokens can be keys."""
    with pytest.raises(ValueError, match=message):
        build_vocabulary(pairs)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("tokenizer.json", '{"model": {"vocab": {"a": 1, "a": 2}}}', "'a' occurs twice"),
        ("tokenizer.json", '{"model": {"vocab": {"a": 1, "b": 1}}}', "stands for 'a' and for 'b'"),
        ("tokenizer.json", '{"model": {}}', "not the tokenizer.json of a model"),
        ("tokenizer.json", "[]", "not the tokenizer.json of a model"),
        ("tokenizer.json", '{"model": {"vocab": [1]}}', "not the tokenizer.json of a model"),
        ("tokenizer.json", '{"model": {"vocab": {"a": 1}}, "added_tokens": [3]}', "not the tokenizer.json of a model"),
        ("tokenizer.json", '{"model": {"vocab": {"a": 1}}, "added_tokens": 3}', "not the tokenizer.json of a model"),
        ("tokenizer.json", "{", "cannot be read: Expecting"),
        ("vocab.txt", "a\n\nb\n", "token of index 1 must be a string that is not empty, not ''"),
        ("vocab.txt", "a\nb\na\n", "the token 'a' stands for 0 and for 2"),
        ("vocab.txt", "", "no tokens"),
        ("vocab.bin", "a", "vocab.bin'; expected"),
    ],
)
def test_files_without_a_vocabulary_are_refused(tmp_path, name, text, message):
    """The message has the file and the problem."""
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message) as raised:
        read_vocabulary(str(tmp_path / name))
    assert "vocabulary" in str(raised.value)
    assert name in str(raised.value)


@pytest.mark.parametrize(
    "place", ["", "nowhere/tokenizer.json", "builtin:none", "\0", "~nobody-of-this-name/vocab.txt"]
)
def test_places_without_a_file_are_refused(tmp_path, monkeypatch, place):
    """Whatever is wrong with the place, the message has it."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"^there is no vocabulary"):
        read_vocabulary(place)


@given(st.dictionaries(st.text(st.characters(codec="utf-8"), min_size=1, max_size=4), st.integers(0, 99), min_size=1))
def test_the_digest_depends_on_tokens_and_indices_only(pairs):
    """The order does not change it; any other pair does."""
    apart = {index: token for token, index in pairs.items()}
    tokens = [(token, index) for index, token in apart.items()]
    vocabulary = build_vocabulary(tokens)

    assert vocabulary.digest == build_vocabulary(sorted(tokens)).digest
    for token, index in tokens:
        others = [pair for pair in tokens if pair[1] != index]
        assert build_vocabulary([*others, (token, 100)]).digest != vocabulary.digest
        assert build_vocabulary([*others, (token + "x" * 5, index)]).digest != vocabulary.digest
