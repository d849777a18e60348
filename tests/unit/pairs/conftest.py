from __future__ import annotations

from collections.abc import Iterator

import pytest

from cluster.engine.llama import LlamaVocabulary
from tests.support.ggufs import (
    write_bert_reranker,
    write_modern_bert_reranker,
    write_qwen3_reranker,
    write_xlm_roberta_reranker,
)

WRITERS = {
    "bert": write_bert_reranker,
    "xlm-roberta": write_xlm_roberta_reranker,
    "modern-bert": write_modern_bert_reranker,
    "qwen3": write_qwen3_reranker,
}


@pytest.fixture(scope="session")
def vocabularies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, LlamaVocabulary]]:
    folder = tmp_path_factory.mktemp("pairs")
    opened = {name: LlamaVocabulary(write(folder / f"{name}.gguf").path) for name, write in WRITERS.items()}
    yield opened
    for vocabulary in opened.values():
        vocabulary.close()
