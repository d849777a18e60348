"""Models of a few kilobytes: a BERT in the Hugging Face layout, and bare GGUFs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

WIDTH, INNER, LAYERS, POSITIONS = 32, 64, 2, 24
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "capital", "##s", "of", "china", "東")
VOCABULARY_SIZE = len(WORDS) + 3
CONFIG: dict[str, Any] = {
    "model_type": "bert",
    "hidden_size": WIDTH,
    "intermediate_size": INNER,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "max_position_embeddings": POSITIONS,
    "type_vocab_size": 2,
    "vocab_size": VOCABULARY_SIZE,
    "layer_norm_eps": 1e-12,
}


def bert_tensors(labels: int = 0, *, pooler: bool = True, prefix: str = "") -> dict[str, NDArray[np.float32]]:
    """Random tensors under the names that Hugging Face gives them; ``labels`` is the width of the classifier."""
    random = np.random.default_rng(7)
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (VOCABULARY_SIZE, WIDTH),
        "embeddings.position_embeddings.weight": (POSITIONS, WIDTH),
        "embeddings.token_type_embeddings.weight": (2, WIDTH),
        "embeddings.LayerNorm.weight": (WIDTH,),
        "embeddings.LayerNorm.bias": (WIDTH,),
    }
    for layer in range(LAYERS):
        stem = f"encoder.layer.{layer}"
        for name, rows, columns in (
            ("attention.self.query", WIDTH, WIDTH),
            ("attention.self.key", WIDTH, WIDTH),
            ("attention.self.value", WIDTH, WIDTH),
            ("attention.output.dense", WIDTH, WIDTH),
            ("intermediate.dense", INNER, WIDTH),
            ("output.dense", WIDTH, INNER),
        ):
            shapes[f"{stem}.{name}.weight"] = (rows, columns)
            shapes[f"{stem}.{name}.bias"] = (rows,)
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes[f"{stem}.{name}.weight"] = (WIDTH,)
            shapes[f"{stem}.{name}.bias"] = (WIDTH,)
    if pooler:
        shapes |= {"pooler.dense.weight": (WIDTH, WIDTH), "pooler.dense.bias": (WIDTH,)}
    tensors = {f"{prefix}{name}": random.normal(0, 0.05, shape).astype(np.float32) for name, shape in shapes.items()}
    if labels:
        tensors["classifier.weight"] = random.normal(0, 0.05, (labels, WIDTH)).astype(np.float32)
        tensors["classifier.bias"] = random.normal(0, 0.05, labels).astype(np.float32)
    return tensors


def write_bert(
    folder: Path,
    *,
    tensors: Mapping[str, NDArray[Any]] | None = None,
    pooling: Mapping[str, bool] | None = None,
    lowercase: bool = True,
    **config: Any,
) -> dict[str, NDArray[Any]]:
    """Write the folder and return its tensors; ``config`` changes keys of config.json, None removes one."""
    folder.mkdir(parents=True, exist_ok=True)
    written = dict(bert_tensors() if tensors is None else tensors)
    save_file(written, folder / "model.safetensors")
    whole = {key: value for key, value in (CONFIG | config).items() if value is not None}
    (folder / "config.json").write_text(json.dumps(whole), encoding="utf-8")
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": lowercase}), encoding="utf-8")
    if pooling is not None:
        (folder / "1_Pooling").mkdir(exist_ok=True)
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(dict(pooling)), encoding="utf-8")
    return written


def write_gguf(
    path: Path,
    architecture: str = "bert",
    *,
    keys: Mapping[str, Any] | None = None,
    tensors: Iterable[str] = (),
    tokens: int = 5,
) -> Path:
    """Write a GGUF without a real graph.

    ``keys`` are metadata: those that begin with ``general.`` or ``tokenizer.`` as they stand, others under the
    architecture's name. None leaves out a key that would be written otherwise.
    """
    writer = gguf.GGUFWriter(path, architecture)
    usual = {"embedding_length": 64, "block_count": 2, "context_length": 512, "attention.head_count": 4}
    for key, value in (usual | dict(keys or {})).items():
        if value is None:
            continue
        whole = key if key.startswith(("general.", "tokenizer.")) else f"{architecture}.{key}"
        if isinstance(value, bool):
            writer.add_bool(whole, value)
        elif isinstance(value, int):
            writer.add_uint32(whole, value)
        elif isinstance(value, str):
            writer.add_string(whole, value)
        else:
            writer.add_array(whole, list(value))
    if tokens:
        writer.add_tokenizer_model("bert")
        writer.add_token_list([f"token{number}" for number in range(tokens)])
        writer.add_token_scores([0.0] * tokens)
    for name in (*tensors, "token_embd.weight"):
        writer.add_tensor(name, np.ones((2, 64), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
