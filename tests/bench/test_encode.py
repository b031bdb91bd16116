"""The figures that the encoding benchmark computes from measurements, checked with hand-written ones."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from bench import contenders, encode, encode_results, machine, process, texts, works
from bench.contenders import THEIRS, Contender
from bench.encode import OtherWorkError, check_equal, figures_of, in_turns, row, targets_of
from bench.figures import missed
from bench.works import WORKS, with_texts

EXACT = Contender("ours", "st_core")
COARSE = Contender("ours int8", "st_core", bits=8)


def answers(seconds, **more):
    """Return the answers of a contender in several rounds."""
    return [{"seconds": each, "peak_mb": 100.0 + each, "apart": each / 1e6} | more for each in seconds]


@pytest.fixture
def measured():
    """Return a row of two contenders over three rounds, each slower than the one before."""
    rows = {THEIRS: answers([1.0, 2.0, 6.0]), "ours": answers([0.5, 0.5, 2.0])}
    return row(WORKS["dense"], {"ours": 8}, rows, [0.25, 0.5, 1.5])


@pytest.fixture
def card(monkeypatch):
    """Replace the GPU: return its name, and a list of the times it was waited for."""
    torch = pytest.importorskip("torch", reason="needs torch")
    ones, waited = torch.ones, []
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _device: "NVIDIA H100 80GB HBM3")
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    monkeypatch.setattr(torch, "ones", lambda *sizes, **_: ones(*sizes))
    monkeypatch.setattr(machine, "CARD_SIZE", 64)
    return "cuda:0", waited


def test_another_contender_begins_each_turn():
    """All contenders take part in every turn, in rotation, and each is first once."""
    turns = [in_turns(["a", "b", "c"], turn) for turn in range(4)]

    assert turns == [["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"], ["a", "b", "c"]]


def test_float_noise_is_equal_and_more_is_not():
    """The largest difference is returned, and an error if it exceeds the parity of float32."""
    wanted = np.eye(3, dtype=np.float32)

    assert check_equal(EXACT, wanted, wanted + np.float32(5e-6)) == pytest.approx(5e-6, rel=0.05)
    with pytest.raises(OtherWorkError, match=r"output differs by 2\.0e-05"):
        check_equal(EXACT, wanted, wanted + np.float32(2e-5))
    with pytest.raises(OtherWorkError, match=r"expected output of shape \(3, 3\), got \(2, 3\)"):
        check_equal(EXACT, wanted, wanted[:2])


def test_int8_is_held_to_directions():
    """Vector lengths do not matter, but the mean and the worst cosine do; scores are one row."""
    wanted = np.repeat(np.eye(2, dtype=np.float32), 50, axis=0)
    turned = wanted.copy()
    turned[0] = [np.cos(0.25), np.sin(0.25)]  # a cosine of 0.969, with a high enough mean

    assert check_equal(COARSE, wanted, wanted * 3) == 2.0
    with pytest.raises(OtherWorkError, match=r"worst 0\.9689"):
        check_equal(COARSE, wanted, turned)
    with pytest.raises(OtherWorkError, match=r"^cosine 0\.9997, worst 0\.9689: too low for 16 bits"):
        check_equal(Contender("half", "st_core", bits=16), wanted, turned)
    angle = np.arccos(0.994)
    all_turned = np.tile(np.float32([np.cos(angle), np.sin(angle)]), (50, 1))
    with pytest.raises(OtherWorkError, match=r"cosine 0\.9940"):
        check_equal(COARSE, wanted[:50], all_turned)
    with pytest.raises(OtherWorkError, match="too low for 8 bits"):
        check_equal(COARSE, np.float32([1, 2, 3]), np.float32([3, 2, 1]))


def test_a_contender_without_output_is_not_compared():
    """The bare forward pass has no output."""
    assert check_equal(EXACT, np.eye(2), None) == 0.0


class Given:
    """A stand-in for a contender's process: one vector, which differs by ``apart`` from the second round on."""

    def __init__(self, contender, apart):
        self.contender, self.apart, self.rounds, self.closed = contender, apart, 0, False

    def run(self, _order, inputs):
        assert not self.closed
        self.rounds += len(inputs) > 100  # fewer inputs warm up
        return {"seconds": 1.0, "peak_mb": 1.0, "output": np.float32([[1.0 + self.apart * (self.rounds > 1)]])}

    def close(self):
        self.closed = True


