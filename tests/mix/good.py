"""The kinds of requests that every server of the model must answer with 200: all dialects, pooling types, encodings, ids."""

from __future__ import annotations

import base64
import io
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import orjson

from cluster.calls import OutputType
from cluster.pooling import quantize
from cluster.types import Float32, PoolingType
from tests.mix.reference import Reference
from tests.mix.requests import Check, Kind, Manner, Request, Texts, post

Ids = tuple[int, ...]

_EMBEDDINGS = "/v1/embeddings"
_VECTORS = (PoolingType.MEAN, PoolingType.CLS, PoolingType.LAST, PoolingType.WEIGHTED)
# Of a unit vector's number: where a real model's is smaller, a bit of it may be either.
_UNSURE = 1e-3


def good_kinds(reference: Reference, texts: Texts) -> Iterator[Kind]:
    """Yield every kind that embeds."""
    good = _Good(reference, texts)
    yield Kind("one text", 22, good.one)
    yield Kind("several texts", 5, good.several)
    yield Kind("base64", 6, good.base64)
    for pooling in _VECTORS[1:]:
        yield Kind(f"pooling {pooling.value}", 4, good.pooled(pooling))
    yield Kind("pooling none", 4, good.pooled(PoolingType.NONE))
    yield Kind("pooling none, NumPy", 3, good.numpy)
    yield Kind("dimensions", 3, good.dimensions)
    yield Kind("embd_normalize", 3, good.normalized)
    yield Kind("int8 and binary", 4, good.quantized)
    yield Kind("token ids", 6, good.token_ids)
    yield Kind("ids and text mixed", 3, good.mixed)
    yield Kind("llama-server's shape", 6, good.native)
    yield Kind("truncated", 0.2, good.truncated)
    yield Kind("slow to send", 1, good.sent_slowly)
    yield Kind("slow to read", 1, good.read_slowly)
    yield Kind("leaving", 3, good.leaving)


