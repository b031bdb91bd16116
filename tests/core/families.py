"""Tiny random models of the transformers library and their tokenizers, family by family."""

from __future__ import annotations

import json
from functools import cache
from inspect import getdoc
from pathlib import Path
from typing import Any

TRAINED_ON = ("argparse", "shutil", "textwrap", "os", "re", "random", "json", "string", "pathlib", "inspect")
LENGTH = 64
HIDDEN = 32


@cache
def documentation() -> tuple[str, ...]:
    """Docstrings of the standard library: text that every machine has."""
    members = (member for name in TRAINED_ON for member in vars(__import__(name)).values() if callable(member))
    return tuple(dict.fromkeys(text for text in map(getdoc, members) if text))


def train(model: Any, trainer: Any, special: tuple[str, ...], **steps: Any) -> dict[str, Any]:
    """A vocabulary learnt from the documentation, as the ``model`` part of a tokenizer.json."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer(model)
    for name, step in steps.items():
        setattr(tokenizer, name, step)
    tokenizer.train_from_iterator(
        documentation(), trainer(special_tokens=list(special), vocab_size=700, show_progress=False)
    )
    return dict(json.loads(tokenizer.to_str())["model"])


@cache
def vocabulary(kind: str) -> dict[str, Any]:
    """The ``model`` part of a tokenizer.json; learnt once, for learning it again may number equal pieces otherwise."""
    from tokenizers import models, normalizers, pre_tokenizers, trainers

    bert = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    mpnet = ("<s>", "<pad>", "</s>", "[UNK]", "<mask>")
    fairseq = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
    match kind:
        case "bert" | "cased" | "mpnet":
            return train(
                models.WordPiece(unk_token="[UNK]"),
                trainers.WordPieceTrainer,
                mpnet if kind == "mpnet" else bert,
                normalizer=normalizers.BertNormalizer(lowercase=kind != "cased"),
                pre_tokenizer=pre_tokenizers.BertPreTokenizer(),
            )
        case "roberta":
            by_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False)
            return train(models.BPE(), trainers.BpeTrainer, fairseq, pre_tokenizer=by_bytes)
        case "xlm-roberta":
            return train(models.Unigram(), unigram_trainer, fairseq, pre_tokenizer=pre_tokenizers.Metaspace())
    raise ValueError(kind)


def make_tokenizer(kind: str) -> Any:
    """A transformers tokenizer of a model family with a small vocabulary."""
    import transformers

    model = vocabulary("bert" if kind == "distilbert" else kind)
    match kind:
        case "bert" | "distilbert" | "cased":
            lowercase = kind != "cased"
            return transformers.BertTokenizer(vocab=model["vocab"], do_lower_case=lowercase, model_max_length=LENGTH)
        case "mpnet":
            return transformers.MPNetTokenizer(vocab=model["vocab"], model_max_length=LENGTH)
        case "roberta":
            merges = [tuple(merge) for merge in model["merges"]]
            return transformers.RobertaTokenizer(vocab=model["vocab"], merges=merges, model_max_length=LENGTH)
        case "xlm-roberta":
            pieces = [tuple(piece) for piece in model["vocab"]]
            return transformers.XLMRobertaTokenizer(vocab=pieces, model_max_length=LENGTH)
    raise ValueError(kind)


def unigram_trainer(**options: Any) -> Any:
    """A Unigram trainer that knows its unknown token."""
    from tokenizers.trainers import UnigramTrainer

    return UnigramTrainer(unk_token="<unk>", **options)


def shake(model: Any) -> Any:
    """Random weights large enough that no layer, bias or position could be left out unnoticed."""
    import torch

    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.15)
    return model.eval()


def make_transformer(kind: str, head: str, folder: Path, **config: Any) -> Path:
    """A Hugging Face folder: a tiny random model of a family with a head ("Model", "ForMaskedLM", …) and its tokenizer."""
    import transformers

    tokenizer = make_tokenizer(kind)
    common = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    large = {"num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    small = {"n_layers": 2, "n_heads": 4, "dim": HIDDEN, "hidden_dim": 48}
    family, sizes = {
        "bert": ("Bert", {"hidden_size": HIDDEN, "max_position_embeddings": LENGTH} | large),
        "cased": ("Bert", {"hidden_size": HIDDEN, "max_position_embeddings": LENGTH} | large),
        "distilbert": ("DistilBert", {"max_position_embeddings": LENGTH} | small),
        "mpnet": ("MPNet", {"hidden_size": HIDDEN, "max_position_embeddings": LENGTH + 2} | large),
        "roberta": ("Roberta", {"hidden_size": HIDDEN, "max_position_embeddings": LENGTH + 2} | large),
        "xlm-roberta": ("XLMRoberta", {"hidden_size": HIDDEN, "max_position_embeddings": LENGTH + 2} | large),
    }[kind]
    settings = getattr(transformers, f"{family}Config")(**common | sizes | config)
    model = shake(getattr(transformers, f"{family}{head}")(settings))
    if head == "ForMaskedLM":
        model.get_output_embeddings().bias.data -= 1.5  # else nearly every term of the vocabulary has a weight
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
