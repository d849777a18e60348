"""A Qwen3 of the 0.6B model's widths with seeded random weights, for measurements: real cost, meaningless numbers.

    python -m tests.support.ggufs.large /tmp/qwen3-8.gguf --layers 8

Eight layers take 560 MB on disk and a few seconds to write. With ``--rerank`` it has a head of two labels and a template.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import gguf
import numpy as np

from tests.support.ggufs.qwen3 import RERANK_LABELS, RERANK_TEMPLATE
from tests.support.ggufs.vocabularies import byte_pair

WIDTH, INNER, HEADS, KEY_VALUE_HEADS, HEAD_WIDTH = 1024, 3072, 16, 8, 128
VOCABULARY_SIZE = 151_669
CONTEXT_TOKENS = 32_768


def write_large_qwen3(path: Path, *, layers: int = 8, rerank: bool = False) -> None:
    """Write the file; equal arguments give equal bytes."""
    writer = gguf.GGUFWriter(path, "qwen3")
    writer.add_name("qwen3-random")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_block_count(layers)
    writer.add_context_length(CONTEXT_TOKENS)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_VALUE_HEADS)
    writer.add_key_length(HEAD_WIDTH)
    writer.add_value_length(HEAD_WIDTH)
    writer.add_rope_freq_base(1_000_000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_pooling_type(gguf.PoolingType.RANK if rerank else gguf.PoolingType.LAST)
    if rerank:
        writer.add_classifier_output_labels(list(RERANK_LABELS))
        writer.add_chat_template([{"name": "rerank", "template": RERANK_TEMPLATE}])
    _write_vocabulary(writer)
    random = np.random.default_rng(0)

    def linear(name: str, outputs: int, inputs: int, deviation: float) -> None:
        values = random.standard_normal((outputs, inputs), dtype=np.float32)
        writer.add_tensor(f"{name}.weight", (values * np.float32(deviation)).astype(np.float16))

    def norm(name: str, width: int) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(width, dtype=np.float32))

    linear("token_embd", VOCABULARY_SIZE, WIDTH, 0.5)
    for layer in range(layers):
        block = f"blk.{layer}"
        norm(f"{block}.attn_norm", WIDTH)
        linear(f"{block}.attn_q", HEADS * HEAD_WIDTH, WIDTH, WIDTH**-0.5)
        linear(f"{block}.attn_k", KEY_VALUE_HEADS * HEAD_WIDTH, WIDTH, WIDTH**-0.5)
        linear(f"{block}.attn_v", KEY_VALUE_HEADS * HEAD_WIDTH, WIDTH, WIDTH**-0.5)
        linear(f"{block}.attn_output", WIDTH, HEADS * HEAD_WIDTH, (HEADS * HEAD_WIDTH) ** -0.5)
        norm(f"{block}.attn_q_norm", HEAD_WIDTH)
        norm(f"{block}.attn_k_norm", HEAD_WIDTH)
        norm(f"{block}.ffn_norm", WIDTH)
        linear(f"{block}.ffn_gate", INNER, WIDTH, WIDTH**-0.5)
        linear(f"{block}.ffn_up", INNER, WIDTH, WIDTH**-0.5)
        linear(f"{block}.ffn_down", WIDTH, INNER, INNER**-0.5)
    norm("output_norm", WIDTH)
    if rerank:
        linear("cls.output", len(RERANK_LABELS), WIDTH, WIDTH**-0.5)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_vocabulary(writer: gguf.GGUFWriter) -> None:
    roles = {"bos": "<|endoftext|>", "eos": "<|endoftext|>", "pad": "<|endoftext|>"}
    control = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    flags = {"bos": False, "eos": True}
    vocabulary = byte_pair("qwen2", control, roles, flags, user_defined=["<think>", "</think>"])
    missing = VOCABULARY_SIZE - len(vocabulary)
    vocabulary.tokens.extend(f"<unused{number}>" for number in range(missing))
    vocabulary.types.extend([gguf.TokenType.UNUSED] * missing)
    vocabulary.describe(writer)


def main() -> None:
    """Write the file that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--rerank", action="store_true")
    arguments = parser.parse_args()
    write_large_qwen3(arguments.path, layers=arguments.layers, rerank=arguments.rerank)


if __name__ == "__main__":
    main()
