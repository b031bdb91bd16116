"""Keys of sparse fields: indices in decimal digits, or the tokens of a vocabulary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from st_connectors._lucene.names import feature_key, feature_token
from st_connectors._lucene.vocabulary import Vocabulary
from st_connectors.store import Record
from st_core.vectors import MIN_WEIGHT, SparseVector

__all__ = ["DIGITS", "Keys", "Weights", "digit_keys", "weights_by_key"]

Weights: TypeAlias = SparseVector | Mapping[int, float] | Mapping[str, float]
"""A sparse vector, a mapping of indices to weights, or a mapping of tokens to weights for an index whose keys are
tokens."""


def digit_keys(vector: SparseVector) -> dict[str, float]:
    """Return a mapping of indices, written in decimal digits, to weights."""
    return {str(index): value for index, value in zip(vector.indices.tolist(), vector.values.tolist(), strict=True)}


def weights_by_key(weights: Weights) -> dict[str, float]:
    """Return a mapping of keys to weights; weights that are zero, negative or not finite are omitted."""
    if isinstance(weights, SparseVector):
        return digit_keys(weights)
    by_key = {str(token): float(weight) for token, weight in weights.items()}
    return {token: weight for token, weight in by_key.items() if MIN_WEIGHT <= weight < float("inf")}


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of a collection's sparse fields: digits, or the tokens of a vocabulary.

    ``features`` are the fields of type ``rank_features``, in which tokens are escaped because keys cannot contain dots.
    """

    vocabulary: Vocabulary | None = None
    features: frozenset[str] = field(default_factory=frozenset)

    def weights(self, name: str, vector: SparseVector) -> dict[str, float]:
        """Return the weights of a vector of field ``name`` by key; raise KeyError for an index without a token."""
        if self.vocabulary is None:
            return digit_keys(vector)
        token_of = self.vocabulary.tokens
        pairs = zip(vector.indices.tolist(), vector.values.tolist(), strict=True)
        if name in self.features:
            return {feature_key(token_of[index]): value for index, value in pairs}
        return {token_of[index]: value for index, value in pairs}

    def vector(self, name: str, weights: Mapping[str, float]) -> SparseVector | None:
        """Return the sparse vector for weights of field ``name`` by key; None if a key has no index."""
        vocabulary = self.vocabulary
        if vocabulary is None:
            unescaped = {feature_token(key): weight for key, weight in weights.items()}
            if not all(key.isdecimal() for key in unescaped):
                return None
            return SparseVector.from_mapping({int(key): weight for key, weight in unescaped.items()})
        by_token = {feature_token(key): weight for key, weight in weights.items()} if name in self.features else weights
        if not by_token.keys() <= vocabulary.indices.keys():
            return None
        return SparseVector.from_mapping({vocabulary.indices[token]: weight for token, weight in by_token.items()})

    def unknown_index(self, name: str, vector: SparseVector) -> str | None:
        """Return a sentence about the first index without a token; None if every index has a token."""
        if self.vocabulary is None:
            return None
        for index in vector.indices.tolist():
            if index not in self.vocabulary.tokens:
                return (
                    f"field {name!r} has index {index}, which the vocabulary in the address, "
                    f"of {len(self.vocabulary.tokens)} tokens, lacks: is it the vocabulary of the vector's model?"
                )
        return None

    def unknown_index_of(self, record: Record) -> str | None:
        """Return a sentence about the first index of a record without a token; None if every index has a token."""
        vectors = [(name, vector) for name, vector in record.vectors.items() if isinstance(vector, SparseVector)]
        return next(filter(None, (self.unknown_index(*each) for each in vectors)), None)


DIGITS = Keys()
"""The keys of collections without a vocabulary."""
