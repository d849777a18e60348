"""Builds the stages that a configuration names. Each process calls for the ones that it hosts."""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Collection
from importlib.metadata import version
from pathlib import Path

import numpy as np

from cluster.batching.calibration import calibrated_sizes
from cluster.batching.encoder import Encoder
from cluster.batching.planning import MicroBatchSizes
from cluster.config import EncoderConfig, PoolhouseConfig
from cluster.engine import Engine, load_engine, load_vocabulary
from cluster.engine.fake import fake_facts
from cluster.errors import ModelLoadError
from cluster.models import resolve
from cluster.models.fingerprint import fingerprint, gguf_sha256
from cluster.models.inspect import inspect_gguf
from cluster.routing import encoder_pooling_types
from cluster.stages import ModelDescription
from cluster.tokenization import TextBatch, TextOptions, TokenizedModel, Tokenizer
from cluster.types import ModelFacts, PoolingType, RequestFacts

logger = logging.getLogger("poolhouse")

KNOWN_TEXT = "The capital of China is Beijing."


def load_facts(config: PoolhouseConfig, model: str) -> tuple[Path | None, ModelFacts, str]:
    """Return a model's file (None for the fake engine), its facts and its fingerprint."""
    model_config = config.models[model]
    if _engine_of(config, model) == "fake":
        return None, fake_facts(), fingerprint("fake", model_config)
    path = resolve(model_config)
    return path, inspect_gguf(path).facts(), fingerprint(gguf_sha256(path), model_config)


def load_tokenizer(config: PoolhouseConfig, names: Collection[str] | None = None) -> Tokenizer:
    """Load the vocabularies of the models named; None: of all."""
    models: dict[str, TokenizedModel] = {}
    for name, model_config in config.models.items():
        if names is not None and name not in names:
            continue
        path, facts, mark = load_facts(config, name)
        vocabulary = load_vocabulary(path)
        contexts = [
            encoder.context_tokens
            for encoder in config.encoders.values()
            if encoder.model == name and encoder.context_tokens is not None
        ]
        models[name] = TokenizedModel.create(
            name,
            model_config,
            facts,
            mark,
            vocabulary,
            context_tokens=min(contexts) if contexts else None,
        )
    return Tokenizer(models)


def describe(tokenizer: Tokenizer) -> dict[str, ModelDescription]:
    """Return what the ingress needs to know of each model."""
    return {
        name: ModelDescription(model.facts, model.fingerprint, model.max_tokens)
        for name, model in tokenizer.models.items()
    }


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
    self_test(config, encoder_config.model, encoder, pooling_types)
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
    device = f"{platform.machine()}-{os.cpu_count()}-{encoder.gpu_layers}-{encoder.flash_attention}-{encoder.headless}"
    key = (
        f"{gguf_sha256(path)} {device} threads={engine.threads} slots={engine.slots} "
        f"most={engine.max_micro_batch_tokens} llama-cpp-python={version('llama-cpp-python')}"
    )
    only_scores = set(pooling_types) == {PoolingType.RANK}
    return calibrated_sizes(engine, f"{key} scores={only_scores}", scores=only_scores, on_cpu=encoder.gpu_layers == 0)


def self_test(config: PoolhouseConfig, model: str, encoder: Encoder, pooling_types: tuple[PoolingType, ...]) -> None:
    """Encode a known text with every pooling type; the first call also pays llama.cpp's warm-up.

    Raises:
        ModelLoadError: a result is missing or not finite.
    """
    tokenizer = load_tokenizer(config, [model])
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
    for tokenized in tokenizer.models.values():
        tokenized.vocabulary.close()


def _engine_of(config: PoolhouseConfig, model: str) -> str:
    return next(encoder.engine for encoder in config.encoders.values() if encoder.model == model)