def test_other_work_is_not_counted(monkeypatch, tmp_path, capsys):
    """A contender with other output stops at once and the others go on; the row and the exit status report it."""
    those = [Contender(THEIRS, ""), Contender("same", ""), Contender("other", "")]
    live = {}
    monkeypatch.setattr(encode, "MAKERS", {"minilm": lambda root: root})
    monkeypatch.setattr(encode, "taking_part", lambda *_: those)
    monkeypatch.setattr(
        encode, "Process", lambda each, *_: live.setdefault(each.name, Given(each, 0.5 if each.name == "other" else 0))
    )
    monkeypatch.setattr(encode, "limit", lambda _device: 1.0)
    monkeypatch.setattr(encode, "token_lengths", lambda *_: [])
    monkeypatch.setattr(encode, "cost_of_tokens", lambda *_: 1.0)

    found = encode.measure("dense", WORKS["dense"], encode.Run(3), tmp_path)

    assert set(found["contenders"]) == {THEIRS, "same"}
    assert found["not_counted"] == {"other": "output differs by 5.0e-01; the limit is 1e-05"}
    assert [live[each.name].rounds for each in those] == [3, 3, 2]

    monkeypatch.setattr(encode, "measure", lambda *_: found)
    monkeypatch.setattr("sys.argv", ["encode", "dense", "--texts", "query"])
    assert encode.main() == 1
    said = capsys.readouterr()
    assert re.search(r"other +not counted: output differs by 5\.0e-01", said.out)
    assert "not counted: dense-query: other: output differs by 5.0e-01" in said.err


def test_ratios_are_taken_within_rounds(measured):
    """Ratios are medians within rounds: of 1/0.5, 2/0.5 and 6/2 it is 3, unlike the ratio of medians."""
    ours = measured["contenders"]["ours"]

    assert ours["ratio"] == {"median": 3.0, "min": 2.0, "max": 4.0}
    assert ours["seconds"] == {"median": 0.5, "min": 0.5, "max": 2.0}
    assert ours["share_of_limit"] == {"median": 0.75, "min": 0.5, "max": 1.0}
    assert (ours["peak_mb"], ours["largest_difference"], ours["batch_size"]) == (102.0, 2e-6, 8)
    assert measured["contenders"][THEIRS]["ratio"] == {"median": 1.0, "min": 1.0, "max": 1.0}


def test_what_is_under_a_floor_or_over_a_most_is_missed(measured):
    """Ratios are compared with floors, seconds and megabytes with limits, for contenders that took part."""
    work = replace(WORKS["dense"], floors={"ours": 3.5, "absent": 9}, most={"ours": 0.4})

    assert missed(figures_of("dense", measured), targets_of("dense", work, measured)) == [
        "dense: ours is 3.000, target >= 3.5",
        "dense: ours, s is 0.500, target < 0.4",
    ]
    easy = replace(work, floors={"ours": 3.0}, most={"ours": 0.6})
    assert missed(figures_of("dense", measured), targets_of("dense", easy, measured)) == []


def test_growth_is_held_to_megabytes():
    """A row of growth has no seconds."""
    grown = [{"growth_mb": 700.0, "peak_mb": 1.0, "apart": 0.0}]
    found = row(WORKS["splade-memory"], {}, {THEIRS: [grown[0] | {"growth_mb": 4200.0}], works.TORCH: grown}, [])

    assert missed(figures_of("m", found), targets_of("m", WORKS["splade-memory"], found)) == [
        f"m: {works.TORCH}, MB is 700.000, target < 600"
    ]


def test_every_figure_is_of_a_contender_that_takes_part():
    """Every floor names a contender, because any other would never be missed."""
    taking = {contender.name: contender.works for contender in contenders.contenders()}

    for name, work in WORKS.items():
        for contender in (*work.floors, *work.most):
            assert name in taking[contender], (name, contender)
    other = with_texts(WORKS["dense"], "article")
    assert (other.floors, other.count) == ({}, 85)  # 400 mixed texts of 75 words, in articles of 355


def test_a_card_is_given_to_both_engines_in_every_type():
    """Variants of a contender take part in the works of transformers, without targets."""
    found = {contender.name: contender for contender in contenders.contenders("cuda:1")}

    assert next(iter(found)) == THEIRS
    assert {contender.device for contender in found.values()} == {"cuda:1"}
    for engine, loads in (
        ("sentence-transformers", lambda dtype: {"model_kwargs": {"dtype": dtype}}),
        ("st_core torch", lambda dtype: {"dtype": dtype}),
    ):
        for dtype in ("float16", "bfloat16"):
            half = found[f"{engine} {dtype}"]
            assert half.load == {"device": "cuda:1"} | loads(dtype)
            assert half.bits == 16
            assert half.works < found[engine].works
    there = encode.works_on("cuda:1")
    assert set(there) == found[THEIRS].works == set(WORKS) - contenders.STATIC
    assert not any(work.floors or work.most for work in there.values())
    assert encode.works_on("cpu") == WORKS


