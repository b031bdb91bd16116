"""Word pieces looked up in Python are those of the tokenizers library, for every text that is looked up at all."""

from __future__ import annotations

from importlib.resources import files

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

from st_core.text import tokens
from st_core.text.tokens import load_tokenizer
from st_core.text.word_pieces import read_word_pieces

SHIPPED = files("st_core") / "builtin" / "dense" / "0_StaticEmbedding" / "tokenizer.json"
MARKS = "\u2013\u2014\u2018\u2019\u201c\u201d\u2026\u2022"
PIECES = ["[UNK]", "[CLS]", "a", "b", "ab", "##a", "##b", "##ba", "##é", "é", "ß", "A", "1", "##1", "-", "“", "§", "½"]

LATIN = st.sampled_from([*map(chr, range(0x180)), *MARKS])
TEXT = st.lists(LATIN | st.sampled_from(["[CLS]", "[cls]", "the ", "ing", "unbeliev", "b" * 9, " "]), max_size=30).map(
    "".join
)
ANY = st.text(max_size=20)


def small(**options):
    """A tokenizer of BERT's form over a few pieces, in which words of more than eight characters are unknown."""
    vocabulary = {piece: index for index, piece in enumerate(PIECES)}
    made = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=8))
    made.normalizer = normalizers.BertNormalizer(**options)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.add_special_tokens(["[CLS]"])
    return made


def with_token(content, **options):
    """The same with a token that is found before words are."""
    made = small()
    made.add_tokens([AddedToken(content, **options)])
    return made


FORMS = {
    "shipped": Tokenizer.from_file(str(SHIPPED)),
    "small": small(),
    "cased": small(lowercase=False),
    "cased, without accents": small(lowercase=False, strip_accents=True),
    "with accents": small(strip_accents=False),
    "added, normalized": with_token("<AB>", normalized=True),
    "added, single word": with_token("#a", single_word=True, normalized=False),
}
BOTH = [(backend, read_word_pieces(backend)) for backend in FORMS.values()]


def plain(backend, text):
    """The library's ids."""
    return backend.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("form", range(len(BOTH)), ids=list(FORMS))
@given(text=TEXT | ANY)
@example(text="AB <AB> <ab> <a\x00b> <áb> #a a#a #ab")
@example(text="a\x00b\x1cb\x7fa\x85b\xada\xa0b\tb\x0bb")
@example(text="[CLS] [C\x00LS] [cls] CLS")
@example(text="ababababab abababab ½5° §1")
def test_ids_are_the_librarys(form, text):
    """Whatever is looked up is right: accents, controls, capitals, marks, long and unknown words, added tokens."""
    backend, ours = BOTH[form]
    found = ours.ids(text)

    assert found is None or found == plain(backend, text)


@pytest.mark.parametrize("form", range(len(BOTH)), ids=list(FORMS))
def test_every_known_character_is_as_the_library_has_it(form):
    """Each of them alone, inside a word and beside a mark, where accents go also outside ASCII.

    And nothing of it is left to the library.
    """
    backend, ours = BOTH[form]
    for character in [*map(chr, range(0x180 if ours.strips else 0x80)), *(MARKS if ours.strips else "")]:
        for text in (character, f"a{character}b", f"A {character}-{character}1"):
            assert ours.ids(text) == plain(backend, text), repr(text)


def test_words_cut_once_in_a_call_are_cut_the_same():
    """The pieces that are kept for the other texts of a call are those of the word."""
    backend, ours = BOTH[0]
    known = {}
    texts = ["unbelievableness of tokenizings", "tokenizings, unbelievableness"] * 2

    assert [ours.ids(text, known) for text in texts] == [plain(backend, text) for text in texts]
    assert known["tokenizings"] == plain(backend, "tokenizings")


@pytest.mark.parametrize("text", ["日本語", "Ελλάδα", "a [CLS] b", "naïve 🙂", "x\ud800y"])
def test_other_texts_are_left_to_the_library(text):
    """Other scripts, and what an added token stands in."""
    assert BOTH[0][1].ids(text) is None


def test_other_tokenizers_are_left_to_the_library():
    """Other tokenizer forms, control characters that stay, and added words that occur in any text are not read."""
    unlike, untidy, worded = small(), small(clean_text=False), with_token("ab")
    unlike.pre_tokenizer = pre_tokenizers.Whitespace()

    assert [read_word_pieces(each) for each in (unlike, untidy, worded)] == [None, None, None]


def test_a_tokenizer_gives_one_result_by_both_ways(monkeypatch):
    """Many texts on many cores go through the library, a few through the dictionary, with lone surrogates."""
    tokenizer = load_tokenizer(SHIPPED)
    texts = ["copy a tree", "Café “déjà vu”", "日本語 text", "x\ud800y", "[CLS] tokenizings", ""] * 50
    few = [tokenizer.plain([text])[0] for text in texts]

    monkeypatch.setattr(tokens, "CORES", 64)

    for one, other, text in zip(few, tokenizer.plain(texts), texts, strict=True):
        assert np.array_equal(one, other)
        assert tokenizer.bare(text) == one.tolist()
        assert one.dtype == other.dtype == np.int32
