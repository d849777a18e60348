"""Builds the stages that a configuration names. Each process calls for the ones that it hosts."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from cluster.batching.calibration import calibrated_sizes
from cluster.batching.encoder import Encoder
from cluster.batching.planning import MicroBatchSizes
from cluster.config import EncoderConfig, PoolhouseConfig
from cluster.engine import Engine, Vocabulary, load_engine, load_vocabulary
from cluster.engine.fake import fake_facts
from cluster.errors import ModelLoadError, PoolhouseError
from cluster.golden import check_golden
from cluster.models import resolve
from cluster.models.fingerprint import fingerprint, gguf_sha256
from cluster.models.inspect import inspect_gguf, weight_types
from cluster.models.vocabulary_file import vocabulary_of
from cluster.pairs import Pair
from cluster.routing import encoder_pooling_types
from cluster.texts import TextBatch, TextOptions
from cluster.tokenization import TokenizedModel, Tokenizer
from cluster.types import ModelDescription, ModelFacts, PoolingType, RequestFacts

logger = logging.getLogger("poolhouse")

KNOWN_TEXT = "The capital of China is Beijing."


def load_facts(config: PoolhouseConfig, model: str) -> tuple[Path | None, ModelFacts, str]:
    """Return a model's file (None for the fake engine), its facts and its fingerprint."""
    model_config = config.models[model]
    engine = _engine_of(config, model)
    if engine == "fake":
        return None, fake_facts(), fingerprint("fake", model_config, engine=engine)
    path = resolve(model_config)
    mark = fingerprint(gguf_sha256(path), model_config, weights=weight_types(path), engine=engine)
    return path, inspect_gguf(path).facts(), mark


def load_tokenizer(config: PoolhouseConfig, names: Collection[str] | None = None) -> Tokenizer:
    """Load the vocabularies of the models named; None: of all."""
    models: dict[str, TokenizedModel] = {}
    for name in config.models if names is None else names:
        path, facts, mark = load_facts(config, name)
        models[name] = _tokenized(config, name, facts, mark, load_vocabulary(path))
    return Tokenizer(models)


def vocabularies(config: PoolhouseConfig) -> dict[str, bytes | None]:
    """Return each model's vocabulary as a file's content; None for the fake engine's."""
    return {
        name: None if _engine_of(config, name) == "fake" else vocabulary_of(resolve(model))
        for name, model in config.models.items()
    }


def rebuild_tokenizer(
    config: PoolhouseConfig, descriptions: Mapping[str, ModelDescription], files: Mapping[str, bytes | None]
) -> Tokenizer:
    """Build the Tokenizer stage where no model file is, from what another process has ``described`` and sent of its own.

    Raises:
        ModelLoadError: a vocabulary does not load.
        OSError: there is no room for a temporary file.
    """
    models: dict[str, TokenizedModel] = {}
    for name, description in descriptions.items():
        content = files[name]
        if content is None:
            vocabulary = load_vocabulary(None)
        else:
            with tempfile.NamedTemporaryFile(suffix=".gguf") as file:
                file.write(content)
                file.flush()
                vocabulary = load_vocabulary(Path(file.name))
        models[name] = _tokenized(config, name, description.facts, description.fingerprint, vocabulary)
    return Tokenizer(models)


def _tokenized(
    config: PoolhouseConfig, name: str, facts: ModelFacts, mark: str, vocabulary: Vocabulary
) -> TokenizedModel:
    contexts = {
        f"encoders.{key}.context_tokens": encoder.context_tokens
        for key, encoder in config.encoders.items()
        if encoder.model == name and encoder.context_tokens is not None
    }
    if not contexts:
        return TokenizedModel.create(name, config.models[name], facts, mark, vocabulary)
    key, tokens = min(contexts.items(), key=lambda item: item[1])
    return TokenizedModel.create(name, config.models[name], facts, mark, vocabulary, tokens, key)


def describe(tokenizer: Tokenizer) -> dict[str, ModelDescription]:
    """Return what the ingress needs to know of each model."""
    return {
        name: ModelDescription(
            model.facts,
            model.fingerprint,
            model.max_tokens,
            special_tokens=len(model.vocabulary.prefix) + len(model.suffix),
            pair_tokens=_pair_tokens(model),
        )
        for name, model in tokenizer.models.items()
    }


