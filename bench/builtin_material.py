"""Gather the open text of the built-in models (``bench.builtin_models``); results are committed in ``bench/builtin``.

Needs Debian 12 with ``apt-get`` and ``dpkg-deb``. Debian replaces packages by newer versions over time, so this
script documents how the material was gathered, with the hash of every package, while the material itself is
committed:

``texts.txt.xz``           one text per line, from the packages in ``PACKAGES``: dictionary glosses and paragraphs of
manuals ``piece_counts.npz``       document frequency and count of each word piece; only numbers are stored of these
documents

    python -m bench.builtin_material FOLDER     downloads into FOLDER, then writes both files
"""

from __future__ import annotations

import hashlib
import lzma
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np

from bench.builtin_models import COUNTS, TEXTS, teacher_tokenizer

PACKAGES = {
    # 1:3.0-37, the WordNet licence
    "wordnet-base": "61060d960f9ada8fa120872312eccd3ecebfbab8c4579e4f5a74e1cf67620752",
    # 3.40.1-2+deb12u2, public domain
    "sqlite3-doc": "466e30d7066e2641fa13e56bc662a2ad521b8cc9c17dde9c9dac3d4f105e32f2",
    # 15.20-0+deb12u1, PostgreSQL licence
    "postgresql-doc-15": "4c44bf2c599f208b3f46454a6cf7a72e25ec46ff74d37b59dd31ad76b00eebb7",
    # 2.4.71-1~deb12u1, Apache-2.0
    "apache2-doc": "a7b3d1131c1c63dbf9999b28e75f9a133d30f70492b419936bd51759ac77a01f",
}
DESCRIPTIONS = "62f59c3cdca9786e4f7adf9002f9f5729a684adcb4667e58e448dec9b5a46c7f"
"""SHA-256 of Debian 12's main/i18n/Translation-en, unpacked."""

GLOSSES = 14_000
FAMILIES = 1_000
PARAGRAPHS = 4_000
LONGEST = 450  # characters, about a hundred word pieces


def fetch(folder: Path) -> None:
    """Download and unpack the packages and Debian's list of descriptions; raise ValueError for a wrong hash."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, digest in PACKAGES.items():
        subprocess.run(["apt-get", "download", name], cwd=folder, check=True, capture_output=True)
        archive = next(folder.glob(f"{name}_*.deb"))
        _check(archive.name, archive.read_bytes(), digest)
        subprocess.run(["dpkg-deb", "-x", archive, folder / name], check=True)
    lists = folder / "lists"
    (lists / "partial").mkdir(parents=True, exist_ok=True)
    update = ["apt-get", "-o", "Acquire::Languages=en", "-o", f"Dir::State::lists={lists}", "update"]
    subprocess.run(update, check=True, capture_output=True)
    packed = next(path for path in lists.glob("*bookworm_main_i18n_Translation-en*"))
    unpacked = subprocess.run(["/usr/lib/apt/apt-helper", "cat-file", packed], check=True, capture_output=True).stdout
    _check("Translation-en", unpacked, DESCRIPTIONS)
    (folder / "Translation-en").write_bytes(unpacked)


def _check(name: str, content: bytes, expected: str) -> None:
    digest = hashlib.sha256(content).hexdigest()
    if digest != expected:
        raise ValueError(f"{name}: expected sha256 {expected}, got {digest}; the archive now has another version")


def synsets(folder: Path) -> Iterator[tuple[str, list[str], str, list[str]]]:
    """Yield WordNet's synsets: key, lemmas, gloss, and the keys of their hyponyms."""
    for part in ("noun", "verb", "adj", "adv"):
        for line in (folder / f"wordnet-base/usr/share/wordnet/data.{part}").read_text().splitlines():
            if line.startswith("  "):
                continue  # the licence at the start of each file
            head, gloss = line.split(" | ", 1)
            words = head.split()
            count = int(words[3], 16)
            lemmas = [words[4 + 2 * index].split("(")[0].replace("_", " ") for index in range(count)]
            kin = words[5 + 2 * count :]
            below = [f"{kin[at + 2]}{kin[at + 1]}" for at, sign in enumerate(kin) if sign in {"~", "~i"}]
            yield f"{words[2]}{words[0]}", lemmas, " ".join(gloss.split()), below


