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
        case "t5":
            metaspace = pre_tokenizers.Metaspace()
            return train(models.Unigram(), unigram_trainer, ("<pad>", "</s>", "<unk>"), pre_tokenizer=metaspace)
        case "decoder":
            by_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False)
            return train(models.BPE(), byte_trainer, DECODER_TOKENS, pre_tokenizer=by_bytes)
        case "llama":
            fallback = models.BPE(unk_token="<unk>", byte_fallback=True)
            special = ("<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)))
            return train(fallback, trainers.BpeTrainer, special, pre_tokenizer=pre_tokenizers.Metaspace())
    raise ValueError(kind)


DECODER_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "[PAD]", "[CLS]", "[SEP]", "[MASK]", "yes", "no")
"""Special tokens of the byte-level families; yes and no are what rerankers answer with."""

OF_VOCABULARY = {
    "distilbert": "bert",
    "gpt2": "decoder",
    "mistral": "llama",
    "modernbert": "decoder",
    "mt5": "t5",
    "qwen2": "decoder",
    "qwen3": "decoder",
    "t5gemma": "t5",
    "umt5": "t5",
}
"""Families that share the vocabulary of another."""


def byte_trainer(**options: Any) -> Any:
    """A byte-pair trainer that knows every byte, so that no text loses any."""
    from tokenizers import pre_tokenizers
    from tokenizers.trainers import BpeTrainer

    return BpeTrainer(initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), **options)


def make_tokenizer(kind: str) -> Any:
    """A transformers tokenizer of a model family with a small vocabulary."""
    import transformers

    model = vocabulary(OF_VOCABULARY.get(kind, kind))
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
        case "t5" | "mt5" | "umt5" | "t5gemma":
            pieces = [tuple(piece) for piece in model["vocab"]]
            return transformers.T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=LENGTH)
        case "llama" | "mistral":
            merges = [tuple(merge) for merge in model["merges"]]
            return transformers.LlamaTokenizer(
                vocab=model["vocab"], merges=merges, pad_token="</s>", model_max_length=LENGTH
            )
        case "gpt2" | "qwen2" | "qwen3" | "modernbert":
            return byte_tokenizer(kind, model)
    raise ValueError(kind)


def byte_tokenizer(kind: str, model: dict[str, Any]) -> Any:
    """A byte-level tokenizer: Qwen3's ends a text with a token and pads left; ModernBERT's is BERT's in bytes."""
    import transformers
    from tokenizers.processors import TemplateProcessing

    merges = [tuple(merge) for merge in model["merges"]]
    if kind == "gpt2":
        return transformers.GPT2Tokenizer(
            vocab=model["vocab"], merges=merges, pad_token="[PAD]", padding_side="left", model_max_length=LENGTH
        )
    tokenizer = transformers.Qwen2Tokenizer(
        vocab=model["vocab"], merges=merges, pad_token="[PAD]", model_max_length=LENGTH
    )
    if kind == "qwen2":
        return tokenizer
    backend, vocab = tokenizer.backend_tokenizer, model["vocab"]
    if kind == "qwen3":
        end = ("<|endoftext|>", vocab["<|endoftext|>"])
        backend.post_processor = TemplateProcessing(single=f"$A {end[0]}", special_tokens=[end])
        tokenizer.padding_side = "left"
        return tokenizer
    around = [(token, vocab[token]) for token in ("[CLS]", "[SEP]")]
    backend.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=around
    )
    names = {name: f"[{name[:-6].upper()}]" for name in ("cls_token", "sep_token", "pad_token", "mask_token")}
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_input_names=["input_ids", "attention_mask"],
        unk_token="<|endoftext|>",
        model_max_length=LENGTH,
        **names,
    )


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


MODERN = {"local_attention": 8, "reference_compile": False, "cls_token_id": 4, "sep_token_id": 5}
"""ModernBERT looks at eight neighbours in every other layer."""


def make_transformer(kind: str, head: str, folder: Path, **config: Any) -> Path:
    """Save a tiny random model of a family with a head ("Model", "ForMaskedLM", …) and its tokenizer."""
    import transformers

    tokenizer = make_tokenizer(kind)
    common = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    large = {"num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    relative = {"d_model": HIDDEN, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0}
    small = {"n_layers": 2, "n_heads": 4, "dim": HIDDEN, "hidden_dim": 48}
    family, sizes = {
        "bert": ("Bert", {"hidden_size": HIDDEN, "max_position_embeddings": LENGTH} | large),
        "cased": ("Bert", {"hidden_size": HIDDEN, "max_position_embeddings": LENGTH} | large),
        "distilbert": ("DistilBert", {"max_position_embeddings": LENGTH} | small),
        "mpnet": ("MPNet", {"hidden_size": HIDDEN, "max_position_embeddings": LENGTH + 2} | large),
        "roberta": ("Roberta", {"hidden_size": HIDDEN, "max_position_embeddings": LENGTH + 2} | large),
        "xlm-roberta": ("XLMRoberta", {"hidden_size": HIDDEN, "max_position_embeddings": LENGTH + 2} | large),
        "gpt2": ("GPT2", {"n_embd": HIDDEN, "n_layer": 2, "n_head": 4, "n_positions": LENGTH}),
        "llama": ("Llama", {"hidden_size": HIDDEN, "num_key_value_heads": 2} | large),
        "mistral": ("Mistral", {"hidden_size": HIDDEN, "num_key_value_heads": 2, "sliding_window": 16} | large),
        "modernbert": ("ModernBert", {"hidden_size": HIDDEN, "global_attn_every_n_layers": 2, **MODERN} | large),
        "mt5": ("MT5", relative),
        "qwen2": ("Qwen2", {"hidden_size": HIDDEN, "num_key_value_heads": 2} | large),
        "qwen3": ("Qwen3", {"hidden_size": HIDDEN, "num_key_value_heads": 2, "head_dim": 8} | large),
        "t5": ("T5", relative),
        "umt5": ("UMT5", relative),
    }[kind]
    settings = getattr(transformers, f"{family}Config")(**common | sizes | config)
    model = shake(getattr(transformers, f"{family}{head}")(settings))
    if head == "ForMaskedLM" and model.get_output_embeddings().bias is not None:
        model.get_output_embeddings().bias.data -= 1.5  # else nearly every term of the vocabulary has a weight
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
