"""The order of the queue: fair between clients, short before long, everything once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from st_connectors.server.waiting import Piece, Waiting


def waiting_with(*pieces):
    waiting = Waiting()
    for client, tokens, due, content in pieces:
        waiting.add(Piece(client, tokens, due, content))
    return waiting


def contents(pieces):
    return [piece.content for piece in pieces]


def test_clients_are_served_in_turn():
    """A client with one piece does not wait behind the many pieces of another."""
    waiting = waiting_with(*[("busy", 10, at, f"busy {at}") for at in range(5)], ("quiet", 10, 9, "quiet"))

    assert contents(waiting.take(20)) == ["busy 0", "quiet"]


def test_turns_are_counted_in_tokens():
    """A client with long pieces gets as many tokens as one with short pieces, not as many pieces."""
    waiting = waiting_with(
        *[("long", 100, at, "long") for at in range(10)], *[("short", 10, at, "short") for at in range(100)]
    )

    taken = contents(waiting.take(400))

    assert 15 <= taken.count("short") <= 25
    assert taken.count("long") in (2, 3)


def test_a_client_that_comes_late_is_not_owed_the_past():
    """Its first turn comes at once, and then it takes turns with the others."""
    waiting = waiting_with(*[("first", 10, at, "first") for at in range(20)])
    waiting.take(100)
    for at in range(20):
        waiting.add(Piece("late", 10, at, "late"))

    taken = contents(waiting.take(100))

    assert 4 <= taken.count("late") <= 6


def test_within_a_client_the_first_due_comes_first():
    """Pieces may be added in any order."""
    waiting = waiting_with(("a", 10, 3, "third"), ("a", 10, 1, "first"), ("a", 10, 2, "second"))

    assert contents(waiting.take(30)) == ["first", "second", "third"]


def test_a_piece_that_does_not_fit_waits_for_the_next_batch():
    """A batch has up to the budget, but always one piece."""
    waiting = waiting_with(("a", 60, 1, "first"), ("a", 60, 2, "second"), ("b", 500, 3, "large"))

    assert contents(waiting.take(100)) == ["first"]
    assert sorted(contents(waiting.take(600))) == ["large", "second"]
    assert waiting.take(100) == []


def test_short_pieces_only():
    """The lane for short pieces takes nothing longer, and looks behind long ones."""
    waiting = waiting_with(("a", 500, 1, "long"), ("a", 5, 2, "short"), ("b", 500, 1, "other"))

    assert contents(waiting.take(64, 64)) == ["short"]
    assert waiting.take(64, 64) == []
    assert sorted(contents(waiting.take(1000))) == ["long", "other"]


def test_dropped_pieces_are_not_taken():
    """Nor do they count, and their client is forgotten with its last piece."""
    waiting = waiting_with(("a", 5, 1, "gone"), ("a", 7, 2, "stays"), ("b", 9, 1, "gone"))

    waiting.drop(lambda content: content == "gone", "a")
    waiting.drop(lambda content: content == "gone", "b")
    waiting.drop(lambda _content: True, "unknown")

    assert (len(waiting), waiting.tokens) == (1, 7)
    assert contents(waiting.take(100)) == ["stays"]


PIECES = st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 50), st.floats(0, 9)), max_size=40)


@given(PIECES, st.integers(1, 100))
def test_every_piece_is_taken_once(pieces, budget):
    """In batches within the budget, and the counts are right at each step."""
    waiting = waiting_with(*[(client, tokens, due, number) for number, (client, tokens, due) in enumerate(pieces)])
    taken = []
    while waiting:
        before = (len(waiting), waiting.tokens)
        batch = waiting.take(budget)
        tokens = sum(piece.tokens for piece in batch)
        assert batch
        assert tokens <= budget or len(batch) == 1
        assert before == (len(waiting) + len(batch), waiting.tokens + tokens)
        taken += contents(batch)

    assert sorted(taken) == list(range(len(pieces)))
