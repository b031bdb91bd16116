"""Train ``builtin:rerank``: a small transformer over content words, distilled from MiniLM.

    python -m bench.builtin_reranker FOLDER    reads what ``bench.builtin_material`` downloaded into FOLDER, and writes
                                               core/st_core/builtin/rerank

The model scores a pair by BM25 with the weights of ``builtin:sparse`` plus ``COSINE_WEIGHT`` times the cosine of two
vectors. These come from two transformer layers over the word vectors of ``builtin:dense``; at the start, the layers add
nothing. The layers and the word vectors learn to give each text the direction of MiniLM's vector, and each two texts of
a batch MiniLM's similarity. No evaluation data is read in training.

MiniLM's vectors are stored in FOLDER, and computed once. It takes about an hour on two cores with AMX. The result is
not bit-equal each time, because torch computes in bfloat16.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bench.builtin_material import families, glosses
from bench.builtin_models import (
    AVERAGE_LENGTH,
    FACTORS,
    K1,
    TARGET,
    TEACHER,
    B,
    frames,
    piece_weights,
    teacher_tokenizer,
    write_json,
    write_tokenizer,
)
from bench.builtin_queries import material
from st_core.modules.hybrid_score import MAPS

if TYPE_CHECKING:
    import torch

__all__ = ["Student", "content", "exported", "teach", "texts", "train", "write"]

MOST = 253_952  # texts
PASSAGE = 450  # characters, about a hundred word pieces
PASSAGES = 8
SENTENCES = 2
FRAMED = 0.3  # share of the texts of which a sentence is put into a hand-written frame, as people put questions

COMMON = 1.5  # the idf up to which a piece is not read: function words and the most frequent other words
PIECES = 64  # of a text, without common ones
LAYERS, HEADS, ATTENTION, INTERMEDIATE = 2, 4, 128, 256
COSINE_WEIGHT = 1.0  # the best on questions of FAQs, of 0.75 to 3

MINUTES = 40
BATCH = 128
BLOCK = 32  # batches whose texts are sorted by length
RATE, TABLE_RATE = 7e-4, 1e-3
WARM_UP = 200  # steps
SIMILARITIES = 0.3  # weight of the loss of similarities within a batch
SHARPNESS = 20.0  # factor of the similarities before their softmax

WINDOW = 4096  # texts per call of the teacher

Array = NDArray[Any]
Rows = list[Array]


def texts(folder: Path) -> list[str]:
    """Return the distinct texts whose vectors are learned, in random order."""
    order = np.random.default_rng(0)
    found = [*glosses(folder), *families(folder)]
    for group in material(folder):
        for title, body in group:
            found += _parts(title, body, order)
    distinct = sorted(set(found))
    return [distinct[at] for at in order.permutation(len(distinct))[:MOST]]


def _parts(title: str, body: str, order: np.random.Generator) -> Iterator[str]:
    """Yield the start of a section, its passages, some of its sentences, and sometimes a sentence in a frame."""
    yield f"{title}. {body[:500]}"
    starts = range(0, min(len(body), PASSAGES * PASSAGE), PASSAGE)
    yield from (body[start : start + PASSAGE] for start in starts if len(body) - start > 60 and len(body) > 500)
    sentences = [each for each in re.split(r"(?<=[.?!])\s+|\n", body[:3000]) if 25 < len(each) < 300]
    if not sentences:
        return
    for at in order.choice(len(sentences), min(SENTENCES, len(sentences)), replace=False):
        yield sentences[at]
    if order.random() < FRAMED:
        query = sentences[order.integers(len(sentences))]
        around = frames()
        for at in order.choice(len(around), int(order.integers(1, 3)), replace=False):
            query = around[at].replace("X", query, 1)
        yield query


def teach(folder: Path, rows: Sequence[str]) -> Array:
    """Return MiniLM's vectors [n, 384] of texts, float16; they are stored in FOLDER, and computed once."""
    from st_core import SentenceTransformer

    place = folder / "teacher.npy"
    if not place.exists():
        teacher = SentenceTransformer(
            str(files(TEACHER) / "model"), device="cpu", backend="torch", model_kwargs={"dtype": "bfloat16"}
        )
        part = place.with_suffix(".part")
        vectors = np.lib.format.open_memmap(part, "w+", np.float16, (len(rows), 384))
        for start in range(0, len(rows), WINDOW):
            vectors[start : start + WINDOW] = teacher.encode(list(rows[start : start + WINDOW]), batch_size=64)
            print(f"\rteacher: {start + WINDOW:,} of {len(rows):,}", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
        vectors.flush()
        part.rename(place)
    vectors = np.load(place, mmap_mode="r")
    if len(vectors) != len(rows):
        raise ValueError(f"{place}: expected the vectors of {len(rows):,} texts, got {len(vectors):,}; delete the file")
    return vectors


def content() -> Array:
    """Return whether each piece is read, bool [V]: whether its idf is above ``COMMON``."""
    weight, term = piece_weights()
    return np.where(term >= 0, weight[np.maximum(term, 0)], 0) > COMMON


def pieces(rows: Sequence[str]) -> Rows:
    """Return the first ``PIECES`` pieces of each text that are read; the piece [UNK] for a text without any."""
    tokenizer, is_content = teacher_tokenizer(), content()
    unknown = np.array([tokenizer.token_to_id("[UNK]")], np.int32)
    found = []
    for start in range(0, len(rows), WINDOW):
        for encoding in tokenizer.encode_batch_fast(list(rows[start : start + WINDOW]), add_special_tokens=False):
            ids = np.asarray(encoding.ids, np.int32)
            ids = ids[is_content[ids]][:PIECES] if ids.size else ids
            found.append(ids if ids.size else unknown)
    return found


def word_vectors() -> Array:
    """Return the vectors of ``builtin:dense`` [V, 256], scaled to the mean length 1."""
    from safetensors.numpy import load_file

    tensors = load_file(TARGET / "dense" / "0_StaticEmbedding" / "model.safetensors")
    table = tensors["embeddings"].astype(np.float32) * tensors["weights"][:, None]
    return table / np.linalg.norm(table, axis=1).mean()


def _unit(rows: Array) -> Array:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


def projection(vectors: Array, rows: Sequence[Array], table: Array) -> Array:
    """Return the map [384, d] from the teacher's vectors to the student's, whose directions are learned.

    It takes the principal axes of the teacher's vectors, and turns them so that they are nearest to the sums of word
    vectors, which are the student's vectors before training (the orthogonal Procrustes problem).
    """
    sample = np.asarray(vectors[:20_000], np.float32)
    _, axes = np.linalg.eigh(np.cov((sample - sample.mean(axis=0)).T))
    axes = axes[:, : -table.shape[1] - 1 : -1]
    sums = _unit(np.array([table[ids].sum(axis=0) for ids in rows[: len(sample)]]))
    left, _, right = np.linalg.svd(_unit(sample @ axes).T @ sums)
    return np.asarray(axes @ (left @ right), np.float32)


def Student(table: Array) -> Any:  # noqa: N802 - a class, defined where torch is imported
    """Return the untrained model: an ``nn.Module`` from padded ids and their mask [n, t] to unit vectors [n, d]."""
    import torch
    from torch import nn
    from torch.nn import functional

    class Layer(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.attention_norm, self.output_norm = nn.LayerNorm(width), nn.LayerNorm(width)
            self.query_key_value, self.attention_output = nn.Linear(width, 3 * ATTENTION), nn.Linear(ATTENTION, width)
            self.intermediate, self.output = nn.Linear(width, INTERMEDIATE), nn.Linear(INTERMEDIATE, width)
            for last in (self.attention_output, self.output):
                nn.init.zeros_(last.weight)
                nn.init.zeros_(last.bias)

        def forward(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            count, length, _ = states.shape
            split = self.query_key_value(self.attention_norm(states)).view(count, length, 3, HEADS, ATTENTION // HEADS)
            query, key, value = split.permute(2, 0, 3, 1, 4)
            attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None, None, :])
            states = states + self.attention_output(attended.transpose(1, 2).reshape(count, length, ATTENTION))
            return states + self.output(functional.relu(self.intermediate(self.output_norm(states))))

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding.from_pretrained(torch.from_numpy(table.copy()), freeze=False)
            self.positions = nn.Embedding(PIECES, table.shape[1])
            nn.init.normal_(self.positions.weight, std=0.005)
            self.layers = nn.ModuleList(Layer(table.shape[1]) for _ in range(LAYERS))

        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            states = self.words(ids) + self.positions.weight[: ids.shape[1]]
            for layer in self.layers:
                states = layer(states, mask)
            return functional.normalize((states.float() * mask[..., None]).sum(1), dim=1)

    return Network()


def padded(rows: Sequence[Array]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids and mask [n, t] of rows."""
    import torch

    sizes = np.array([row.size for row in rows])
    mask = np.arange(sizes.max()) < sizes[:, None]
    ids = np.zeros(mask.shape, np.int64)
    ids[mask] = np.concatenate(rows)
    return torch.from_numpy(ids), torch.from_numpy(mask)


def _batches(rows: Sequence[Array]) -> Iterator[Array]:
    """Yield random batches of positions for ever, each of texts of similar length."""
    order = np.random.default_rng(0)
    sizes = np.array([row.size for row in rows])
    while True:
        shuffled = order.permutation(len(rows))
        for start in range(0, len(rows) - BATCH * BLOCK + 1, BATCH * BLOCK):
            block = shuffled[start : start + BATCH * BLOCK]
            block = block[np.argsort(sizes[block], kind="stable")].reshape(-1, BATCH)
            yield from block[order.permutation(len(block))]


def train(rows: Sequence[Array], vectors: Array, table: Array, minutes: float = MINUTES) -> Any:
    """Return the student after some minutes of training towards the teacher's vectors."""
    import torch
    from torch.nn import functional

    torch.manual_seed(0)
    student, turn = Student(table), projection(vectors, rows, table)
    others = [value for name, value in student.named_parameters() if not name.startswith("words.")]
    optimizer = torch.optim.AdamW(
        [
            {"params": [student.words.weight], "lr": TABLE_RATE, "weight_decay": 0.0},
            {"params": others, "lr": RATE, "weight_decay": 0.01},
        ],
        betas=(0.9, 0.98),
        fused=True,
    )
    rates = [group["lr"] for group in optimizer.param_groups]
    began, distance = time.monotonic(), 1.0
    for step, batch in enumerate(_batches(rows)):
        share = (time.monotonic() - began) / 60 / minutes
        if share >= 1:
            break
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * min(1, (step + 1) / WARM_UP) * max(0.02, 1 - share)
        batch.sort()  # reads the file of vectors in order
        goal = torch.from_numpy(_unit(np.asarray(vectors[batch], np.float32) @ turn))
        with torch.autocast("cpu", torch.bfloat16):
            found = student(*padded([rows[at] for at in batch])).float()
        cosine = (found * goal).sum(1).mean()
        similarities = functional.kl_div(
            torch.log_softmax(found @ found.T * SHARPNESS, 1),
            torch.log_softmax(goal @ goal.T * SHARPNESS, 1),
            log_target=True,
            reduction="batchmean",
        )
        optimizer.zero_grad()
        (1 - cosine + SIMILARITIES * similarities).backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        distance += 0.01 * (1 - cosine.item() - distance)
        if step % 500 == 499:
            print(f"step {step + 1:,}, {share:.0%}: 1 - cosine {distance:.4f}", file=sys.stderr, flush=True)
    return student


def exported(student: Any) -> dict[str, Array]:
    """Return the tensors of the module's file; the layer norms' gains and shifts become part of the linear maps."""
    state = {name: value.detach().double().numpy() for name, value in student.state_dict().items()}
    maps: dict[str, list[tuple[Array, Array]]] = {name: [] for name in MAPS}
    for layer in range(LAYERS):
        own = {
            name.removeprefix(f"layers.{layer}."): value
            for name, value in state.items()
            if name.startswith(f"layers.{layer}.")
        }
        for name, norm in zip(MAPS, ("attention_norm", "", "output_norm", ""), strict=True):
            weight, bias = own[f"{name}.weight"], own[f"{name}.bias"]
            if norm:
                bias = bias + weight @ own[f"{norm}.bias"]
                weight = weight * own[f"{norm}.weight"]
            if name == "query_key_value":
                factor = np.where(np.arange(3 * ATTENTION) < ATTENTION, (ATTENTION / HEADS) ** -0.5, 1.0)
                weight, bias = weight * factor[:, None], bias * factor
            maps[name].append((weight, bias))
    tensors = {"position": state["positions.weight"].astype(np.float32)}
    tensors["table"], tensors["scale"] = quantized(state["words.weight"])
    for name, values in maps.items():
        weights, biases = zip(*values, strict=True)
        tensors[f"{name}.weight"], tensors[f"{name}.scale"] = quantized(np.stack(weights))
        tensors[f"{name}.bias"] = np.stack(biases).astype(np.float32)
    return tensors


def quantized(values: Array) -> tuple[Array, Array]:
    """Return values [..., n] as int8, and the scale [...] of each row, with which they are multiplied."""
    scale = np.abs(values).max(axis=-1) / 127
    scale[scale == 0] = 1
    return np.round(values / scale[..., None]).astype(np.int8), scale.astype(np.float32)


def write(folder: Path, tensors: Mapping[str, Array]) -> None:
    """Write the model with the trained tensors and the weights of ``builtin:sparse``."""
    from safetensors.numpy import save

    weight, term = piece_weights()
    with np.load(FACTORS) as learned:
        idf = (weight * learned["factor"]).astype(np.float32)
    every = {"term": term, "idf": idf, "is_content": content().astype(np.uint8), **tensors}
    module = folder / "0_HybridScore"
    write_json(
        folder / "modules.json",
        [{"idx": 0, "name": "0", "path": module.name, "type": "st_core.modules.hybrid_score.HybridScore"}],
    )
    write_json(
        folder / "config_sentence_transformers.json",
        {"model_type": "CrossEncoder", "activation_fn": "torch.nn.modules.linear.Identity", "prompts": {}},
    )
    write_tokenizer(folder / "tokenizer.json")
    settings = {"k1": K1, "b": B, "average_length": AVERAGE_LENGTH, "heads": HEADS}
    settings |= {"lexical_weight": 1.0, "cosine_weight": COSINE_WEIGHT, "bias": 0.0}
    write_json(module / "config.json", settings)
    (module / "model.safetensors").write_bytes(save({name: every[name] for name in sorted(every)}))


def main() -> None:
    folder = Path(sys.argv[1])
    chosen = texts(folder)
    vectors = teach(folder, chosen)
    student = train(pieces(chosen), vectors, word_vectors())
    shutil.rmtree(TARGET / "rerank" / "0_HybridScore", ignore_errors=True)
    write(TARGET / "rerank", exported(student))


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    main()
