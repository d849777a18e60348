"""What a GGUF says of itself, read without loading its weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf

from cluster.errors import ModelLoadError
from cluster.models.convert import SEGMENT_TYPES
from cluster.models.header import read_header
from cluster.types import ModelFacts, PoolingType, ScoreType

_TRAINED = {1: PoolingType.MEAN, 2: PoolingType.CLS, 3: PoolingType.LAST, 4: PoolingType.RANK, 0: PoolingType.NONE}
_NOT_CAUSAL = frozenset(
    {
        "bert",
        "distilbert",
        "eurobert",
        "gemma-embedding",
        "jina-bert-v2",
        "jina-bert-v3",
        "modern-bert",
        "neo-bert",
        "nomic-bert",
        "nomic-bert-moe",
    }
)
# Where llama.cpp's rank graph reads cls alone, cls.output alone is enough too.
_HEAD = ("cls.weight", "cls.output.weight")
_SOFTMAX_IN_GRAPH = frozenset({"qwen3", "qwen3vl"})


@dataclass(frozen=True, slots=True)
class ModelReport:
    """A GGUF's own account, as ``poolhouse models inspect`` prints it."""

    path: Path
    file_bytes: int
    architecture: str
    name: str
    dimensions: int
    layers: int
    heads: int
    key_value_heads: int
    head_dimensions: int
    context_tokens: int
    quantisation: str
    vocabulary_type: str
    vocabulary_size: int
    causal: bool
    trained_pooling: PoolingType | None
    head_tensors: tuple[str, ...]
    labels: tuple[str, ...]
    templates: dict[str, str] = field(default_factory=dict)
    adds_end_token: bool = False
    segment_types: bool = False

    def facts(self) -> ModelFacts:
        """Return what the stages need to know, with the pooling types that the model can honestly answer."""
        refused = self._refused()
        return ModelFacts(
            architecture=self.architecture,
            causal=self.causal,
            dimensions=self.dimensions,
            layers=self.layers,
            context_tokens=self.context_tokens,
            vocabulary_size=self.vocabulary_size,
            trained_pooling=self.trained_pooling,
            labels=self.labels or (("score",) if self.head_tensors else ()),
            score_type=self._score_type(),
            pooling_types=tuple(pooling for pooling in PoolingType if pooling not in refused),
            refused=refused,
            segment_types=self.segment_types,
        )

    def _score_type(self) -> ScoreType:
        """What llama.cpp's rank graph ends in (``llm_graph_context::build_pooling``)."""
        if self.architecture in _SOFTMAX_IN_GRAPH:
            return ScoreType.PROBABILITY
        dense_alone = self.head_tensors == ("cls.weight",) and self.architecture != "modern-bert"
        return ScoreType.TANH if dense_alone else ScoreType.LOGIT

    def _refused(self) -> dict[PoolingType, str]:
        refused: dict[PoolingType, str] = {}
        if not self.head_tensors:
            refused[PoolingType.RANK] = (
                "it was trained to rank, but its classification head was lost in conversion (no tensor cls or cls.output)"
                if self.trained_pooling is PoolingType.RANK
                else "it has no classification head (no tensor cls or cls.output)"
            )
        elif self.architecture == "bert" and "cls.weight" not in self.head_tensors:
            # XLM-R classifiers become the same architecture with both tensors, so one alone means a lost pooler.
            refused[PoolingType.RANK] = (
                "its pooler (dense + tanh) was dropped in conversion, so the head would score the wrong vector; "
                "convert it again with a converter that keeps the tensor cls"
            )
        if self.causal:
            refused[PoolingType.CLS] = (
                "it is causal: its first token sees no other, so cls would be the same for every text"
            )
        return refused