def _pair_tokens(model: TokenizedModel) -> int:
    try:
        return len(model.pair_format.begin(Pair("")).end("").ids)
    except PoolhouseError:
        # Not even an empty pair has room: no pair will be encoded.
        return 0


def load_encoder(config: PoolhouseConfig, name: str) -> Encoder:
    """Load one encoder and prove that it encodes.

    Raises:
        ConfigError: it is to answer a pooling type that its model cannot.
        ModelLoadError: the model does not load, or encodes a known text to something that is no vector.
    """
    encoder_config = config.encoders[name]
    path, facts, mark = load_facts(config, encoder_config.model)
    pooling_types = encoder_pooling_types(config, name, facts)
    if encoder_config.threads is None:
        encoder_config = encoder_config.model_copy(update={"threads": len(os.sched_getaffinity(0))})
    token_types = config.models[encoder_config.model].token_types
    engine = load_engine(encoder_config, path, facts, pooling_types, token_types=token_types)
    sizes = _micro_batch_sizes(encoder_config, engine, path, pooling_types)
    encoder = Encoder(engine, mark, sizes, config.batching.shares, encoder_config.thread_nice)
    tokenizer = load_tokenizer(config, [encoder_config.model])
    self_test(tokenizer, encoder_config.model, encoder, pooling_types)
    if path is not None:
        # The fake engine's numbers are made up: nothing is stored that could go stale.
        check_golden(name, encoder, tokenizer, encoder_config.model, pooling_types)
    tokenizer.models[encoder_config.model].vocabulary.close()
    return encoder


def _micro_batch_sizes(
    encoder: EncoderConfig, engine: Engine, path: Path | None, pooling_types: tuple[PoolingType, ...]
) -> int | MicroBatchSizes:
    if encoder.micro_batch_tokens is not None:
        return encoder.micro_batch_tokens
    if path is None:
        cost_s = encoder.fake_seconds_per_token
        tokens = min(encoder.most_micro_batch_tokens, engine.max_micro_batch_tokens)
        return MicroBatchSizes(((tokens, engine.slots / cost_s if cost_s else 0.0),))
    only_scores = set(pooling_types) == {PoolingType.RANK}
    key = f"{speed_key(gguf_sha256(path), encoder, engine)} scores={only_scores}"
    return calibrated_sizes(engine, key, scores=only_scores, on_cpu=encoder.gpu_layers == 0)


def speed_key(sha256: str, encoder: EncoderConfig, engine: Engine) -> str:
    """Name all that an engine's speed depends on: machines of several kinds may share one cache directory."""
    return (
        f"{sha256} {engine.build} [{engine.device}] cpus={os.cpu_count()} gpu_layers={encoder.gpu_layers} "
        f"flash_attention={encoder.flash_attention} headless={encoder.headless} threads={engine.threads} "
        f"slots={engine.slots} most={engine.max_micro_batch_tokens}"
    )


def self_test(tokenizer: Tokenizer, model: str, encoder: Encoder, pooling_types: tuple[PoolingType, ...]) -> None:
    """Encode a known text with every pooling type; the first call also pays llama.cpp's warm-up.

    Raises:
        ModelLoadError: a result is missing or not finite.
    """
    for pooling in pooling_types:
        texts = TextBatch(model, [KNOWN_TEXT], [0], [TextOptions(pooling)], [RequestFacts("self-test")])
        result = encoder.submit(tokenizer.tokenize(texts)).result()
        if result.errors:
            raise ModelLoadError(f"the model {model!r} failed its self-test with {pooling}: {result.errors[0].message}")
        values = result.rows(0)
        if not np.isfinite(values).all() or (pooling is not PoolingType.RANK and not values.any()):
            raise ModelLoadError(
                f"the model {model!r} encodes a known text to values that are not finite or all zero ({pooling}); "
                "the file may be damaged, or its weights overflow in this quantisation"
            )


def _engine_of(config: PoolhouseConfig, model: str) -> str:
    return next(encoder.engine for encoder in config.encoders.values() if encoder.model == model)
