"""The kinds of requests that rerank, classify, tokenize or list, in the shapes of all dialects."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import orjson

from cluster.types import Float32, PoolingType
from tests.mix.reference import Reference
from tests.mix.requests import OK, Check, Kind, Make, Request, Texts, http, post

_NO_HEAD = frozenset({400})
_NO_HEAD_TEI = frozenset({424})


def score_kinds(reference: Reference, texts: Texts) -> Iterator[Kind]:
    """Yield every kind; what needs a classification head is refused where the model has none."""
    scores = _Scores(reference, texts)
    yield Kind("rerank (Jina, llama-server, vLLM)", 2, scores.rerank("/v1/rerank", "documents", _best_first))
    yield Kind("rerank (Cohere)", 2, scores.rerank("/v2/rerank", "documents", _best_first, unit_interval=True))
    yield Kind("rerank (TEI)", 1, scores.rerank("/rerank", "texts", _bare_best_first, unit_interval=True))
    yield Kind("late interaction", 1, scores.compared("late_interaction", PoolingType.NONE))
    yield Kind("similarity", 1, scores.compared("similarity", PoolingType.MEAN))
    yield Kind("similarity (TEI)", 1, scores.sentences)
    yield Kind("score (vLLM)", 1, scores.rerank("/score", "text_2", _in_order, query_field="text_1"))
    yield Kind("classify (vLLM)", 1, scores.classify)
    yield Kind("predict (TEI)", 1, scores.predict)
    yield Kind("pooling rank", 2, scores.rank)
    yield Kind("tokenize", 2, scores.tokenize)
    yield Kind("detokenize", 1, scores.detokenize)
    yield Kind("models, info, health", 1, scores.listed)


class _Scores:
    def __init__(self, reference: Reference, texts: Texts) -> None:
        self._reference = reference
        self._texts = texts

    def rerank(
        self,
        path: str,
        field: str,
        read: Callable[[Any, int], list[float]],
        *,
        query_field: str = "query",
        unit_interval: bool = False,
    ) -> Make:
        """A request that names no strategy: the head's, or by late interaction without one."""

        def make(chance: random.Random) -> Request:
            query, documents = self._texts.one(chance), self._texts.some(chance, 4)
            if self._reference.ranks:
                wanted = self._reference.pairs(query, documents, unit_interval=unit_interval)
            else:
                wanted = self._reference.similarities(query, documents, PoolingType.NONE)
                if unit_interval:
                    wanted = np.clip(wanted / len(self._reference.ids(query)), 0.0, 1.0)
            check = self._check(read, wanted, by_head=self._reference.ranks)
            return Request(post(path, {query_field: query, field: documents}), check=check)

        return make

    def compared(self, strategy: str, pooling: PoolingType) -> Make:
        def make(chance: random.Random) -> Request:
            query, documents = self._texts.one(chance), self._texts.some(chance, 4)
            wanted = self._reference.similarities(query, documents, pooling)
            body = {"query": query, "documents": documents, "strategy": strategy}
            return Request(post("/rerank", body), check=self._check(_best_first, wanted))

        return make

    def sentences(self, chance: random.Random) -> Request:
        query, documents = self._texts.one(chance), self._texts.some(chance, 4)
        wanted = self._reference.similarities(query, documents, PoolingType.MEAN)
        body = {"inputs": {"source_sentence": query, "sentences": documents}}
        return Request(post("/similarity", body), check=self._check(lambda answer, _: list(answer), wanted))

    def classify(self, chance: random.Random) -> Request:
        text = self._texts.one(chance)
        return self._of_one(
            post("/classify", {"input": text}), text, lambda answer, _: answer["data"][0]["probs"], _NO_HEAD
        )

    def predict(self, chance: random.Random) -> Request:
        text = self._texts.one(chance)
        return self._of_one(
            post("/predict", {"inputs": text}), text, lambda answer, _: [answer[0]["score"]], _NO_HEAD_TEI
        )

    def rank(self, chance: random.Random) -> Request:
        text = self._texts.one(chance)
        raw = post("/v1/embeddings", {"input": text, "pooling": "rank"})
        if not self._reference.ranks:
            return Request(raw, _NO_HEAD)
        wanted = self._reference.text(text, unit_interval=False)
        return Request(raw, check=self._check(lambda answer, _: answer["data"][0]["embedding"], wanted, by_head=True))

    def tokenize(self, chance: random.Random) -> Request:
        text = self._texts.one(chance)
        wanted = {"tokens": self._reference.vocabulary.tokenize(text).tolist()}
        return Request(post("/tokenize", {"content": text}), check=lambda content: orjson.loads(content) == wanted)

    def detokenize(self, chance: random.Random) -> Request:
        ids = self._reference.vocabulary.tokenize(self._texts.one(chance))
        wanted = self._reference.vocabulary.detokenize(ids)

        def check(content: bytes) -> bool:
            text = orjson.loads(content)["content"]
            # The fake vocabulary knows the words that its own process has seen; others it prints by their numbers.
            return len(text.split()) == len(ids) if self._reference.exact else text == wanted

        return Request(post("/detokenize", {"tokens": ids.tolist()}), check=check)

    def listed(self, chance: random.Random) -> Request:
        path = chance.choice(["/v1/models", f"/v1/models/{self._reference.model}", "/info", "/health"])
        wanted = b'"ok"' if path == "/health" else self._reference.model.encode()
        return Request(http(path, None, method="GET"), check=lambda content: wanted in content)

    def _of_one(
        self, raw: bytes, text: str, read: Callable[[Any, int], list[float]], without_head: frozenset[int]
    ) -> Request:
        if not self._reference.ranks:
            return Request(raw, without_head)
        return Request(raw, OK, self._check(read, self._reference.text(text, unit_interval=True), by_head=True))

    def _check(self, read: Callable[[Any, int], list[float]], wanted: Float32, *, by_head: bool = False) -> Check:
        def check(content: bytes) -> bool:
            got = read(orjson.loads(content), len(wanted))
            return self._reference.agree_scores(got, wanted, by_head=by_head)

        return check


def _best_first(answer: Any, count: int) -> list[float]:
    """Scores in the order of the request; not numbers where the order is not that of the scores."""
    return _sorted_back([(result["index"], result["relevance_score"]) for result in answer["results"]], count)


def _bare_best_first(answer: Any, count: int) -> list[float]:
    return _sorted_back([(result["index"], result["score"]) for result in answer], count)


def _sorted_back(results: list[tuple[int, float]], count: int) -> list[float]:
    printed = [score for _, score in results]
    if printed != sorted(printed, reverse=True):
        return []
    scores = [float("nan")] * count
    for index, score in results:
        scores[index] = score
    return scores


def _in_order(answer: Any, count: int) -> list[float]:
    return [item["score"] for item in answer["data"]]