def test_timing_waits_for_the_card(card):
    """A call or product on a GPU ends when the GPU is finished; a CPU is not waited for."""
    device, waited = card
    before = []

    process._waited(lambda _: before.append(len(waited)), device)(["a"])
    assert (before, waited) == ([0], [device])
    assert machine.limit(device) > 0
    assert waited == [device] * 7

    process._waited(len, "cpu")(["a"])
    assert waited == [device] * 7


def test_who_is_not_installed_is_left_out_and_named(monkeypatch, capsys):
    """A contender that is not installed is left out, except the baseline; submodules count too."""
    assert Contender("a", "json", needs=("not_there.at_all", "json.decoder")).missing == ["not_there.at_all"]

    gone = {"fastembed", "optimum.intel"}
    monkeypatch.setattr(contenders, "_installed", lambda package: package not in gone)
    names = [contender.name for contender in encode.taking_part("dense", encode.Run())]
    assert {"fastembed", f"{THEIRS} openvino"}.isdisjoint(names)
    assert "without fastembed: fastembed is not installed" in capsys.readouterr().err

    gone.add("sentence_transformers")
    with pytest.raises(ImportError, match=r"needs sentence_transformers: run `make bench`"):
        encode.taking_part("dense", encode.Run())


def test_contenders_are_chosen_by_words(monkeypatch):
    """A contender is selected by any word of its name; sentence-transformers always takes part."""
    monkeypatch.setattr(contenders, "_installed", lambda _package: True)

    found = encode.taking_part("dense", encode.Run(only=["numpy", "st_core torch"]))

    assert [contender.name for contender in found] == [THEIRS, works.TORCH]


@pytest.mark.parametrize("form", ["people", "json"])
def test_figures_are_printed_once(measured, monkeypatch, capsys, form):
    """Rows are printed when they are finished, or all at the end as JSON; the status reports missed targets."""
    monkeypatch.setattr(encode, "measure", lambda *_: measured)
    monkeypatch.setattr("sys.argv", ["encode", "static", *(["--json"] if form == "json" else [])])

    status = encode.main()

    said = capsys.readouterr()
    assert status == 0
    if form == "json":
        assert json.loads(said.out)["static: ours"] == measured["contenders"]["ours"]["ratio"]
    else:
        assert said.out.splitlines()[0].startswith("static: static model documents")
        assert [line.split()[0] for line in said.out.splitlines()[1:]] == [THEIRS, "ours"]


def test_a_work_that_a_device_has_not_is_refused(monkeypatch, capsys):
    """An unknown work is an error that lists the known ones."""
    monkeypatch.setattr("sys.argv", ["encode", "static", "--device", "cuda"])

    with pytest.raises(SystemExit):
        encode.main()
    assert "unknown work static on cuda; expected one of dense, splade" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["query", "describe", "article"])
def test_texts_are_fixed_and_of_their_lengths(kind):
    """Texts are equal every time, with the number of words in the module's table."""
    made = texts.texts(kind, 300, 3)
    lengths = sorted(len(text.split()) for text in made)

    assert made == texts.texts(kind, 300, 3)
    least, middle, most = {"query": (3, 6.5, 10), "describe": (15, 55, 150), "article": (200, 350, 600)}[kind]
    assert lengths[0] >= least
    assert lengths[-1] <= most
    assert lengths[150] == pytest.approx(middle, rel=0.12)


def test_mixed_texts_are_of_all_kinds():
    """Mixed texts contain three, six and one in ten of each kind, distinguished by length."""
    lengths = np.array([len(text.split()) for text in texts.texts("mixed", 1000, 0)])
    shares = [(lengths <= 10).mean(), ((lengths > 10) & (lengths <= 150)).mean(), (lengths > 150).mean()]

    assert shares == pytest.approx([0.3, 0.6, 0.1], abs=0.04)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["query", "describe", "mixed"])
