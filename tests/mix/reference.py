"""What is right: each answer computed by a direct call of the engine, with no server and no batch."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from cluster.assembly import load_facts, load_tokenizer
from cluster.config import PoolhouseConfig
from cluster.engine import load_engine, load_vocabulary
from cluster.pairs import Pair
from cluster.pooling import cut_dimensions, normalize, pool_one
from cluster.rerank import max_sim, to_unit_interval
from cluster.texts import TextBatch, TextOptions
from cluster.types import Float32, PoolingType, RequestFacts, offsets_of

_COSINE = 0.9999
# Sums of products follow the shapes of the matrices, those of the fake engine's vectors as well.
_SCORE_TOLERANCE = 1e-5
_REAL_SCORE_TOLERANCE = 2e-3


class Reference:
    """The default model of a configuration, in this process.

    Attributes:
        exact: the fake engine's numbers do not depend on the batch; a real model's do.
        ranks: whether the model has a classification head.
    """

    def __init__(self, config: PoolhouseConfig) -> None:
        self.model = config.default_model_name
        encoder = next(encoder for encoder in config.encoders.values() if encoder.model == self.model)
        path, self.facts, _ = load_facts(config, self.model)
        self.exact = encoder.engine == "fake"
        self.ranks = PoolingType.RANK in self.facts.pooling_types
        self.vocabulary = load_vocabulary(path)
        self._engine = load_engine(encoder, path, self.facts, threads=1)
        self._tokenizer = load_tokenizer(config, [self.model])
        self._hidden = functools.cache(self._encode)

    @property
    def longest_tokens(self) -> int:
        """The longest sequence that the model takes."""
        return self._tokenizer.models[self.model].max_tokens

    def ids(self, text: str, prompt: str = "") -> tuple[int, ...]:
        """Token ids of a text, special ones included."""
        words = self.vocabulary.tokenize(prompt + text).tolist()
        return (*self.vocabulary.prefix, *words, *self.vocabulary.suffix)

    def rows(
        self, ids: tuple[int, ...], pooling: PoolingType, dimensions: int | None = None, p: float | None = None
    ) -> Float32:
        """The answer to one input, float32 ``[rows, dimensions]``."""
        pooled = pool_one(self._hidden(ids), pooling).reshape(-1, self.facts.dimensions)
        p = p if p is not None else -1.0 if pooling is PoolingType.NONE else 2.0
        return normalize(pooled, p) if dimensions is None else cut_dimensions(pooled, dimensions, p)

    def agree(self, got: Float32, wanted: Float32) -> bool:
        """Whether rows are those that are wanted: bit for bit, or by the cosine and the length of each."""
        if got.shape != wanted.shape:
            return False
        if self.exact:
            return np.array_equal(got, wanted)
        lengths = np.linalg.norm(got, axis=1), np.linalg.norm(wanted, axis=1)
        cosines = np.einsum("ij,ij->i", got, wanted) / (lengths[0] * lengths[1])
        return bool((cosines >= _COSINE).all() and np.allclose(*lengths, rtol=0.01))

    def agree_scores(self, got: Sequence[float], wanted: Float32, *, by_head: bool) -> bool:
        """Whether scores are those that are wanted; a head's are printed as the engine gives them."""
        numbers = np.asarray(got, dtype=np.float32)
        if self.exact and by_head:
            return np.array_equal(numbers, wanted)
        tolerance = _SCORE_TOLERANCE if self.exact else _REAL_SCORE_TOLERANCE
        return numbers.shape == wanted.shape and bool(np.allclose(numbers, wanted, atol=tolerance, rtol=tolerance))

    def pairs(self, query: str, documents: Sequence[str], *, unit_interval: bool) -> Float32:
        """The head's first output for each document, float32 ``[n]``."""
        options = TextOptions(PoolingType.RANK, pair=Pair(query))
        owner = [0] * len(documents)
        return self._outputs(TextBatch(self.model, list(documents), owner, [options], [_FACTS]), unit_interval)

    def text(self, text: str, *, unit_interval: bool) -> Float32:
        """The head's first output for one text, float32 ``[1]``."""
        texts = TextBatch(self.model, [text], [0], [TextOptions(PoolingType.RANK)], [_FACTS])
        return self._outputs(texts, unit_interval)

    def similarities(self, query: str, documents: Sequence[str], pooling: PoolingType) -> Float32:
        """Sums of the best cosines (MaxSim) where every token has a vector, else cosines: float32 ``[n]``."""
        rows = [self.rows(self.ids(document), pooling, p=-1.0) for document in documents]
        offsets = offsets_of([len(matrix) for matrix in rows])
        return max_sim(self.rows(self.ids(query), pooling, p=-1.0), np.concatenate(rows), offsets)

    def _outputs(self, texts: TextBatch, unit_interval: bool) -> Float32:
        tokens = self._tokenizer.tokenize(texts)
        assert not tokens.errors, tokens.errors
        outputs = [
            self._engine.score(
                tokens.ids(item), offsets_of([len(tokens.ids(item))]), tokens.second_segment[item : item + 1]
            )[0]
            for item in range(len(tokens))
        ]
        scores = np.asarray(outputs, dtype=np.float32)
        if unit_interval:
            scores, _ = to_unit_interval(scores, self.facts.score_type)
        return np.ascontiguousarray(scores[:, 0])

    def _encode(self, ids: tuple[int, ...]) -> Float32:
        return self._engine.encode(np.asarray(ids, dtype=np.int32), offsets_of([len(ids)]))


_FACTS = RequestFacts("reference")