def inspect_gguf(path: Path) -> ModelReport:
    """Read a GGUF's metadata and the names of its tensors.

    Raises:
        ModelLoadError: there is no such file, it is no GGUF, or it lacks what every model has.
    """
    if not path.is_file():
        raise ModelLoadError(f"there is no file {path}; give the path of a GGUF file")
    header = read_header(path)
    read = header.metadata.get
    architecture = read("general.architecture")
    if not isinstance(architecture, str):
        raise ModelLoadError(f"{path} names no architecture; it is not a model")

    def of_model(key: str, default: Any = None) -> Any:
        return read(f"{architecture}.{key}", default)

    if of_model("embedding_length") is None or of_model("block_count") is None:
        raise ModelLoadError(f"{path} lacks {architecture}.embedding_length or block_count; it is not a text model")
    width = int(of_model("embedding_length"))
    pooling = of_model("pooling_type")
    heads = _largest(of_model("attention.head_count", 1))
    return ModelReport(
        path=path,
        file_bytes=path.stat().st_size,
        architecture=architecture,
        name=str(read("general.name", path.stem)),
        dimensions=int(of_model("embedding_length_out") or width),
        layers=int(of_model("block_count")),
        heads=heads,
        key_value_heads=_largest(of_model("attention.head_count_kv", heads)),
        head_dimensions=int(of_model("attention.key_length") or width // max(1, heads)),
        context_tokens=int(of_model("context_length", 512)),
        quantisation=_quantisation(read("general.file_type")),
        vocabulary_type=str(read("tokenizer.ggml.model", "none")),
        vocabulary_size=header.array_lengths.get("tokenizer.ggml.tokens") or int(of_model("vocab_size", 1)),
        causal=bool(of_model("attention.causal", architecture not in _NOT_CAUSAL)),
        trained_pooling=_TRAINED.get(int(pooling)) if pooling is not None else None,
        head_tensors=tuple(name for name in _HEAD if name in header.tensors),
        labels=tuple(of_model("classifier.output_labels", ())),
        templates=_templates(header.metadata),
        adds_end_token=bool(read("tokenizer.ggml.add_eos_token", False)),
        segment_types=bool(read(SEGMENT_TYPES, False)),
    )


def weight_types(path: Path) -> str:
    """Return the types of a GGUF's matrices in the order of their names: ``f16``, ``f32+q8_0``.

    Raises:
        ModelLoadError: there is no such file, or it is no GGUF.
    """
    tensors = read_header(path).tensors.values()
    return "+".join(sorted({entry.kind.name.lower() for entry in tensors if len(entry.shape) > 1}))


def _largest(per_model_or_layer: Any) -> int:
    return int(max(per_model_or_layer) if isinstance(per_model_or_layer, list) else per_model_or_layer)


def _quantisation(file_type: Any) -> str:
    try:
        name: str = gguf.LlamaFileType(int(file_type)).name
    except (TypeError, ValueError):
        return "unknown"
    return name.removeprefix("MOSTLY_").removeprefix("ALL_").lower()


def _templates(metadata: dict[str, Any]) -> dict[str, str]:
    prefix = "tokenizer.chat_template"
    return {
        key.removeprefix(prefix).removeprefix(".") or "default": str(value)
        for key, value in metadata.items()
        if key.startswith(prefix) and key != f"{prefix}s"
    }


def estimate_memory_bytes(
    report: ModelReport,
    context_tokens: int,
    micro_batch_tokens: int,
    contexts: int = 1,
    *,
    headless: bool = False,
) -> int:
    """Estimate what an encoder's process takes.

    The file, of which a headless encoder maps the token table's rows as they are met; for each context the logits that
    llama.cpp reserves (vocabulary × tokens × 4 bytes; none to speak of where headless), attention scores and activations of
    one micro-batch, and for a causal model the KV cache in f16; and 125 MB for Python, Ray Serve and the library.
    """
    tokens = micro_batch_tokens if report.causal else max(micro_batch_tokens, context_tokens)
    logits = (1 if headless else report.vocabulary_size) * tokens * 4
    attention = 2 * report.heads * tokens * tokens * 4
    activations = 12 * report.dimensions * tokens * 4
    row = report.key_value_heads * report.head_dimensions
    kv_cache = 2 * report.layers * row * context_tokens * 2 if report.causal else 0
    return report.file_bytes + contexts * (logits + attention + activations + kv_cache) + 125_000_000
