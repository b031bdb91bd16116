"""The keys of sparse fields: indices as digits, or the tokens of a vocabulary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from st_connectors._lucene.names import feature_key, feature_token
from st_connectors._lucene.vocabulary import Vocabulary
from st_connectors.store import Record
from st_core.vectors import MIN_WEIGHT, SparseVector

__all__ = ["DIGITS", "Keys", "Weights", "sparse_keys", "tokens"]

Weights: TypeAlias = SparseVector | Mapping[int, float] | Mapping[str, float]
"""A sparse vector, or weights by index, or by token for an index whose keys are tokens."""


def sparse_keys(vector: SparseVector) -> dict[str, float]:
    """A sparse vector with its indices as keys: digits have no dots and nothing to fold."""
    return {str(index): value for index, value in zip(vector.indices.tolist(), vector.values.tolist(), strict=True)}


def tokens(weights: Weights) -> dict[str, float]:
    """Weights by key; those that are zero, negative or not finite are left out."""
    if isinstance(weights, SparseVector):
        return sparse_keys(weights)
    kept = {str(token): float(weight) for token, weight in weights.items()}
    return {token: weight for token, weight in kept.items() if MIN_WEIGHT <= weight < float("inf")}


@dataclass(frozen=True, slots=True)
class Keys:
    """How the keys of a collection's sparse fields are written: as digits, or with a vocabulary as its tokens.

    In the fields ``features``, of type ``rank_features``, tokens are escaped, as those take no dots.
    """

    vocabulary: Vocabulary | None = None
    features: frozenset[str] = field(default_factory=frozenset)

    def weights(self, name: str, vector: SparseVector) -> dict[str, float]:
        """A sparse vector as the field holds it; raises KeyError for an index that the vocabulary lacks."""
        if self.vocabulary is None:
            return sparse_keys(vector)
        token_of = self.vocabulary.tokens
        held = zip(vector.indices.tolist(), vector.values.tolist(), strict=True)
        if name in self.features:
            return {feature_key(token_of[index]): value for index, value in held}
        return {token_of[index]: value for index, value in held}

    def vector(self, name: str, weights: Mapping[str, float]) -> SparseVector | None:
        """The sparse vector that a field holds; None where one of its keys stands for no index."""
        vocabulary = self.vocabulary
        if vocabulary is None:
            held = {feature_token(key): weight for key, weight in weights.items()}
            known = all(key.isdecimal() for key in held)
            return SparseVector.from_mapping({int(key): weight for key, weight in held.items()}) if known else None
        named = {feature_token(key): weight for key, weight in weights.items()} if name in self.features else weights
        if not named.keys() <= vocabulary.indices.keys():
            return None
        return SparseVector.from_mapping({vocabulary.indices[token]: weight for token, weight in named.items()})

    def unknown(self, name: str, vector: SparseVector) -> str | None:
        """Which index the vocabulary lacks, in a sentence; None where it has all."""
        if self.vocabulary is None:
            return None
        for index in vector.indices.tolist():
            if index not in self.vocabulary.tokens:
                return (
                    f"field {name!r} has index {index}, which the vocabulary in the address, of {len(self.vocabulary.tokens)} tokens, lacks: "
                    "does it belong to the model that made the vector?"
                )
        return None

    def unknown_in(self, record: Record) -> str | None:
        """Which index of a record's sparse vectors the vocabulary lacks, in a sentence; None where it has all."""
        sparse = [(name, each) for name, each in record.vectors.items() if isinstance(each, SparseVector)]
        return next(filter(None, (self.unknown(*each) for each in sparse)), None)


DIGITS = Keys()
"""Indices as they are."""