class _Good:
    def __init__(self, reference: Reference, texts: Texts) -> None:
        self._reference = reference
        self._texts = texts

    def one(self, chance: random.Random) -> Request:
        text = self._texts.one(chance)
        return Request(post(_EMBEDDINGS, {"input": text}), check=self._rows([self._reference.ids(text)]))

    def several(self, chance: random.Random) -> Request:
        texts = self._texts.some(chance, 6)
        return Request(post(_EMBEDDINGS, {"input": texts}), check=self._rows(self._all_ids(texts)))

    def base64(self, chance: random.Random) -> Request:
        texts = self._texts.some(chance, 3)
        body = {"input": texts, "encoding_format": "base64", "model": self._reference.model}
        return Request(post(_EMBEDDINGS, body), check=self._rows(self._all_ids(texts)))

    def pooled(self, pooling: PoolingType) -> Callable[[random.Random], Request]:
        def make(chance: random.Random) -> Request:
            text = self._texts.one(chance)
            body = {"input": text, "pooling": pooling.value}
            return Request(post(_EMBEDDINGS, body), check=self._rows([self._reference.ids(text)], pooling))

        return make

    def numpy(self, chance: random.Random) -> Request:
        texts = self._texts.some(chance, 3)
        raw = post(_EMBEDDINGS, {"input": texts, "pooling": "none"}, accept="application/octet-stream")
        wanted = np.concatenate([self._reference.rows(ids, PoolingType.NONE) for ids in self._all_ids(texts)])

        def check(content: bytes) -> bool:
            rows = np.load(io.BytesIO(content))
            return self._reference.agree(rows, wanted)

        return Request(raw, check=check)

    def dimensions(self, chance: random.Random) -> Request:
        text, dimensions = self._texts.one(chance), chance.choice([4, 8])
        body = {"input": text, "dimensions": dimensions}
        return Request(
            post(_EMBEDDINGS, body), check=self._rows([self._reference.ids(text)], PoolingType.MEAN, dimensions)
        )

    def normalized(self, chance: random.Random) -> Request:
        text, pooling, p = self._texts.one(chance), chance.choice(_VECTORS), chance.choice([-1, 0, 1, 2, 3])
        body = {"input": text, "embd_normalize": p, "pooling": pooling.value}
        return Request(post(_EMBEDDINGS, body), check=self._rows([self._reference.ids(text)], pooling, p=float(p)))

    def quantized(self, chance: random.Random) -> Request:
        text, kind = self._texts.one(chance), chance.choice([OutputType.INT8, OutputType.BINARY, OutputType.UBINARY])
        wanted = self._reference.rows(self._reference.ids(text), PoolingType.MEAN)

        def check(content: bytes) -> bool:
            got = np.asarray(orjson.loads(content)["data"][0]["embedding"])[None]
            if self._reference.exact:
                return np.array_equal(got, quantize(wanted, kind))
            if kind is OutputType.INT8:
                return bool((np.abs(got - quantize(wanted, kind)) <= 1).all())
            bits = np.unpackbits((got + (128 if kind is OutputType.BINARY else 0)).astype(np.uint8), axis=-1)
            return np.array_equal(bits[np.abs(wanted) > _UNSURE], (wanted > 0)[np.abs(wanted) > _UNSURE])

        return Request(post(_EMBEDDINGS, {"input": text, "output_dtype": kind.value}), check=check)

    def token_ids(self, chance: random.Random) -> Request:
        items = self._all_ids(self._texts.some(chance, 3))
        value = items[0] if chance.random() < 0.5 else items
        return Request(post(_EMBEDDINGS, {"input": value}), check=self._rows(items[:1] if value is items[0] else items))

    def mixed(self, chance: random.Random) -> Request:
        first, text = self._reference.ids(self._texts.one(chance)), self._texts.one(chance)
        vocabulary = self._reference.vocabulary
        ids = (*first, *vocabulary.tokenize(text).tolist(), *vocabulary.suffix)
        pooling = chance.choice(_VECTORS)
        body = {"input": [*first, text], "pooling": pooling.value}
        return Request(post(_EMBEDDINGS, body), check=self._rows([ids], pooling))

    def native(self, chance: random.Random) -> Request:
        texts, pooling = self._texts.some(chance, 3), chance.choice([*_VECTORS, PoolingType.NONE])
        path, field = chance.choice([("/embedding", "content"), ("/embeddings", "input")])
        wanted = [self._reference.rows(ids, pooling) for ids in self._all_ids(texts)]

        def check(content: bytes) -> bool:
            items = orjson.loads(content)
            return self._all_agree([np.asarray(item["embedding"], dtype=np.float32) for item in items], wanted)

        return Request(post(path, {field: texts, "pooling": pooling.value}), check=check)

    def truncated(self, chance: random.Random) -> Request:
        text = " ".join(chance.choice(self._texts.long) for _ in range(12))
        vocabulary, longest = self._reference.vocabulary, self._reference.longest_tokens
        room = longest - len(vocabulary.prefix) - len(vocabulary.suffix)
        words = vocabulary.tokenize(text)
        assert len(words) > room
        side = chance.choice(["start", "end"])
        kept = words[len(words) - room :] if side == "start" else words[:room]
        ids = (*vocabulary.prefix, *kept.tolist(), *vocabulary.suffix)
        return Request(post(_EMBEDDINGS, {"input": text, "truncate": side}), check=self._rows([ids]))

    def sent_slowly(self, chance: random.Random) -> Request:
        return self._in_manner(self.several(chance), Manner.SENDS_SLOWLY)

    def read_slowly(self, chance: random.Random) -> Request:
        text = chance.choice(self._texts.long)
        body = {"input": text, "pooling": "none"}
        request = Request(post(_EMBEDDINGS, body), check=self._rows([self._reference.ids(text)], PoolingType.NONE))
        return self._in_manner(request, Manner.READS_SLOWLY)

    def leaving(self, chance: random.Random) -> Request:
        return self._in_manner(chance.choice([self.one, self.several, self.numpy])(chance), Manner.LEAVES)

    @staticmethod
    def _in_manner(request: Request, manner: Manner) -> Request:
        return Request(request.raw, request.statuses, request.check, manner)

    def _all_ids(self, texts: Sequence[str]) -> list[Ids]:
        return [self._reference.ids(text) for text in texts]

    def _rows(
        self,
        items: Sequence[Ids],
        pooling: PoolingType = PoolingType.MEAN,
        dimensions: int | None = None,
        p: float | None = None,
    ) -> Check:
        """Check OpenAI's shape, in JSON or base64."""

        def check(content: bytes) -> bool:
            wanted = [self._reference.rows(ids, pooling, dimensions, p) for ids in items]
            return self._all_agree([_printed_rows(item) for item in orjson.loads(content)["data"]], wanted)

        return check

    def _all_agree(self, got: Sequence[Float32], wanted: Sequence[Float32]) -> bool:
        return len(got) == len(wanted) and all(map(self._reference.agree, got, wanted))


def _printed_rows(item: dict[str, Any]) -> Float32:
    value = item["embedding"]
    if isinstance(value, str):
        numbers = np.frombuffer(base64.b64decode(value), dtype="<f4")
        return numbers.reshape(-1, item["shape"][-1])
    rows = np.asarray(value, dtype=np.float32)
    return rows if rows.ndim == 2 else rows[None]