def glosses(folder: Path) -> list[str]:
    """Return each synset as a short text: its lemmas and its gloss."""
    return [f"{', '.join(lemmas)}: {gloss}" for _, lemmas, gloss, _ in synsets(folder)]


def families(folder: Path) -> list[str]:
    """Return each synset with four or more hyponyms as a longer text on one topic: its gloss and theirs."""
    known = {key: (lemmas[0], gloss, below) for key, lemmas, gloss, below in synsets(folder)}
    return [
        ". ".join([f"{lemma}: {gloss}", *(f"{known[key][0]}: {known[key][1]}" for key in below if key in known)])
        for lemma, gloss, below in known.values()
        if len(below) >= 4
    ]


class _Paragraphs(HTMLParser):
    """Collects the text of <p> elements."""

    def __init__(self) -> None:
        super().__init__()
        self.paragraphs: list[str] = []
        self._open = False

    def handle_starttag(self, tag: str, attrs: object) -> None:  # noqa: ARG002 - the parser's interface
        if tag == "p":
            self.paragraphs.append("")
            self._open = True

    def handle_endtag(self, tag: str) -> None:
        if tag in {"p", "div", "li", "td", "pre"}:
            self._open = False

    def handle_data(self, data: str) -> None:
        if self._open:
            self.paragraphs[-1] += data


def paragraphs(folder: Path) -> list[str]:
    """Return the prose paragraphs of the manuals: at least 150 characters, four fifths of them letters and spaces."""
    texts: list[str] = []
    for path in sorted(folder.glob("*/usr/share/doc/**/*.htm*")):
        if path.is_dir() or (".html." in path.name and ".html.en" not in path.name):
            continue  # the web server's manual has pages in several languages
        parser = _Paragraphs()
        parser.feed(path.read_text("utf-8", errors="replace"))
        texts += [" ".join(text.split()) for text in parser.paragraphs]
    return [text for text in texts if len(text) >= 150 and len(re.findall(r"[A-Za-z ]", text)) > 0.8 * len(text)]


def descriptions(folder: Path) -> list[str]:
    """Return the descriptions of Debian's packages, first line and body."""
    entries = (folder / "Translation-en").read_text().split("\n\n")
    bodies = (entry.split("Description-en:", 1)[1] for entry in entries if "Description-en:" in entry)
    return [re.sub(r"\n \.?", "\n", body).strip() for body in bodies]


def choose(texts: Iterable[str], count: int) -> list[str]:
    """Return the ``count`` distinct shortened texts with the lowest hashes: a pseudo-random but stable selection."""
    cut = {text[:LONGEST] for text in texts}
    return sorted(cut, key=lambda text: hashlib.sha256(text.encode()).digest())[:count]


def count_pieces(documents: Iterable[str]) -> tuple[np.ndarray, np.ndarray, int]:
    """Return document frequency and count of each word piece over distinct documents, and the number of documents."""
    tokenizer = teacher_tokenizer()
    size = tokenizer.get_vocab_size()
    within, often = np.zeros(size, np.int64), np.zeros(size, np.int64)
    distinct = sorted(set(documents))
    for start in range(0, len(distinct), 1000):
        for encoding in tokenizer.encode_batch_fast(distinct[start : start + 1000], add_special_tokens=False):
            pieces, counts = np.unique(np.asarray(encoding.ids, np.int64), return_counts=True)
            within[pieces] += 1
            often[pieces] += counts
    return within, often, len(distinct)


def main() -> None:
    folder = Path(sys.argv[1])
    fetch(folder)
    chosen = [
        *choose(glosses(folder), GLOSSES),
        *choose(families(folder), FAMILIES),
        *choose(paragraphs(folder), PARAGRAPHS),
    ]
    TEXTS.parent.mkdir(exist_ok=True)
    TEXTS.write_bytes(lzma.compress("\n".join(chosen).encode() + b"\n", preset=9 | lzma.PRESET_EXTREME))
    within, often, documents = count_pieces([*descriptions(folder), *paragraphs(folder)])
    np.savez_compressed(COUNTS, within=within.astype(np.int32), often=often.astype(np.int32), documents=documents)
    print(f"{len(chosen):,} texts, {TEXTS.stat().st_size:,} bytes; pieces counted in {documents:,} documents")


if __name__ == "__main__":
    main()
