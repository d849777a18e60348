"""Pairs by a GGUF's template (``tokenizer.chat_template.rerank``), as causal rerankers have one."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from cluster.config import Truncate
from cluster.engine.protocol import Vocabulary
from cluster.pairs.pair import (
    BegunPair,
    Pair,
    PairIds,
    check_cap,
    check_truncation,
    instruction_too_long,
    no_instruction,
    query_too_long,
)
from cluster.types import Int32

# Qwen3's way to state the task; what stands in the rest of the line is what an instruction replaces.
_INSTRUCTION = re.compile(r"(?<=<Instruct>: )[^\n]*(?=\n)")
_QUERY, _DOCUMENT = "{query}", "{document}"

_Section = Int32 | tuple[str, ...]
"""Ids, or the texts around each place where the document stands."""


class TemplateFormat:
    """A GGUF's own template, in which ``{query}`` and ``{document}`` are replaced.

    The template is split once, at its special tokens only. What stands between two of them, its own text and the client's, is
    one string, tokenized with special parsing off: no text of a client can become a special token or a placeholder, and the
    ids are those that llama-server gets for harmless texts (cutting finer would part words that belong together).

    A template takes an instruction if it has a line ``<Instruct>: …``, as Qwen3's has.
    """

    def __init__(self, vocabulary: Vocabulary, template: str, max_tokens: int) -> None:
        self._vocabulary = vocabulary
        self._max_tokens = max_tokens
        self._special_tokens = _special_tokens(vocabulary, template)
        marks = [*sorted(self._special_tokens, key=len, reverse=True), _QUERY, _DOCUMENT]
        marks_in = re.compile(f"({'|'.join(map(re.escape, marks))})")
        found = _INSTRUCTION.search(template)
        self._before = marks_in.split(template[: found.start()] if found else template)
        self._instruction = found.group() if found else None
        self._after = marks_in.split(template[found.end() :]) if found else []

    def begin(self, pair: Pair) -> BegunPair:
        """See ``PairFormat.begin``."""
        if pair.instruction is not None and self._instruction is None:
            raise no_instruction()
        instruction = self._instruction if pair.instruction is None else pair.instruction
        begun = self._begun(pair, instruction or "")
        max_tokens = begun.max_tokens
        without_document = len(begun.fill(""))
        if without_document >= max_tokens:
            check_cap(pair, self.least_tokens, self._max_tokens)
            if pair.instruction is not None:
                alone = replace(pair, query="")
                without_query = len(self._begun(alone, pair.instruction).fill(""))
                if without_query >= max_tokens:
                    raise instruction_too_long(pair, without_query, self._max_tokens)
            raise query_too_long(pair, without_document, self._max_tokens)
        return begun

    @property
    def least_tokens(self) -> int:
        """See ``PairFormat.least_tokens``."""
        return len(self._begun(Pair(""), self._instruction or "").fill("")) + 1

    def _begun(self, pair: Pair, instruction: str) -> _BegunTemplatePair:
        sections = self._sections(pair.query, instruction)
        return _BegunTemplatePair.create(self._vocabulary, pair, sections, pair.most_tokens(self._max_tokens))

    def _sections(self, query: str, instruction: str) -> list[_Section]:
        sections: list[_Section] = []
        around = [""]

        def end_text() -> None:
            if len(around) > 1:
                sections.append(tuple(around))
            elif around[0]:
                sections.append(self._vocabulary.tokenize(around[0]))
            around[:] = [""]

        def add(part: str) -> None:
            special = self._special_tokens.get(part)
            if special is not None:
                end_text()
                sections.append(np.asarray([special], dtype=np.int32))
            elif part == _DOCUMENT:
                around.append("")
            else:
                around[-1] += query if part == _QUERY else part

        for part in self._before:
            add(part)
        around[-1] += instruction
        for part in self._after:
            add(part)
        end_text()
        return sections


@dataclass(frozen=True, slots=True)
class _BegunTemplatePair:
    vocabulary: Vocabulary
    pair: Pair
    sections: list[_Section]
    lead: Int32
    max_tokens: int

    @classmethod
    def create(
        cls, vocabulary: Vocabulary, pair: Pair, sections: list[_Section], max_tokens: int
    ) -> _BegunTemplatePair:
        lead: list[Int32] = [_NO_TOKENS]
        for section in sections:
            if isinstance(section, tuple):
                lead.append(vocabulary.tokenize(section[0]))
                break
            lead.append(section)
        return cls(vocabulary, pair, sections, np.concatenate(lead), max_tokens)

    def fill(self, document: str) -> Int32:
        parts = [
            self.vocabulary.tokenize(document.join(section)) if isinstance(section, tuple) else section
            for section in self.sections
        ]
        return np.concatenate(parts)

    def end(self, document: str) -> PairIds:
        total: int | None = None
        cap = self.pair.document_tokens
        if cap is not None and len(self.vocabulary.tokenize(document)) > cap:
            total = len(self.fill(document))
            document = _longest(document, lambda text: len(self.vocabulary.tokenize(text)) <= cap, self.pair.truncate)
        ids = self.fill(document)
        total = len(ids) if total is None else total
        if len(ids) > self.max_tokens:
            check_truncation(self.pair, len(ids), self.max_tokens)
            document = _longest(document, lambda text: len(self.fill(text)) <= self.max_tokens, self.pair.truncate)
            ids = self.fill(document)
        return PairIds(ids, self._second_segment(ids), total - len(ids))

    def _second_segment(self, ids: Int32) -> int:
        """Length of what the pairs have in common; the query's last token may be another once a document follows it."""
        shared = min(len(ids), len(self.lead))
        differing = np.flatnonzero(ids[:shared] != self.lead[:shared])
        return int(differing[0]) if len(differing) else shared


_NO_TOKENS: Int32 = np.zeros(0, dtype=np.int32)


def _special_tokens(vocabulary: Vocabulary, template: str) -> dict[str, int]:
    """Return the special tokens that a template spells: text → id.

    They are those whose text becomes the token with special parsing on and not without it. llama.cpp takes user-defined
    tokens (``<think>``) out of any text either way, so those need no split.
    """
    found: dict[str, int] = {}
    for token in dict.fromkeys(vocabulary.tokenize(template, parse_special=True).tolist()):
        piece = vocabulary.piece(token).decode("utf-8", "replace")
        if (
            piece in template
            and vocabulary.tokenize(piece, parse_special=True).tolist() == [token]
            and vocabulary.tokenize(piece, parse_special=False).tolist() != [token]
        ):
            found[piece] = token
    return found


def _longest(text: str, fits: Callable[[str], bool], truncate: Truncate) -> str:
    """Return the longest beginning (for ``start``: the longest end) of a text that fits, by bisection; the empty one fits."""
    shortest, longest = 0, len(text)
    while shortest < longest:
        middle = (shortest + longest + 1) // 2
        if fits(_kept(text, middle, truncate)):
            shortest = middle
        else:
            longest = middle - 1
    return _kept(text, shortest, truncate)


def _kept(text: str, length: int, truncate: Truncate) -> str:
    return text[len(text) - length :] if truncate is Truncate.START else text[:length]
