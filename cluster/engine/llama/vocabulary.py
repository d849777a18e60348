"""llama.cpp's tokenizer. Its calls run in C with the interpreter lock released and may run in several threads."""

from __future__ import annotations

import ctypes
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np

from cluster.engine.llama import library
from cluster.errors import EngineError
from cluster.types import Int32

_TOKENS = ctypes.POINTER(llama_cpp.llama_token)


_PART_CHARACTERS = 65_536

_LOWERCASE = "tokenizer.ggml.normalizer.lowercase"
_STRIP_ACCENTS = "tokenizer.ggml.normalizer.strip_accents"


def _strips_accents(model: Any) -> bool:
    """Whether this is a WordPiece vocabulary of an uncased BERT, whose accents are stripped before look-up."""
    vocab = llama_cpp.llama_model_get_vocab(model)
    if llama_cpp.llama_vocab_type(vocab) != llama_cpp.LLAMA_VOCAB_TYPE_WPM:
        return False
    lowercase = library.metadata(model, _LOWERCASE) != "false"
    said = library.metadata(model, _STRIP_ACCENTS)
    return lowercase if said is None else said == "true"


def strip_accents(text: str) -> str:
    """Decompose ``text`` (NFD) and drop its non-spacing marks, as BERT's tokenizer does.

    llama.cpp drops every mark, spacing ones too, and takes Hangul vowels for marks: Korean and Hindi lose their vowels.
    So its own step is switched off and this one stands in for it.
    """
    return "".join(
        char
        for part in _parts(text)
        for char in unicodedata.normalize("NFD", part)
        if unicodedata.category(char) != "Mn"
    )


def _parts(text: str) -> Iterator[str]:
    """Cut a text where nothing combines: one call for all of it would keep the interpreter's lock until its end."""
    begin = 0
    while begin < len(text):
        end = begin + _PART_CHARACTERS
        while end < len(text) and unicodedata.combining(text[end]):
            end += 1
        yield text[begin:end]
        begin = end


class LlamaVocabulary:
    """The vocabulary of a GGUF, loaded without its weights; see ``cluster.engine.protocol.Vocabulary``."""

    def __init__(self, path: Path) -> None:
        self._model: Any = library.load_model(path, vocabulary_only=True)
        self._strips_accents = _strips_accents(self._model)
        if self._strips_accents:
            llama_cpp.llama_model_free(self._model)
            self._model = library.load_model(path, vocabulary_only=True, overrides={_STRIP_ACCENTS: False})
        vocab = llama_cpp.llama_model_get_vocab(self._model)
        self._vocab: Any = vocab
        self.size = int(llama_cpp.llama_vocab_n_tokens(vocab))
        self.bos = int(llama_cpp.llama_vocab_bos(vocab))
        self.eos = int(llama_cpp.llama_vocab_eos(vocab))
        self.sep = int(llama_cpp.llama_vocab_sep(vocab))
        self.add_bos = bool(llama_cpp.llama_vocab_get_add_bos(vocab))
        self.add_eos = bool(llama_cpp.llama_vocab_get_add_eos(vocab))
        self.add_sep = bool(llama_cpp.llama_vocab_get_add_sep(vocab))
        worn = self._tokenize(b"", add_special=True, parse_special=False).tolist()
        leading = 1 if worn and self.add_bos and worn[0] == self.bos else 0
        self.prefix: tuple[int, ...] = tuple(worn[:leading])
        self.suffix: tuple[int, ...] = tuple(worn[leading:])

    def tokenize(self, text: str, parse_special: bool = False) -> Int32:
        """Return the ids of ``text`` without special tokens around it, int32 ``[n]``."""
        if self._strips_accents and not text.isascii():
            text = strip_accents(text)
        # Lone surrogates have no UTF-8 form; they become '?', as everywhere in Python that must print them.
        return self._tokenize(text.encode("utf-8", "replace"), add_special=False, parse_special=parse_special)

    def _tokenize(self, text: bytes, *, add_special: bool, parse_special: bool) -> Int32:
        capacity = len(text) + 8
        while True:
            ids = np.empty(capacity, dtype=np.int32)
            count = llama_cpp.llama_tokenize(
                self._vocab, text, len(text), ids.ctypes.data_as(_TOKENS), capacity, add_special, parse_special
            )
            if count >= 0:
                return ids[:count].copy()
            if -count <= capacity:
                raise EngineError("llama.cpp cannot tokenize this text")
            capacity = -count

    def piece(self, token_id: int) -> bytes:
        """Return the bytes that ``token_id`` stands for, special tokens spelled out."""
        capacity = 64
        while True:
            buffer = ctypes.create_string_buffer(capacity)
            count = int(llama_cpp.llama_token_to_piece(self._vocab, token_id, buffer, capacity, 0, True))
            if count >= 0:
                return buffer.raw[:count]
            capacity = -count

    def detokenize(self, token_ids: Int32) -> str:
        """Return the text of ``token_ids``; bytes that are not UTF-8 become U+FFFD."""
        ids = np.ascontiguousarray(token_ids, dtype=np.int32)
        capacity = 16 * len(ids) + 64
        while True:
            buffer = ctypes.create_string_buffer(capacity)
            count = int(
                llama_cpp.llama_detokenize(
                    self._vocab, ids.ctypes.data_as(_TOKENS), len(ids), buffer, capacity, False, True
                )
            )
            if count >= 0:
                return ctypes.string_at(buffer, count).decode("utf-8", "replace")
            capacity = -count

    def template(self, name: str) -> str | None:
        """Return the GGUF's chat template of that name, or None."""
        found = llama_cpp.llama_model_chat_template(self._model, name.encode())
        return found.decode("utf-8", "replace") if found else None

    def close(self) -> None:
        """Free the native memory."""
        if self._model:
            llama_cpp.llama_model_free(self._model)
            self._model = None
