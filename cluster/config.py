"""The YAML's ``args``: models, encoders, limits. Validated once, at the edge; unknown keys are errors.

Serve's own sections of the same file (``deployments``: resources, replicas, autoscaling) stay Serve's: they can be changed
on a running cluster, while a change of ``args`` restarts the application. ``deployments/check.py`` checks those.
"""

from __future__ import annotations

import enum
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cluster.errors import ConfigError, nearest
from cluster.types import PoolingType

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=128)]


class Strict(BaseModel):
    """Base of all configuration: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Wiring(enum.StrEnum):
    """How the stages are deployed."""

    FUSED = "fused"
    SPLIT = "split"


class Truncate(enum.StrEnum):
    """What happens to an input that is longer than the model takes."""

    NONE = "none"
    END = "end"
    START = "start"


class Activation(enum.StrEnum):
    """What is applied to the classification head's outputs."""

    NONE = "none"
    SIGMOID = "sigmoid"
    SOFTMAX = "softmax"


class TokenTypes(enum.StrEnum):
    """Which token type the second text of a BERT's pair gets."""

    ZERO = "zero"
    SEGMENTS = "segments"


class ModelConfig(Strict):
    """One model: where its GGUF comes from, and the facts of it that change vectors.

    Attributes:
        source: ``package:all-minilm-l6-v2``, ``hf://org/repo/file.gguf@revision`` or a path.
        sha256: refuse a file with another digest.
        quantisation: type of the converted tensors (packaged models only).
        aliases: further names that requests may use.
        default_pooling: where a request names none; otherwise the one the model was trained for.
        prompts: ``input_type`` or ``prompt_name`` → text set before the input.
        append_eos: add (or leave out) the end token; None follows the GGUF.
        parse_special: whether input text may spell special tokens.
        truncate: where a request does not say.
        dimensions: the Matryoshka dimensions that may be asked for; None allows any up to the model's.
        score_activation: applied to the head's outputs where the answer is to be in [0, 1]; None chooses by the graph.
        token_types: of a pair's second text, for cross-encoders: ``zero`` as llama.cpp has it, ``segments`` for 1 as BERT
            cross-encoders are usually trained; None: ``segments`` where the GGUF says so, as our own conversion does.
        max_tokens: cap on a sequence's length, below the model's own.
    """

    source: str
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    quantisation: Literal["f32", "f16", "q8_0"] = "f16"
    aliases: tuple[str, ...] = ()
    default_pooling: PoolingType | None = None
    prompts: dict[str, str] = Field(default_factory=dict)
    append_eos: bool | None = None
    parse_special: bool = False
    truncate: Truncate = Truncate.NONE
    dimensions: tuple[Annotated[int, Field(ge=1)], ...] | None = None
    score_activation: Activation | None = None
    token_types: TokenTypes | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None


