"""Checks a Serve configuration file before it runs: unknown keys, impossible routes, missing files, lacking resources."""

from __future__ import annotations

import os
import shutil
import types
import typing
import warnings
from collections.abc import Collection
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from ray.serve.schema import ServeDeploySchema

from cluster.api.keys import KeyRing
from cluster.config import EncoderConfig, PoolhouseConfig, Wiring, parse_config
from cluster.errors import ConfigError, PoolhouseError, nearest
from cluster.models import ModelReport, inspect_gguf, resolve, source_of
from cluster.models.body import is_served_headless
from cluster.models.inspect import estimate_memory_bytes
from cluster.routing import Router, encoder_pooling_types
from cluster.types import ModelFacts, PoolingType
from deployments.contradictions import contradictions
from deployments.sizing import sizing_lines

IMPORT_PATH = "deployments.app:build"


@dataclass(slots=True)
class Report:
    """What a check found.

    Attributes:
        faults: each names the key, the reason and what to do.
        notes: what could not be checked, and why.
        plan: lines that say what would run.
    """

    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    plan: list[str] = field(default_factory=list)


def check_file(path: Path, *, pull: bool = False) -> Report:
    """Check one YAML file.

    Args:
        pull: fetch the models that are not on this machine yet; otherwise they are noted and left unchecked.

    Raises:
        ConfigError: the file cannot be read as YAML at all.
    """
    report = Report()
    document = _load(path)
    faults = unknown_keys(document, ServeDeploySchema)
    report.faults += faults
    if not faults:
        try:
            with warnings.catch_warnings():
                # Serve says that this key will move to the environment; Ray 2.60 reads the variables that it names nowhere.
                warnings.filterwarnings("ignore", "The `metrics_interval_s` field", DeprecationWarning)
                ServeDeploySchema.model_validate(document)
        except ValidationError as error:
            report.faults += [
                f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}"
                for fault in error.errors(include_url=False)
            ]
    applications = document.get("applications") or []
    if not applications:
        report.faults.append("applications: there is none; add one with import_path: " + IMPORT_PATH)
    for application in applications:
        if isinstance(application, dict):
            _check_application(document, application, report, pull, path.parent)
    return report


def _load(path: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}; give the path of a YAML file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(document, dict):
        raise ConfigError(f"{path} is not a mapping; see configs/local.yaml for the form")
    return document


def unknown_keys(value: object, schema: type[BaseModel], where: str = "") -> list[str]:
    """Return a fault for every key that Serve's schema does not have; Serve itself passes them over in silence."""
    if not isinstance(value, dict):
        return []
    faults: list[str] = []
    for key, member in value.items():
        name = f"{where}{key}"
        if key not in schema.model_fields:
            valid = list(schema.model_fields)
            faults.append(
                f"{name}: unknown key{nearest(str(key), valid)}; Serve would ignore it. Valid here: {', '.join(valid)}"
            )
            continue
        for inner in _models_in(schema.model_fields[key].annotation):
            if isinstance(member, list):
                for index, item in enumerate(member):
                    faults += unknown_keys(item, inner, f"{name}[{index}].")
            else:
                faults += unknown_keys(member, inner, f"{name}.")
    return faults


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return [annotation] if issubclass(annotation, BaseModel) else []
    origin = typing.get_origin(annotation)
    if origin in (dict, None):
        return []
    found = [model for argument in typing.get_args(annotation) for model in _models_in(argument)]
    # A union of several models accepts the keys of each; only a single one can be checked strictly.
    return found if len(found) == 1 else []


def _check_application(
    document: dict[str, Any], application: dict[str, Any], report: Report, pull: bool, folder: Path
) -> None:
    name = application.get("name", "default")
    if application.get("import_path") != IMPORT_PATH:
        report.notes.append(
            f"application {name!r} is not Poolhouse's (import_path is not {IMPORT_PATH}); left unchecked"
        )
        return
    try:
        config = parse_config(application.get("args") or {})
    except ConfigError as error:
        report.faults.append(f"applications.{name}.args: {error.message}")
        return
    deployments = deployment_names(config)
    given = {str(entry.get("name")): entry for entry in application.get("deployments") or [] if isinstance(entry, dict)}
    for entry in given:
        if entry not in deployments:
            report.faults.append(
                f"applications.{name}.deployments: there is no deployment {entry!r}{nearest(entry, deployments)}; "
                f"the {config.wiring} wiring has: {', '.join(deployments)}"
            )
    report.plan.append(f"application {name}: {config.wiring} wiring, deployments: {', '.join(deployments)}")
    for entry, options in given.items():
        _check_resources(entry, options, report)
    _check_keys(config, report)
    facts, memory_bytes = _check_models(config, report, pull)
    report.plan += sizing_lines(deployments, given, memory_bytes, isolates=config.wiring is Wiring.SPLIT)
    report.faults += contradictions(document, config, given, facts, folder)


