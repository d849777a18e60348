"""A BERT of the Hugging Face layout (``model.safetensors`` + ``vocab.txt``) → GGUF.

Names of tensors come from the ``gguf`` library's map, metadata keys are those that llama.cpp reads. Unlike llama.cpp's own
converter this one keeps the pooler (dense + tanh) of a cross-encoder, without which its scores are wrong.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from cluster.errors import ModelLoadError
from cluster.models.progress import progress
from cluster.types import PoolingType

SEGMENT_TYPES = "poolhouse.segment_types"
"""GGUF key of our own: the second text of a pair was trained with token type 1."""

_FILE_TYPES = {
    "f32": gguf.LlamaFileType.ALL_F32,
    "f16": gguf.LlamaFileType.MOSTLY_F16,
    "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
}
_GGUF_POOLING = {
    PoolingType.MEAN: gguf.PoolingType.MEAN,
    PoolingType.CLS: gguf.PoolingType.CLS,
    PoolingType.RANK: gguf.PoolingType.RANK,
}
_CONFIG_KEYS = (
    "hidden_size",
    "intermediate_size",
    "layer_norm_eps",
    "max_position_embeddings",
    "num_attention_heads",
    "num_hidden_layers",
    "type_vocab_size",
    "vocab_size",
)
# What only a training objective used, and position_ids, which are a constant.
_UNUSED = ("embeddings.position_ids", "cls.predictions", "cls.seq_relationship")
_ALWAYS_F32 = ("position_embd.weight", "token_types.weight")
# A classifier's tensors have names of their own, which the library's map knows only in part.
_HEAD = {
    "pooler.dense": "cls",
    "classifier": "cls.output",
    "classifier.dense": "cls",
    "classifier.out_proj": "cls.output",
}


def convert_bert(folder: Path, target: Path, quantisation: str, *, name: str) -> None:
    """Write a GGUF.

    Args:
        folder: holds ``config.json``, ``model.safetensors``, ``vocab.txt``, and optionally ``tokenizer_config.json`` and
            ``1_Pooling/config.json``.
        quantisation: type of the matrices: f32, f16 or q8_0. Vectors, positions and token types stay f32.

    Raises:
        ModelLoadError: a file is missing or damaged, or the model is not a BERT.
        OSError: ``target`` cannot be written.
    """
    for needed in ("config.json", "model.safetensors", "vocab.txt"):
        if not (folder / needed).is_file():
            raise ModelLoadError(f"{folder} has no {needed}; a BERT folder of the Hugging Face layout was expected")
    config = _read_json(folder / "config.json")
    if config.get("model_type") != "bert":
        raise ModelLoadError(f"{folder} holds a {config.get('model_type')!r} model; only 'bert' can be converted here")
    missing = [key for key in _CONFIG_KEYS if key not in config]
    if missing:
        raise ModelLoadError(f"{folder / 'config.json'} lacks {', '.join(missing)}")
    writer = gguf.GGUFWriter(target, "bert")
    with _open_tensors(folder / "model.safetensors") as tensors:
        names = {original: _short(original) for original in tensors.keys()}  # noqa: SIM118 - no mapping
        has_head = "classifier.weight" in names.values() or "classifier.out_proj.weight" in names.values()
        _write_metadata(writer, config, folder, name, quantisation, has_head)
        _write_vocabulary(writer, config, folder)
        tensor_names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.BERT, int(config["num_hidden_layers"]))
        kept = {original: short for original, short in names.items() if _is_kept(short, has_head)}
        with progress(f"converting {name} to {quantisation}", len(kept), "tensor") as step:
            for original, short in kept.items():
                target_name = _head_name(short) or tensor_names.get_name(short, try_suffixes=(".weight", ".bias"))
                if target_name is None:
                    raise ModelLoadError(
                        f"the tensor {original!r} has no place in a BERT GGUF; is the model a plain BERT?"
                    )
                _add_tensor(writer, target_name, _read_tensor(tensors, original), quantisation)
                step(1)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def _open_tensors(path: Path) -> Any:
    try:
        return safe_open(str(path), framework="numpy")
    except SafetensorError as error:
        raise ModelLoadError(f"{path} is damaged: {error}; fetch it again") from error


def _read_tensor(tensors: Any, name: str) -> NDArray[Any]:
    try:
        data: NDArray[Any] = tensors.get_tensor(name)
    except TypeError as error:
        # NumPy has no bfloat16.
        raise ModelLoadError(
            f"the tensor {name!r} cannot be read ({error}); save the model as float32 first"
        ) from error
    return data


def _short(name: str) -> str:
    return name.removeprefix("bert.").replace(".gamma", ".weight").replace(".beta", ".bias")


def _is_kept(short: str, has_head: bool) -> bool:
    # Without a classifier the pooler is left over from pre-training, and no pooling type uses it.
    return not short.startswith(_UNUSED) and (has_head or not short.startswith("pooler."))


def _head_name(short: str) -> str | None:
    stem, _, kind = short.rpartition(".")
    return f"{_HEAD[stem]}.{kind}" if stem in _HEAD else None


def _add_tensor(writer: gguf.GGUFWriter, name: str, data: NDArray[Any], quantisation: str) -> None:
    data = np.ascontiguousarray(data, dtype=np.float32)
    wanted = gguf.GGMLQuantizationType.F32
    if data.ndim == 2 and name not in _ALWAYS_F32 and quantisation != "f32":
        # Rows of q8_0 are blocks of 32; a narrower or odd matrix stays f16.
        fits = quantisation == "q8_0" and data.shape[1] % 32 == 0
        wanted = gguf.GGMLQuantizationType.Q8_0 if fits else gguf.GGMLQuantizationType.F16
    writer.add_tensor(name, gguf.quants.quantize(data, wanted), raw_dtype=wanted)


def _write_metadata(
    writer: gguf.GGUFWriter, config: dict[str, Any], folder: Path, name: str, quantisation: str, has_head: bool
) -> None:
    writer.add_name(name)
    writer.add_type("model")
    writer.add_file_type(_FILE_TYPES[quantisation])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_block_count(int(config["num_hidden_layers"]))
    writer.add_context_length(int(config["max_position_embeddings"]))
    writer.add_embedding_length(int(config["hidden_size"]))
    writer.add_feed_forward_length(int(config["intermediate_size"]))
    writer.add_head_count(int(config["num_attention_heads"]))
    writer.add_layer_norm_eps(float(config["layer_norm_eps"]))
    writer.add_causal_attention(False)
    pooling = PoolingType.RANK if has_head else _trained_pooling(folder)
    if pooling is not None:
        writer.add_pooling_type(_GGUF_POOLING[pooling])
    if has_head:
        labels: dict[str, str] = config.get("id2label") or {"0": "LABEL_0"}
        writer.add_classifier_output_labels([labels[key] for key in sorted(labels, key=int)])
        # BERT's tokenizer gives a pair's second text type 1, and training follows it unless there is one type only.
        writer.add_bool(SEGMENT_TYPES, int(config["type_vocab_size"]) > 1)


def _trained_pooling(folder: Path) -> PoolingType | None:
    path = folder / "1_Pooling" / "config.json"
    if not path.is_file():
        return None
    modes = _read_json(path)
    if modes.get("pooling_mode_mean_tokens"):
        return PoolingType.MEAN
    return PoolingType.CLS if modes.get("pooling_mode_cls_token") else None


def _write_vocabulary(writer: gguf.GGUFWriter, config: dict[str, Any], folder: Path) -> None:
    words = (folder / "vocab.txt").read_text(encoding="utf-8").removesuffix("\n").split("\n")
    size = int(config["vocab_size"])
    if len(words) > size:
        raise ModelLoadError(f"vocab.txt has {len(words)} entries and config.json says {size}")
    special = {word: token_id for token_id, word in enumerate(words) if word in _SPECIAL}
    if missing := sorted(_SPECIAL - special.keys()):
        raise ModelLoadError(f"vocab.txt lacks {', '.join(missing)}; it is not a BERT's")
    tokens: list[str] = []
    types: list[gguf.TokenType] = []
    for word in words:
        # llama.cpp marks the beginning of a word, WordPiece its continuation.
        plain = word if word in special else word[2:] if word.startswith("##") else "▁" + word
        tokens.append(plain)
        types.append(gguf.TokenType.CONTROL if word in special else gguf.TokenType.NORMAL)
    for token_id in range(len(words), size):
        tokens.append(f"[PAD{token_id}]")
        types.append(gguf.TokenType.UNUSED)
    tokenizer_path = folder / "tokenizer_config.json"
    tokenizer = _read_json(tokenizer_path) if tokenizer_path.is_file() else {}
    writer.add_token_type_count(int(config["type_vocab_size"]))
    writer.add_tokenizer_model("bert")
    # Of llama.cpp's names for WordPiece this is the one that its converter gives this family.
    writer.add_tokenizer_pre("jina-v2-en")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_bos_token_id(special["[CLS]"])
    writer.add_eos_token_id(special["[SEP]"])
    writer.add_unk_token_id(special["[UNK]"])
    writer.add_sep_token_id(special["[SEP]"])
    writer.add_pad_token_id(special["[PAD]"])
    writer.add_mask_token_id(special["[MASK]"])
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(True)
    writer.add_add_sep_token(False)
    writer.add_bool("tokenizer.ggml.normalizer.lowercase", bool(tokenizer.get("do_lower_case", True)))


_SPECIAL = frozenset({"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"})


def _read_json(path: Path) -> dict[str, Any]:
    try:
        read: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelLoadError(f"{path} cannot be read: {error}") from error
    return read