class EncoderConfig(Strict):
    """One encoder deployment: a model's weights in a process, and the pooling types it answers.

    Attributes:
        model: name in ``models``.
        pooling: the pooling types that it answers; None: all that the model can.
        weight: its share of a route that several encoders answer.
        engine: ``llama``, or ``fake`` for tests of everything but numbers.
        micro_batch_tokens: tokens of one llama.cpp call; None: measured at the first start which size is fastest here.
        context_tokens: longest sequence; None: the model's.
        threads: CPU threads of one replica; None: the CPUs that the process may run on.
        slots: engine calls at once, each with its own context over the one set of weights; None: one for each thread on a
            CPU, one on a GPU.
        nice: how much nicer the engine's threads are than their process, 0 to 19 (Linux), so that those that carry requests run
            at once; None: 10 on a CPU, 0 on a GPU, which must not wait for its thread.
        gpu_layers: layers kept on the GPU, -1 for all; falls back to the CPU where there is none.
        flash_attention: ``auto`` leaves the choice to llama.cpp.
        headless: ``auto`` runs a body derived from the GGUF without its vocabulary's head, which gives the same numbers for
            less time and memory, and the GGUF itself where that cannot be proved; ``off`` always runs the GGUF itself.
        fake_seconds_per_token: cost of the fake engine.
        fake_poison_id: a token id that ends the process of the fake engine, as an input that llama.cpp aborts on would.
        fake_faults: token id → what it does to the fake engine: ``out_of_memory`` raises MemoryError, ``hang`` never comes back.
    """

    model: str
    pooling: tuple[PoolingType, ...] | None = None
    weight: Annotated[float, Field(gt=0)] = 1.0
    engine: Literal["llama", "fake"] = "llama"
    micro_batch_tokens: Annotated[int, Field(ge=1)] | None = None
    context_tokens: Annotated[int, Field(ge=1)] | None = None
    threads: Annotated[int, Field(ge=1)] | None = None
    slots: Annotated[int, Field(ge=1, le=64)] | None = None
    nice: Annotated[int, Field(ge=0, le=19)] | None = None
    gpu_layers: Annotated[int, Field(ge=-1)] = 0
    flash_attention: Literal["auto", "on", "off"] = "auto"
    headless: Literal["auto", "off"] = "auto"
    fake_seconds_per_token: Annotated[float, Field(ge=0)] = 0.0
    fake_poison_id: Annotated[int, Field(ge=0)] | None = None
    fake_faults: dict[Annotated[int, Field(ge=0)], Literal["out_of_memory", "hang"]] = {}

    def slots_of(self, threads: int, *, on_gpu: bool) -> int:
        """Return the slots of a replica with so many CPU threads."""
        if self.slots is not None or self.engine == "fake":
            return self.slots or 1
        # Threads of their own share no barrier: two slots of one thread encode more than one slot of two.
        return 1 if on_gpu else threads

    @property
    def thread_nice(self) -> int:
        """The nice value of the engine's threads."""
        return self.nice if self.nice is not None else 0 if self.gpu_layers else 10

    @property
    def most_micro_batch_tokens(self) -> int:
        """What an engine call must have room for: the configured size, or the largest that is measured."""
        if self.micro_batch_tokens is not None:
            return self.micro_batch_tokens
        return 4096 if self.gpu_layers else 512


class Limits(Strict):
    """Limits of one request, and of all that wait; None is no limit.

    Attributes:
        max_text_bytes: of one text, as UTF-8.
        max_answer_bytes: of one answer as it is printed, and of its numbers before they are cut or packed.
        transfer_timeout_s: for a body to come, and for an answer to go.
        least_bytes_per_s: that either must move in every ``stall_s``.
        stall_s: the time over which that is looked at; six times as long for answers.
        timeout_s: of a request that names none, and the most that one may name.
        max_queued_tokens: tokens that may wait for one encoder at one ingress, whatever their deadlines.
    """

    max_body_bytes: Annotated[int, Field(ge=1)] = 64 * 1024 * 1024
    max_text_bytes: Annotated[int, Field(ge=1)] = 12 * 1024 * 1024
    max_answer_bytes: Annotated[int, Field(ge=1)] = 256 * 1024 * 1024
    transfer_timeout_s: Annotated[float, Field(gt=0)] = 300.0
    least_bytes_per_s: Annotated[int, Field(ge=0)] = 8_192
    stall_s: Annotated[float, Field(gt=0)] = 10.0
    max_items: Annotated[int, Field(ge=1)] = 50_000
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    timeout_s: Annotated[float, Field(gt=0)] = 300.0
    max_queued_tokens: Annotated[int, Field(ge=1)] = 8_000_000

    def within(self, asked_s: float | None) -> float:
        """Return the time limit of a request that asks for ``asked_s``."""
        return min(asked_s or self.timeout_s, self.timeout_s)


class ApiKeysConfig(Strict):
    """Where API keys come from. Without either, no key is asked for.

    Attributes:
        file: YAML or JSON list of ``{id, sha256, models?, max_items?}``.
        environment: name of a variable that holds the same list, or ``id:key`` pairs separated by commas.
    """

    file: str | None = None
    environment: str | None = None


class TracingConfig(Strict):
    """OpenTelemetry traces; without an exporter there are none.

    Attributes:
        exporter: ``module:function`` that returns the list of span processors.
        sample_share: of the traces that begin here; a client's own decision goes before it.
    """

    exporter: str | None = None
    sample_share: Annotated[float, Field(ge=0, le=1)] = 1.0


