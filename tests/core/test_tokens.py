"""Tokens, cut and laid out here, are those of the tokenizers library and of transformers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from st_core.text.tokens import TextTokenizer, cut_pair, pad, read_layout

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefgh"]
TEXT = st.lists(st.sampled_from("abcdefgh?"), max_size=12).map(" ".join)

PROCESSORS = {
    "none": None,
    "bert": processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    ),
    "roberta": processors.RobertaProcessing(("[SEP]", 3), ("[CLS]", 2)),
    "end only": processors.TemplateProcessing(
        single="$A [SEP]", pair="$A [SEP] $B [SEP]", special_tokens=[("[SEP]", 3)]
    ),
    "xlnet": processors.TemplateProcessing(
        single="$A:0 [SEP]:0 [CLS]:2",
        pair="$A:0 [SEP]:0 $B:1 [SEP]:1 [CLS]:2",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    ),
}


def make(name, direction="right"):
    """A tokenizer of the library, and ours around a copy of it."""
    backend = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    if PROCESSORS[name] is not None:
        backend.post_processor = PROCESSORS[name]
    copy = Tokenizer.from_str(backend.to_str())
    layouts = read_layout(copy, pair=False), read_layout(copy, pair=True)
    return backend, TextTokenizer(copy, *layouts, keep_left=direction == "right", wants_types=True)


MADE = {(name, direction): make(name, direction) for name in PROCESSORS for direction in ("right", "left")}
KINDS = pytest.mark.parametrize(
    "kind", [kind if "right" in kind else pytest.param(kind, marks=pytest.mark.long) for kind in MADE], ids=" ".join
)


def types_of(tokens, row):
    return [0] * tokens.ids[row].size if tokens.types is None else tokens.types[row].tolist()


@KINDS
@given(texts=st.lists(TEXT, min_size=1, max_size=4), limit=st.none() | st.integers(4, 14))
def test_texts_are_cut_as_the_library_cuts_them(kind, texts, limit):
    """Ids and segment numbers are equal for any text, any limit and either end."""
    backend, ours = MADE[kind]
    backend.no_truncation() if limit is None else backend.enable_truncation(limit, direction=kind[1])

    tokens = ours.tokenize(texts, limit)

    for row, text in enumerate(texts):
        theirs = backend.encode(text)
        assert tokens.ids[row].tolist() == theirs.ids
        assert types_of(tokens, row) == theirs.type_ids


@KINDS
@given(pairs=st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=4), limit=st.none() | st.integers(5, 20))
def test_pairs_are_cut_as_the_library_cuts_them(kind, pairs, limit):
    """The longer text of a pair loses first, then both, with the odd token where the library leaves it."""
    backend, ours = MADE[kind]
    backend.no_truncation() if limit is None else backend.enable_truncation(limit, direction=kind[1])

    tokens = ours.tokenize(pairs, limit)

    for row, pair in enumerate(pairs):
        theirs = backend.encode(*pair)
        assert tokens.ids[row].tolist() == theirs.ids
        assert types_of(tokens, row) == theirs.type_ids


@given(st.integers(0, 40), st.integers(0, 40), st.integers(1, 50))
def test_a_cut_pair_fills_the_limit(first, second, limit):
    """Nothing is cut in vain: the pair stays whole or fills the limit exactly."""
    kept = cut_pair(first, second, limit)

    assert sum(kept) == min(first + second, limit)
    assert kept[0] <= first
    assert kept[1] <= second


def test_a_limit_below_the_special_tokens_is_refused():
    """A length that leaves no room for text is a mistake."""
    with pytest.raises(ValueError, match="above the 2 special tokens"):
        MADE["bert", "right"][1].tokenize(["a"], 2)


def test_texts_and_pairs_do_not_mix():
    """A batch is of one form."""
    with pytest.raises(ValueError, match="got both in one call"):
        MADE["bert", "right"][1].tokenize(["a", ("a", "b")], None)


def test_lengths_of_other_threads_do_not_matter():
    """Eight threads with eight lengths give what each gives alone; one shared tokenizer state would not."""
    ours = MADE["bert", "right"][1]
    texts = [" ".join("abcdefgh"[: 1 + n % 8] * (1 + n % 5)) for n in range(200)]
    alone = {limit: [row.tolist() for row in ours.tokenize(texts, limit).ids] for limit in range(4, 12)}

    def many(limit):
        return [[row.tolist() for row in ours.tokenize(texts, limit).ids] for _ in range(10)]

    with ThreadPoolExecutor(8) as pool:
        found = dict(zip(alone, pool.map(many, alone), strict=True))

    assert all(each == alone[limit] for limit, runs in found.items() for each in runs)


@given(st.lists(st.lists(st.integers(1, 9), max_size=6), max_size=5), st.booleans())
def test_padding_keeps_rows_and_marks_them(rows, left):
    """The mask picks out exactly the rows."""
    ids, mask = pad([np.array(row, np.int32) for row in rows], 0, left=left)

    assert [ids[index][mask[index] == 1].tolist() for index in range(len(rows))] == rows
    assert int(mask.sum()) == sum(map(len, rows))
    if left and ids.size:
        assert (np.diff(mask, axis=1) >= 0).all()