def _check_keys(config: PoolhouseConfig, report: Report) -> None:
    variable = config.api_keys.environment
    if variable is not None and variable not in os.environ:
        report.notes.append(
            f"api_keys.environment names the variable {variable}, which is not set here, so the keys are unchecked; "
            "the server does not start without it"
        )
        return
    try:
        keys = KeyRing.load(config.api_keys)
    except ConfigError as error:
        report.faults.append(error.message)
        return
    for key_id, model in keys.models:
        if model not in config.models:
            report.faults.append(
                f"api_keys: the key {key_id!r} may use {model!r}, which is not under models"
                f"{nearest(model, config.models)}; models has: {', '.join(config.models)}"
            )


def deployment_names(config: PoolhouseConfig) -> list[str]:
    """Return the names of the deployments that a configuration becomes."""
    if config.wiring is Wiring.FUSED:
        return ["Ingress"]
    return ["Ingress", "Tokenizer", "Pooler", *(f"Encoder-{name}" for name in config.encoders)]


def _check_resources(name: str, options: dict[str, Any], report: Report) -> None:
    asked = options.get("ray_actor_options") or {}
    gpus = asked.get("num_gpus") or 0
    # A cluster of machines has resources that this one does not show; only a lone machine can be judged here.
    if os.environ.get("RAY_ADDRESS"):
        return
    if gpus and shutil.which("nvidia-smi") is None:
        report.notes.append(
            f"{name} asks for {gpus} GPU and this machine has none: it starts only in a cluster that has; "
            "here, set ray_actor_options.num_gpus: 0"
        )
    cpus = len(os.sched_getaffinity(0))
    if asked.get("num_cpus", 1) > cpus and not gpus:
        report.faults.append(
            f"{name}.ray_actor_options.num_cpus is {asked['num_cpus']} and this machine has {cpus}; lower it"
        )


def _check_models(config: PoolhouseConfig, report: Report, pull: bool) -> tuple[dict[str, ModelFacts], dict[str, int]]:
    """Return the facts of the models that are here, and the memory of one replica of each deployment that loads them."""
    reports: dict[str, ModelReport] = {}
    for name, model in config.models.items():
        if all(encoder.engine == "fake" for encoder in config.encoders.values() if encoder.model == name):
            continue
        try:
            source = source_of(model)
            path = resolve(model) if pull or model.source.startswith((".", "/", "~")) else source.local_path()
            if path is None:
                report.notes.append(
                    f"models.{name}: {model.source} is not on this machine yet, so its routes are unchecked; "
                    "run with --pull to fetch it"
                )
                continue
            reports[name] = inspect_gguf(path)
        except PoolhouseError as error:
            report.faults.append(f"models.{name}.source: {error.message}")
    facts: dict[str, ModelFacts] = {name: found.facts() for name, found in reports.items()}
    memory_bytes: dict[str, int] = {}
    for name, encoder in config.encoders.items():
        if encoder.model not in facts:
            continue
        try:
            answered = encoder_pooling_types(config, name, facts[encoder.model])
        except ConfigError as error:
            report.faults.append(error.message)
            continue
        deployment = f"Encoder-{name}" if config.wiring is Wiring.SPLIT else "Ingress"
        memory = _memory_bytes(reports[encoder.model], encoder, answered)
        memory_bytes[deployment] = memory_bytes.get(deployment, 0) + memory
        child = " and as much again while it tries an input alone" if config.wiring is Wiring.SPLIT else ""
        report.plan.append(
            f"  encoder {name}: {encoder.model}, answers {', '.join(answered)}; "
            f"about {memory / 1e6:.0f} MB for each replica{child}"
        )
    if facts.keys() == config.models.keys() and not report.faults:
        try:
            routes = Router(config, facts).routes
        except ConfigError as error:
            report.faults.append(error.message)
            return facts, memory_bytes
        report.plan.append(f"  {len(routes)} routes: " + ", ".join(f"{model}/{pooling}" for model, pooling in routes))
    return facts, memory_bytes


def _memory_bytes(report: ModelReport, encoder: EncoderConfig, answered: Collection[PoolingType]) -> int:
    context_tokens = min(report.context_tokens, encoder.context_tokens or report.context_tokens)
    threads = encoder.threads or len(os.sched_getaffinity(0))
    slots = encoder.slots_of(threads, on_gpu=bool(encoder.gpu_layers))
    kinds = len({pooling is PoolingType.RANK for pooling in answered})
    return estimate_memory_bytes(
        report,
        context_tokens,
        encoder.most_micro_batch_tokens,
        contexts=slots * kinds,
        headless=encoder.headless == "auto" and is_served_headless(report.path, version("llama-cpp-python")),
    )
