"""Small vocabularies of the four kinds that embedding models use; all spell any ASCII text without unknown tokens."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass, field

import gguf

WORDS = """
    the of and to in is a for that on with as by at from it an be are was this which or not have has new water city
    river capital china paris france berlin germany model text query document search answer rank light sun moon star
    cat dog bird tree house road music book paper science history school market money health food bread coffee tea
    red green blue white black small large fast slow north south east west king queen war peace law art game
""".split()  # noqa: SIM905
ENDINGS = ("s", "ed", "ing", "er", "ly", "ion")

_SPACE = "\u2581"
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _BYTE = (
    gguf.TokenType.NORMAL,
    gguf.TokenType.UNKNOWN,
    gguf.TokenType.CONTROL,
    gguf.TokenType.USER_DEFINED,
    gguf.TokenType.BYTE,
)


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A vocabulary as a GGUF holds it.

    Attributes:
        special: role (``bos``, ``eos``, ``sep``, …) → the token's text.
        flags: role → whether it is put around a text (``add_bos_token``, …).
    """

    model: str
    pre: str
    tokens: list[str]
    types: list[int]
    scores: list[float] = field(default_factory=list)
    merges: list[str] = field(default_factory=list)
    special: dict[str, str] = field(default_factory=dict)
    flags: dict[str, bool] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.tokens)

    def describe(self, writer: gguf.GGUFWriter) -> None:
        """Add the vocabulary's keys."""
        writer.add_tokenizer_model(self.model)
        writer.add_tokenizer_pre(self.pre)
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.types)
        if self.scores:
            writer.add_token_scores(self.scores)
        if self.merges:
            writer.add_token_merges(self.merges)
        for role, token in self.special.items():
            writer.add_uint32(_ID_KEYS[role], self.tokens.index(token))
        for role, added in self.flags.items():
            writer.add_bool(f"tokenizer.ggml.add_{role}_token", added)


def _roles(first: str, last: str, unknown: str, padding: str, mask: str) -> dict[str, str]:
    return {"bos": first, "eos": last, "unk": unknown, "sep": last, "pad": padding, "cls": first, "mask": mask}


BERT_ROLES = _roles("[CLS]", "[SEP]", "[UNK]", "[PAD]", "[MASK]")

_ID_KEYS = {
    "bos": "tokenizer.ggml.bos_token_id",
    "eos": "tokenizer.ggml.eos_token_id",
    "unk": "tokenizer.ggml.unknown_token_id",
    "sep": "tokenizer.ggml.seperator_token_id",
    "pad": "tokenizer.ggml.padding_token_id",
    "cls": "tokenizer.ggml.cls_token_id",
    "mask": "tokenizer.ggml.mask_token_id",
}


def word_piece() -> Vocabulary:
    """An uncased BERT vocabulary in llama.cpp's form: a word's first piece begins with U+2581, the others are bare."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    characters = [*string.ascii_lowercase, *string.digits, *string.punctuation]
    pieces = _distinct([*(_SPACE + c for c in characters), *characters, *(_SPACE + w for w in WORDS), *ENDINGS])
    return Vocabulary(
        model="bert",
        pre="default",
        tokens=[*special, *pieces],
        types=[_CONTROL] * len(special) + [_NORMAL] * len(pieces),
        special=BERT_ROLES,
        flags={"bos": True, "eos": True, "sep": False},
    )


def unigram() -> Vocabulary:
    """An XLM-RoBERTa vocabulary: Unigram pieces with log probabilities behind fairseq's four special tokens."""
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    words = [_SPACE + word for word in WORDS]
    pieces = _distinct([*words, *ENDINGS, _SPACE, *(c for c in string.printable if not c.isspace())])
    # Each piece costs 1 and single characters 3, so that a whole word beats its spelling.
    scores = [-3.0 if len(piece) == 1 else -1.0 - 0.001 * rank for rank, piece in enumerate(pieces)]
    return Vocabulary(
        model="t5",
        pre="default",
        tokens=[*special, *pieces, "<mask>"],
        types=[_CONTROL, _CONTROL, _CONTROL, _UNKNOWN, *([_NORMAL] * len(pieces)), _CONTROL],
        scores=[0.0] * len(special) + scores + [0.0],
        special=_roles("<s>", "</s>", "<unk>", "<pad>", "<mask>"),
        flags={"bos": True, "sep": True, "eos": True},
    )


def sentence_piece() -> Vocabulary:
    """A Gemma vocabulary: byte-fallback SentencePiece BPE."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>"]
    octets = [f"<0x{octet:02X}>" for octet in range(256)]
    chains = [piece for word in WORDS for piece in _prefixes(_SPACE + word)]
    pieces = _distinct([*chains, _SPACE, *(c for c in string.printable if not c.isspace())])
    return Vocabulary(
        model="llama",
        pre="default",
        tokens=[*special, *octets, *pieces],
        types=[_CONTROL, _CONTROL, _CONTROL, _UNKNOWN, *([_BYTE] * len(octets)), *([_NORMAL] * len(pieces))],
        scores=[-1000.0] * (len(special) + len(octets)) + [-float(rank) for rank in range(len(pieces))],
        special={"bos": "<bos>", "eos": "<eos>", "unk": "<unk>", "pad": "<pad>"},
        flags={"bos": True, "sep": False, "eos": True},
    )


def byte_pair(
    pre: str, control: Sequence[str], special: dict[str, str], flags: dict[str, bool], user_defined: Sequence[str] = ()
) -> Vocabulary:
    """A GPT-2 vocabulary: 256 bytes, merges that build each word from its left, then ``control`` and ``user_defined``."""
    space = _byte_characters()[ord(" ")]
    tokens = list(_byte_characters())
    merges: list[str] = []
    for word in [space + word for word in WORDS] + WORDS:
        for left, right in zip(_prefixes(word), word[1:], strict=False):
            merges.append(f"{left} {right}")
            tokens.append(left + right)
    tokens, merges = _distinct(tokens), _distinct(merges)
    return Vocabulary(
        model="gpt2",
        pre=pre,
        tokens=[*tokens, *control, *user_defined],
        types=[_NORMAL] * len(tokens) + [_CONTROL] * len(control) + [_USER_DEFINED] * len(user_defined),
        merges=merges,
        special=special,
        flags=flags,
    )


def _byte_characters() -> tuple[str, ...]:
    """One printable character for each byte: itself where it is one, else the next one from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    spare = iter(range(0x100, 0x200))
    return tuple(chr(octet if octet in printable else next(spare)) for octet in range(256))


def _prefixes(word: str) -> list[str]:
    return [word[:length] for length in range(1, len(word) + 1)]


def _distinct(items: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(items))
