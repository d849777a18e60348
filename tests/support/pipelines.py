"""Pipelines over the fake engine in this process, wired as the fused wiring wires them, without Ray."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import httpx
import numpy as np

from cluster.api.application import create_application
from cluster.batching.encoder import Encoder
from cluster.config import PoolhouseConfig, parse_config
from cluster.engine.fake import FakeEngine, FakeVocabulary
from cluster.fused import FusedStages, fused_stages
from cluster.pipeline import Pipeline
from cluster.pooling import normalize, pool_one
from cluster.types import Float32, Int32, PoolingType, offsets_of

MODEL = "fake"
SHORT_MODEL = "short"
SHORT_MODEL_TOKENS = 16
DIMENSIONS = 16
VOCABULARY_SIZE = FakeVocabulary.size


@dataclass(slots=True)
class LocalPipeline:
    """A pipeline whose stages all live in this process."""

    pipeline: Pipeline
    encoders: dict[str, Encoder]
    check_ready: Callable[[], Awaitable[None]]
    stages: FusedStages


def fake_config(**sections: Any) -> PoolhouseConfig:
    """Return two fake models: ``fake`` answers everything, ``short`` takes 16 tokens and answers mean and cls only.

    Args:
        sections: further top-level sections (``limits``, ``api_keys``), or other ``models`` and ``encoders``.
    """
    args: dict[str, Any] = {
        "models": {
            MODEL: {
                "source": "fake",
                "aliases": ["text-embedding-3-small"],
                "prompts": {"query": "query: ", "document": "passage: "},
            },
            SHORT_MODEL: {"source": "fake", "max_tokens": SHORT_MODEL_TOKENS, "dimensions": [4, 8]},
        },
        "encoders": {
            "wide": {"model": MODEL, "engine": "fake", "micro_batch_tokens": 64},
            "narrow": {"model": SHORT_MODEL, "engine": "fake", "pooling": ["mean", "cls"]},
        },
        **sections,
    }
    return parse_config(args)


@contextmanager
def local_pipeline(config: PoolhouseConfig, **replaced: Any) -> Iterator[LocalPipeline]:
    """Load all stages into this process and close them afterwards.

    Args:
        replaced: senders to use in place of the real ones, by the names of ``Senders``' fields.
    """
    with fused_stages(config) as stages:
        pipeline = Pipeline(config, stages.descriptions, replace(stages.senders, **replaced))
        yield LocalPipeline(pipeline, stages.encoders, stages.check_ready, stages)


def http_client(
    local: LocalPipeline, check_ready: Callable[[], Awaitable[None]] | None = None, **options: Any
) -> httpx.AsyncClient:
    """Return a client that calls the application in this process, without a socket."""
    application = create_application(local.pipeline, check_ready or local.check_ready)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=application), base_url="http://poolhouse", **options)


def ids_of(text: str) -> Int32:
    """The ids that the fake model makes of a text, special tokens included, int32 ``[n]``."""
    vocabulary = FakeVocabulary()
    parts = (vocabulary.prefix, vocabulary.tokenize(text), vocabulary.suffix)
    return np.concatenate([np.asarray(part, dtype=np.int32) for part in parts])


def expected_rows(item: str | Sequence[int], pooling: PoolingType, p: float | None = None) -> Float32:
    """Encode one text, or ids as they are, straight with the fake engine, float32 ``[rows, dimensions]``.

    Args:
        p: ``embd_normalize``; by default 2 for a vector, -1 for a token matrix.
    """
    ids = ids_of(item) if isinstance(item, str) else np.asarray(item, dtype=np.int32)
    rows = pool_one(FakeEngine().encode(ids, offsets_of([len(ids)])), pooling)
    default = -1.0 if pooling is PoolingType.NONE else 2.0
    return normalize(rows.reshape(-1, DIMENSIONS), default if p is None else p)
