"""Limits of a Serve configuration that contradict each other: each would only show under load, or never and silently."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster.config import EncoderConfig, PoolhouseConfig, Strict, Wiring
from cluster.errors import ConfigError
from cluster.live import EncoderSettings, StageSettings, parse_settings
from cluster.types import Lane, ModelFacts, PoolingType
from deployments.transport import DEFAULT_GRPC_LIMIT_BYTES, GRPC_LIMIT, declared_limit_bytes, usable_bytes

STAGE_ONGOING = 64
"""``max_ongoing_requests`` of Tokenizer, Pooler and encoders where the YAML says nothing."""

Options = Mapping[str, Any]


def contradictions(
    document: Options,
    config: PoolhouseConfig,
    given: Mapping[str, Options],
    facts: Mapping[str, ModelFacts],
    folder: Path,
) -> list[str]:
    """Return a line for each, with both keys and what to do.

    Args:
        document: the whole file.
        given: its entries of ``deployments``, by name.
        facts: of the models that are on this machine.
        folder: where a ``serve.env`` may lie beside the file.
    """
    faults = _time_limits(document, config, given)
    faults += _scores(config)
    for name, options in given.items():
        faults += _settings(name, options) + _scaling(name, options)
    if config.wiring is Wiring.SPLIT:
        faults += _places(config, given)
        faults += _message_sizes(config, facts, grpc_limit_bytes(folder))
    return faults


def grpc_limit_bytes(folder: Path) -> int | None:
    """What one message between deployments may have, by the environment and, for what that leaves open, ``serve.env`` beside
    the file; None where messages do not go by gRPC.
    """
    variables: dict[str, str] = {}
    path = folder / "serve.env"
    if path.is_file():
        lines = (line.strip().partition("=") for line in path.read_text(encoding="utf-8").splitlines())
        variables = {name: value for name, _, value in lines if not name.startswith("#")}
    return declared_limit_bytes({**variables, **os.environ})


def replica_range(options: Options) -> tuple[int, int]:
    """Return the least and the most replicas of a deployment."""
    scaling = options.get("autoscaling_config")
    if scaling:
        return int(scaling.get("min_replicas", 1)), int(scaling.get("max_replicas", 1))
    replicas = options.get("num_replicas") or 1
    # Serve's "auto" is its own autoscaling with these bounds.
    return (1, 100) if replicas == "auto" else (int(replicas), int(replicas))


def _time_limits(document: Options, config: PoolhouseConfig, given: Mapping[str, Options]) -> list[str]:
    faults = []
    timeout_s = config.limits.timeout_s
    proxy_s = (document.get("http_options") or {}).get("request_timeout_s")
    if proxy_s is not None and proxy_s <= timeout_s:
        faults.append(
            f"http_options.request_timeout_s is {proxy_s:g} and limits.timeout_s {timeout_s:g}: the proxy would cut requests off "
            f"before Poolhouse answers them; raise the former above {timeout_s:g} or lower the latter"
        )
    drain_s = given.get("Ingress", {}).get("graceful_shutdown_timeout_s")
    if drain_s is not None and drain_s < timeout_s:
        faults.append(
            f"Ingress.graceful_shutdown_timeout_s is {drain_s:g} and limits.timeout_s {timeout_s:g}: a replica that is replaced "
            "would drop requests that still have time; raise the former"
        )
    return faults


def _scores(config: PoolhouseConfig) -> list[str]:
    faults = []
    for name, encoder in config.encoders.items():
        ranks = encoder.pooling is not None and PoolingType.RANK in encoder.pooling
        if not ranks or encoder.context_tokens is None or encoder.micro_batch_tokens is None:
            continue
        if encoder.context_tokens > encoder.micro_batch_tokens:
            faults.append(
                f"encoders.{name}: context_tokens is {encoder.context_tokens} and micro_batch_tokens "
                f"{encoder.micro_batch_tokens}: a pair is scored within one micro-batch, so longer ones could not be; "
                "make the two equal"
            )
    return faults


def _settings(name: str, options: Options) -> list[str]:
    kind: type[Strict] = EncoderSettings if name.startswith("Encoder-") else StageSettings
    try:
        parse_settings(kind, options.get("user_config"))
    except ConfigError as error:
        return [f"{name}.{error.message}"]
    return []


def _scaling(name: str, options: Options) -> list[str]:
    scaling = options.get("autoscaling_config") or {}
    faults = []
    interval_s, look_back_s = scaling.get("metrics_interval_s", 10.0), scaling.get("look_back_period_s", 30.0)
    if scaling and look_back_s <= interval_s:
        faults.append(
            f"{name}.autoscaling_config: look_back_period_s is {look_back_s:g} and metrics_interval_s {interval_s:g}: no report "
            "would fall into the period; raise the former"
        )
    function = str((scaling.get("policy") or {}).get("policy_function", ""))
    wanted = "TokenPolicy" if name.startswith("Encoder-") else "BusyPolicy"
    if function.startswith("deployments.autoscaling:") and not function.endswith(f":{wanted}"):
        faults.append(
            f"{name}.autoscaling_config.policy: {function} reads measures that {name} does not report, so it would never scale; "
            f"use deployments.autoscaling:{wanted}"
        )
    return faults


def _places(config: PoolhouseConfig, given: Mapping[str, Options]) -> list[str]:
    ingresses = replica_range(given.get("Ingress", {}))[1]
    each = config.batching.outstanding * len(Lane) * ingresses
    # The ingress keeps a queue for each model towards the Tokenizer, and two towards the Pooler with twice as many messages.
    needed = {"Tokenizer": each * len(config.models), "Pooler": 4 * each}
    # These are for the whole deployment, however few replicas it runs; an encoder's are for each slot of a replica.
    needed = {name: -(-messages // max(1, replica_range(given.get(name, {}))[0])) for name, messages in needed.items()}
    needed |= {f"Encoder-{name}": each * _slots(encoder) for name, encoder in config.encoders.items()}
    faults = []
    for name, messages in needed.items():
        places = given.get(name, {}).get("max_ongoing_requests", STAGE_ONGOING)
        if places < messages:
            faults.append(
                f"{name}.max_ongoing_requests is {places} and {ingresses} ingress replica(s) may have {messages} messages at one "
                f"of its replicas (batching.outstanding, two lanes, slots): the rest would wait where no lane goes first; raise "
                f"it to {messages}"
            )
    return faults


def _slots(encoder: EncoderConfig) -> int:
    """Of a replica; where the configuration leaves them to the machine, that machine may be any."""
    return encoder.slots_of(encoder.threads or 1, on_gpu=bool(encoder.gpu_layers))


def _message_sizes(config: PoolhouseConfig, facts: Mapping[str, ModelFacts], limit_bytes: int | None) -> list[str]:
    faults = []
    for name, encoder in config.encoders.items():
        known = facts.get(encoder.model)
        if known is None or limit_bytes is None:
            continue
        answered = encoder.pooling if encoder.pooling is not None else known.pooling_types
        size = config.batching.message_tokens * known.dimensions * 4
        if PoolingType.NONE in answered and size > usable_bytes(limit_bytes):
            faults.append(
                f"encoders.{name}: the token matrices of one message (batching.message_tokens {config.batching.message_tokens} × "
                f"{known.dimensions} dimensions × 4 bytes = {size}) are above seven eighths of {GRPC_LIMIT} ({limit_bytes}; "
                f"Ray's default is {DEFAULT_GRPC_LIMIT_BYTES}), so each would go in several; lower the one or raise the other in "
                "serve.env"
            )
    return faults
