"""Hidden states from an engine in this process: no Ray, no server."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Self

import numpy as np

from cluster.batching.planning import plan_micro_batches
from cluster.config import EncoderConfig, ModelConfig, Truncate
from cluster.engine import Engine, load_engine, load_vocabulary
from cluster.engine.fake import FakeEngine, FakeVocabulary, fake_facts
from cluster.evaluation.sources import SourceFacts, Token
from cluster.models import inspect_gguf, resolve
from cluster.texts import TextOptions
from cluster.tokenization import TokenizedModel, sequence_of
from cluster.types import Float32, Int32, PoolingType, offsets_of

_WINDOW_MICRO_BATCHES = 8


class LocalModel:
    """See ``cluster.evaluation.sources.HiddenStateSource``. Not thread-safe.

    Texts that are longer than the model takes are cut at their end; ``cut_tokens`` says how much.
    """

    def __init__(self, model: TokenizedModel, engine: Engine, micro_batch_tokens: int = 256) -> None:
        self._model = model
        self._engine = engine
        self._micro_batch_tokens = min(micro_batch_tokens, engine.max_micro_batch_tokens)
        self._options = TextOptions(PoolingType.NONE, Truncate.END, parse_special=model.config.parse_special)
        self.cut_tokens = 0

    @classmethod
    def load(cls, config: ModelConfig, *, micro_batch_tokens: int = 256, threads: int | None = None) -> Self:
        """Load the model that ``config.source`` names: a path, ``hf://…`` or ``package:…``.

        Raises:
            ModelLoadError: it cannot be had or does not load.
        """
        path = resolve(config)
        facts = inspect_gguf(path).facts()
        encoder = EncoderConfig(
            model="model",
            micro_batch_tokens=micro_batch_tokens,
            context_tokens=config.max_tokens,
            threads=threads or len(os.sched_getaffinity(0)),
        )
        model = TokenizedModel.create(config.source, config, facts, "", load_vocabulary(path))
        return cls(model, load_engine(encoder, path, facts), micro_batch_tokens)

    @classmethod
    def fake(cls, micro_batch_tokens: int = 256) -> Self:
        """Return a model without weights, for tests of everything but numbers."""
        facts = fake_facts()
        model = TokenizedModel.create("fake", ModelConfig(source="fake"), facts, "", FakeVocabulary())
        return cls(model, FakeEngine(facts), micro_batch_tokens)

    @property
    def facts(self) -> SourceFacts:
        """What the GGUF says of the model."""
        facts = self._model.facts
        return SourceFacts(
            name=self._model.name,
            architecture=facts.architecture,
            pooling_types=facts.pooling_types,
            refused=facts.refused,
            trained_pooling=facts.trained_pooling,
            causal=facts.causal,
            ends_with_token=bool(self._model.suffix),
        )

    def hidden_states(self, texts: Sequence[str]) -> Iterator[Float32]:
        """Yield float32 ``[n_tokens, dimensions]`` for each text, in order.

        At most 8 micro-batches' hidden states are in memory at a time.
        """
        window: list[Int32] = []
        tokens = 0
        for text in texts:
            ids, cut = sequence_of(self._model, text, self._options)
            self.cut_tokens += cut
            window.append(ids)
            tokens += len(ids)
            if tokens >= _WINDOW_MICRO_BATCHES * self._micro_batch_tokens:
                yield from self._encode(window)
                window, tokens = [], 0
        if window:
            yield from self._encode(window)

    def tokens(self, text: str) -> list[Token]:
        """Return the tokens of a text, special ones included, cut as for ``hidden_states``."""
        vocabulary = self._model.vocabulary
        ids = sequence_of(self._model, text, self._options)[0].tolist()
        last_content = len(ids) - len(self._model.suffix)
        return [
            Token(
                token_id,
                vocabulary.piece(token_id).decode("utf-8", "replace"),
                not len(vocabulary.prefix) <= position < last_content,
            )
            for position, token_id in enumerate(ids)
        ]

    def close(self) -> None:
        """Free the weights and the vocabulary."""
        self._engine.close()
        self._model.vocabulary.close()

    def _encode(self, window: Sequence[Int32]) -> list[Float32]:
        lengths = np.asarray([len(ids) for ids in window], dtype=np.int64)
        encoded: dict[int, Float32] = {}
        for micro_batch in plan_micro_batches(lengths, self._micro_batch_tokens, self._engine.max_sequences):
            offsets = offsets_of(lengths[micro_batch])
            hidden = self._engine.encode(np.concatenate([window[item] for item in micro_batch]), offsets)
            for position, item in enumerate(micro_batch):
                encoded[item] = hidden[offsets[position] : offsets[position + 1]]
        return [encoded[item] for item in range(len(window))]
