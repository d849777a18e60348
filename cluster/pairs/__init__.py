"""Pairs of texts → token ids, as llama.cpp's server forms them (``format_prompt_rerank`` in its ``server-common.cpp``).

A GGUF either has a template for pairs (``tokenizer.chat_template.rerank``) or is read as ``[BOS] query [EOS] [SEP] document
[EOS]``, each special token where the GGUF's flags ask for it. Truncation cuts the document, never the query.
"""

from __future__ import annotations

from cluster.engine.protocol import Vocabulary
from cluster.pairs.flags import FlagFormat
from cluster.pairs.pair import Pair, PairFormat, PairIds, Pairs
from cluster.pairs.template import TemplateFormat

__all__ = ["FlagFormat", "Pair", "PairFormat", "PairIds", "Pairs", "TemplateFormat", "pair_format"]

TEMPLATE = "rerank"
"""Name of the template for pairs among a GGUF's chat templates."""


def pair_format(vocabulary: Vocabulary, max_tokens: int, *, append_eos: bool | None = None) -> PairFormat:
    """Return the format that a GGUF asks for.

    Args:
        max_tokens: the longest pair that the model takes.
        append_eos: overrides the GGUF's ``add_eos_token``.
    """
    template = vocabulary.template(TEMPLATE)
    if template is not None:
        return TemplateFormat(vocabulary, template, max_tokens)
    return FlagFormat(vocabulary, max_tokens, vocabulary.add_eos if append_eos is None else append_eos)
