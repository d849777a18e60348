from __future__ import annotations

import subprocess
import sys

from cluster.config import EncoderConfig
from cluster.engine import load_engine, load_vocabulary
from cluster.engine.fake import FakeEngine, FakeVocabulary, fake_facts


def test_no_file_means_the_fake_engine_with_the_configured_limits() -> None:
    encoder = EncoderConfig(model="m", engine="fake", micro_batch_tokens=64, context_tokens=128)
    engine = load_engine(encoder, None, fake_facts())
    assert isinstance(engine, FakeEngine)
    assert engine.max_sequence_tokens == 128
    assert engine.max_micro_batch_tokens == 128
    assert isinstance(load_vocabulary(None), FakeVocabulary)


def test_fake_engine_needs_no_native_library() -> None:
    program = "import sys; from cluster.engine import load_vocabulary; load_vocabulary(None); print('llama_cpp' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
