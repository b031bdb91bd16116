"""Windows of long texts: nothing is lost, nothing is too long, and cuts lie where a reader would put them."""

from __future__ import annotations

import itertools
import re
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

from st_core.text.splitter import Window, offsets_of, split


def by_words(text):
    """A tokenizer for tests: pieces of words of up to four letters, and every other sign."""
    return [match.span() for match in re.finditer(r"\w{1,4}|[^\w\s]", text)]


def by_bytes(text):
    """A tokenizer with several tokens per non-ASCII character, all with its offsets."""
    return [(place, place + 1) for place, sign in enumerate(text) for _ in sign.encode()]


def with_a_mark(text):
    """A tokenizer with an empty token before every text: a piece alone has one token more."""
    return [(0, 0), *by_words(text)]


@pytest.fixture(scope="module")
def tokenizer():
    """A real byte-pair tokenizer that adds special tokens, cuts and pads."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        [shutil.__doc__ or "", shutil.copytree.__doc__ or ""],
        trainers.BpeTrainer(
            vocab_size=400, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
        ),
    )
    made.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)])
    made.enable_truncation(8)
    made.enable_padding(length=8)
    return made


TEXTS = st.text(st.sampled_from("ab é.!\n 。🙂中\t-") | st.characters(codec="utf-8"), max_size=200)


@given(TEXTS, st.integers(2, 20), st.data(), st.sampled_from([by_words, by_bytes, with_a_mark]))
@settings(deadline=None, max_examples=300)
def test_every_character_is_covered_and_no_window_is_too_long(text, size, data, offsets):
    """Windows are verbatim, in order and without gaps, and have at most ``size`` tokens."""
    overlap = data.draw(st.integers(0, size - 1))

    windows = split(text, offsets, size=size, overlap=overlap)

    assert [window.number for window in windows] == list(range(len(windows)))
    assert all(window.text == text[window.start : window.end] for window in windows)
    assert (windows[0].start, windows[-1].end) == (0, len(text))
    for earlier, later in itertools.pairwise(windows):
        assert earlier.start < later.start <= earlier.end < later.end
    for window in windows:
        assert len(offsets(window.text)) <= size or len(window.text) == 1


def test_a_short_text_is_one_window():
    """Also one without tokens."""
    for text in ("a few words", "", "  \n"):
        assert split(text, by_words, size=4) == [Window(text, 0, len(text), 0)]


def test_a_window_ends_with_a_paragraph_a_sentence_or_a_word():
    """The best end within reach: a paragraph in the second half, a sentence in the last third, else a word."""
    words = "one two six ten "

    paragraphs = split(words * 3 + "\n\n" + words * 4, by_words, size=20)
    sentences = split(words * 4 + "end. " + words * 4, by_words, size=20)
    plain = split("longest " * 20, by_words, size=7)

    assert paragraphs[0].text == words * 3 + "\n\n"
    assert sentences[0].text == words * 4 + "end. "
    assert [window.text for window in plain[:2]] == ["longest " * 3] * 2


def test_a_far_paragraph_does_not_shorten_a_window():
    """A paragraph's end in the first half is passed over for a word's end near the limit."""
    first = split("one two\n\n" + "six ten " * 30, by_words, size=20)[0]

    assert len(by_words(first.text)) == 20


def test_chinese_is_cut_after_its_full_stop():
    """A full-width stop ends a sentence without a space."""
    text = "这是第一句话。" * 6

    assert {window.text[-1] for window in split(text, by_bytes, size=3 * 7 * 2 + 5)} == {"。"}


def test_a_cut_never_lies_inside_a_token():
    """Where tokens lie over one another, only a place that all before it have reached will do."""

    def in_twos(text):
        return [place for start in range(0, len(text) - 1, 2) for place in ((start, start + 2), (start + 1, start + 2))]

    windows = split("abcdefghijkl", in_twos, size=5)

    assert [window.text for window in windows] == ["abcd", "efgh", "ijkl"]


def test_windows_overlap_by_about_what_is_asked():
    """Whole words, at most so many tokens."""
    windows = split("word " * 100, by_words, size=20, overlap=5)

    assert [earlier.end - later.start for earlier, later in itertools.pairwise(windows)] == [25] * 6
    assert windows[1].text.startswith("word ")


@pytest.mark.parametrize(("size", "overlap"), [(5, 5), (5, 7), (5, -1), (0, 0)])
def test_an_impossible_overlap_is_refused(size, overlap):
    """It lies between 0 and the size less one."""
    with pytest.raises(ValueError, match="overlap"):
        split("text", by_words, size=size, overlap=overlap)


def test_a_tokenizer_is_read_without_its_cuts_and_not_touched(tokenizer):
    """Truncation, padding and special tokens are left out; the tokenizer keeps them."""
    text = "copy a directory tree, " * 30 + "🙂 end"
    before = tokenizer.to_str()

    offsets = offsets_of(tokenizer)
    windows = split(text, offsets, size=40, overlap=8)

    assert len(offsets(text)) > 100
    assert tokenizer.to_str() == before
    assert windows[-1].end == len(text)
    assert all(len(offsets(window.text)) <= 40 for window in windows)
    assert len(windows) < 2 * len(offsets(text)) / 32


def test_real_documentation_is_split_at_its_paragraphs():
    """Most windows of prose end with a sentence or a paragraph."""
    text = "\n\n".join(function.__doc__ or "" for function in vars(shutil).values() if callable(function))

    windows = split(text, by_words, size=100, overlap=20)

    good = [window for window in windows if re.search(r"[.:!?)]\s*$|\n\s*$", window.text)]
    assert len(good) > 0.9 * len(windows)