def test_rounds_share_no_words_of_the_material(kind, monkeypatch):
    """Numbered words show where texts were split: each round begins after the end of the one before."""
    monkeypatch.setattr(texts, "words", lambda: tuple(map(str, range(500_000))))
    taken = [{int(word) for text in texts.texts(kind, 100, number) for word in text.split()} for number in range(5)]

    for earlier, later in pairwise(taken):
        assert max(earlier) < min(later)
    pairs = texts.pairs(4, 2)
    assert len({query for query, _ in pairs}) == 1
    assert [text for _, text in pairs] == texts.texts("describe", 4, 2)


def test_an_unknown_kind_is_refused():
    """An unknown kind is an error that lists the known ones."""
    with pytest.raises((KeyError, ValueError), match="poem"):
        texts.texts("poem", 1, 0)


def test_kept_rows_become_a_table_and_a_plot(measured, tmp_path, monkeypatch):
    """A row replaces the one of its name except for contenders it did not measure; all rows are drawn."""
    monkeypatch.setattr(encode_results, "FOLDER", tmp_path / "results")
    drawn = []
    monkeypatch.setattr(encode_results, "plot", lambda kept, path: drawn.append((kept, path)))

    encode_results.save("dense", measured)
    newer = {
        **measured,
        "contenders": {
            "ours": {**measured["contenders"]["ours"], "ratio": dict.fromkeys(("median", "min", "max"), 9.0)}
        },
    }
    encode_results.save("dense", newer)

    kept = json.loads((tmp_path / "results" / "encode.json").read_text(encoding="utf-8"))
    assert set(kept["dense"]["contenders"]) == {THEIRS, "ours"}
    assert drawn[-1] == (kept, tmp_path / "results" / "encode.svg")
    lines = (tmp_path / "results" / "encode.md").read_text(encoding="utf-8").splitlines()
    assert "## dense: dense documents, MiniLM" in lines
    assert "| ours (batch size 8) | 500 ms | 500 to 2,000 | 9.00 | 9.00 to 9.00 | 75% | 102 | 2e-06 |" in lines
    assert any(line.startswith("- dense: ") for line in lines)


def test_of_a_contender_the_newer_is_kept(measured, tmp_path, monkeypatch):
    """A contender has figures, or the reason for not being counted."""
    monkeypatch.setattr(encode_results, "FOLDER", tmp_path)
    monkeypatch.setattr(encode_results, "plot", lambda *_: None)
    ours = measured["contenders"]["ours"]
    other = {**measured, "contenders": {}, "not_counted": {"ours": "cosines are too low"}}

    def kept(row):
        encode_results.save("dense", row)
        found = json.loads((tmp_path / "encode.json").read_text(encoding="utf-8"))["dense"]
        return found["contenders"].get("ours"), found["not_counted"]

    assert kept(measured) == (ours, {})
    assert kept(other) == (None, {"ours": "cosines are too low"})
    assert "Not counted: ours, whose cosines are too low." in (tmp_path / "encode.md").read_text(encoding="utf-8")
    assert kept(measured) == (ours, {})


def test_rows_of_a_card_are_kept_by_themselves(measured, tmp_path, monkeypatch, card):
    """Rows of a GPU are stored under its name, which page and description contain; the CPU's rows stay."""
    monkeypatch.setattr(encode_results, "FOLDER", tmp_path)
    monkeypatch.setattr(encode_results, "plot", lambda _kept, path: path.write_text(""))

    encode_results.save("dense", measured)
    encode_results.save("dense", measured, card[0])

    stems = {path.stem for path in tmp_path.iterdir()}
    assert stems == {"encode", "encode-nvidia-h100-80gb-hbm3"}
    page = (tmp_path / "encode-nvidia-h100-80gb-hbm3.md").read_text(encoding="utf-8")
    assert page.startswith("# Times against sentence-transformers on NVIDIA H100 80GB HBM3\n")
    assert "`python -m bench.encode --device cuda --save`" in page
    assert "- dense: card NVIDIA H100 80GB HBM3, cores" in page
    assert "NVIDIA" not in (tmp_path / "encode.md").read_text(encoding="utf-8")


def test_the_plot_is_the_same_for_the_same_rows(measured, tmp_path):
    """The plot is equal byte by byte, with a bar for each contender but the baseline."""
    pytest.importorskip("matplotlib", reason="plots need the bench group")
    drawings = []
    for _ in range(2):
        encode_results.plot({"dense": measured}, tmp_path / "encode.svg")
        drawings.append((tmp_path / "encode.svg").read_bytes())

    assert drawings[0] == drawings[1]
    assert drawings[0].count(b"dense: ours") == 1