class BatchingConfig(Strict):
    """Natural batching between stages.

    Attributes:
        message_tokens: cap on the tokens of one message to an encoder.
        message_items: cap on its items.
        ingress_characters: in the split wiring, texts of at most so many characters together are tokenized by the ingress
            itself, which keeps the vocabularies in memory for it; 0: all go to the Tokenizer.
        outstanding: messages in flight per encoder slot and lane; the rest coalesces meanwhile.
        bulk_items: a request with more items goes to the bulk lane, unless it says otherwise.
        bulk_tokens: the same by its tokens.
        shares: of the interactive and of the bulk lane where both wait.
        deduplicate: encode sequences that are equal, in one request or among those in flight, once.
        cache_bytes: keep the latest results in each ingress replica, at most so many bytes; 0 keeps none. With a cache,
            sequences are de-duplicated too.
    """

    message_tokens: Annotated[int, Field(ge=1)] = 8192
    message_items: Annotated[int, Field(ge=1)] = 1024
    ingress_characters: Annotated[int, Field(ge=0, le=65_536)] = 0
    outstanding: Annotated[int, Field(ge=1)] = 2
    bulk_items: Annotated[int, Field(ge=1)] = 8
    bulk_tokens: Annotated[int, Field(ge=1)] = 4096
    shares: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] = (4, 1)
    deduplicate: bool = True
    cache_bytes: Annotated[int, Field(ge=0)] = 0


class PoolhouseConfig(Strict):
    """The whole of ``args``."""

    wiring: Wiring = Wiring.FUSED
    default_model: str | None = None
    models: Annotated[dict[Name, ModelConfig], Field(min_length=1)]
    encoders: Annotated[dict[Name, EncoderConfig], Field(min_length=1)]
    limits: Limits = Limits()
    api_keys: ApiKeysConfig = ApiKeysConfig()
    batching: BatchingConfig = BatchingConfig()
    tracing: TracingConfig = TracingConfig()

    @model_validator(mode="after")
    def _names_agree(self) -> Self:
        for name, encoder in self.encoders.items():
            if encoder.model not in self.models:
                raise ValueError(
                    f"encoders.{name}.model is {encoder.model!r}, which is not under models"
                    f"{nearest(encoder.model, self.models)}; models has: {', '.join(self.models)}"
                )
            if encoder.engine != (first := next(e for e in self.encoders.values() if e.model == encoder.model)).engine:
                raise ValueError(
                    f"encoders.{name}.engine is {encoder.engine!r} and another encoder of the model {encoder.model!r} has "
                    f"{first.engine!r}; their vectors would not be the same, use one engine"
                )
        used = {encoder.model for encoder in self.encoders.values()}
        for name in self.models:
            if name not in used:
                raise ValueError(f"models.{name} is served by no encoder; add one under encoders or remove the model")
        if self.default_model is not None and self.default_model not in self.models:
            raise ValueError(
                f"default_model is {self.default_model!r}, which is not under models"
                f"{nearest(self.default_model, self.models)}; models has: {', '.join(self.models)}"
            )
        seen: dict[str, str] = {name: name for name in self.models}
        for name, model in self.models.items():
            for alias in model.aliases:
                if seen.setdefault(alias, name) != name:
                    raise ValueError(f"models.{name}.aliases: {alias!r} already names the model {seen[alias]!r}")
        return self

    @property
    def default_model_name(self) -> str:
        """The model of a request that names none: ``default_model``, else the first."""
        return self.default_model or next(iter(self.models))


def parse_config(args: object) -> PoolhouseConfig:
    """Validate ``args`` of the YAML.

    Raises:
        ConfigError: one line for each fault, each with the key, the reason and, for an unknown key, the nearest valid one.
    """
    try:
        return PoolhouseConfig.model_validate(args)
    except ValidationError as error:
        lines = [_fault(dict(fault), args) for fault in error.errors(include_url=False)]
        raise ConfigError("the configuration is not valid:\n" + "\n".join(f"  {line}" for line in lines)) from error


def _fault(fault: dict[str, Any], args: object) -> str:
    location = tuple(fault["loc"])
    key = ".".join(str(part) for part in location) or "args"
    if fault["type"] == "extra_forbidden":
        valid = _valid_keys(location[:-1])
        return f"{key}: unknown key{nearest(str(location[-1]), valid)}; valid here: {', '.join(sorted(valid))}"
    message = str(fault["msg"]).removeprefix("Value error, ")
    return message if fault["type"] == "value_error" else f"{key}: {message} (got {fault.get('input')!r:.80})"


def _valid_keys(location: tuple[int | str, ...]) -> list[str]:
    sections: dict[str, type[Strict]] = {
        "models": ModelConfig,
        "encoders": EncoderConfig,
        "limits": Limits,
        "api_keys": ApiKeysConfig,
        "batching": BatchingConfig,
        "tracing": TracingConfig,
    }
    section = sections.get(str(location[0]), PoolhouseConfig) if location else PoolhouseConfig
    return list(section.model_fields)
