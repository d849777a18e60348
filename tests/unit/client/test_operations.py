"""Reranking and classification against the double; the shapes are those of ``POST /v1/rerank`` and ``POST /v1/classify``."""

from __future__ import annotations

from collections import deque

import httpx
import numpy as np
import pytest

from cluster.api.errors import error_body
from cluster.client import UnexpectedAnswer
from cluster.errors import InputTooLong, InvalidRequest
from tests.unit.client.conftest import Double

DOCUMENTS = [str(number) for number in (10, 6, 3, 13, 20, 0, 7)]


def _too_long(param: str) -> httpx.Response:
    status, body, headers = error_body(InputTooLong("too long", param))
    return httpx.Response(status, content=body, headers=headers)


class TestRerank:
    def test_the_parts_become_one_ranking(self, double: Double) -> None:
        with double.client(request_items=3) as client:
            ranking = client.rerank("a query", iter(DOCUMENTS))
        # 6, 13 and 20 score 6 and stand in their own order.
        assert ranking.indices.tolist() == [1, 3, 4, 0, 2, 5, 6]
        assert ranking.scores.tolist() == [6, 6, 6, 3, 3, 0, 0]
        assert ranking.indices.dtype == np.int64
        assert ranking.scores.dtype == np.float32
        assert (ranking.score_type, ranking.model, ranking.tokens, len(ranking)) == ("logit", "m", 21, 7)
        assert [len(body["documents"]) for body in double.bodies] == [3, 3, 1]

    def test_top_n_is_of_all(self, double: Double) -> None:
        with double.client(request_items=2) as client:
            assert list(client.rerank("a query", DOCUMENTS, top_n=2)) == [(1, 6.0), (3, 6.0)]
        assert len(double.bodies) == 4
        assert not any("top_n" in body for body in double.bodies)

    def test_documents_can_be_returned(self, double: Double) -> None:
        with double.client() as client:
            assert client.rerank("q", iter(DOCUMENTS), return_documents=True, top_n=3).documents == ["6", "13", "20"]
            assert client.rerank("q", DOCUMENTS).documents is None

    def test_options_reach_the_server(self, double: Double) -> None:
        with double.client() as client:
            client.rerank(
                "q", ["1"], model="m", instruction="i", strategy="cross_encoder", raw_scores=True, timeout_s=60
            )
        assert double.bodies == [
            {
                "documents": ["1"],
                "query": "q",
                "model": "m",
                "instruction": "i",
                "strategy": "cross_encoder",
                "raw_scores": True,
                "timeout_s": 60,
            }
        ]

    def test_an_unknown_strategy_is_refused_by_the_servers_own_reading(self, double: Double) -> None:
        with double.client() as client, pytest.raises(InvalidRequest, match="strategy is the string 'maxsim'"):
            client.rerank("q", ["1"], strategy="maxsim")

    def test_a_long_query_makes_smaller_requests(self, double: Double) -> None:
        with double.client(request_bytes=1000) as client:
            client.rerank("q" * 400, DOCUMENTS)
        assert max(len(body["documents"]) for body in double.bodies) == 2

    def test_bad_documents_are_named_or_left_out(self, double: Double) -> None:
        documents = ["1", "2", "3", "4", "5"]
        with double.client(request_items=2, in_flight=1) as client:
            double.faults = deque([_too_long("documents[1]")])
            with pytest.raises(InputTooLong) as caught:
                client.rerank("q", documents)
            assert caught.value.extra["items"] == [1]
            double.faults = deque([_too_long("documents[1]")])
            ranking = client.rerank("q", documents, on_error="skip")
        assert ranking.indices.tolist() == [4, 3, 2, 0]
        assert list(ranking.errors) == [1]

    def test_nothing_to_rank(self, double: Double) -> None:
        with double.client() as client:
            ranking = client.rerank("q", [], return_documents=True)
        assert (len(ranking), ranking.documents) == (0, [])

    def test_arguments_are_checked(self, double: Double) -> None:
        with double.client() as client:
            with pytest.raises(InvalidRequest, match="top_n is 0"):
                client.rerank("q", ["1"], top_n=0)
            with pytest.raises(InvalidRequest, match="documents is one string"):
                client.rerank("q", "1")
            with pytest.raises(InvalidRequest, match=r"documents\[1\] is of type int"):
                client.rerank("q", ["1", 2])  # type: ignore[list-item]


class TestClassify:
    def test_labels_and_scores_in_order(self, double: Double) -> None:
        with double.client(request_items=2) as client:
            found = client.classify(iter(["1", "2", "3"]), model="m")
        assert found.labels == ["label of 1", "label of 2", "label of 3"]
        assert found.scores.dtype == np.float32
        assert found.scores.shape == (3, 2)
        assert (found.score_type, found.model) == ("probs", "m")

    def test_pairs(self, double: Double) -> None:
        with double.client() as client:
            found = client.classify([("1", "2"), ["3", "4"]], pairs=True)
            assert double.bodies == [{"pairs": [["1", "2"], ["3", "4"]]}]
            assert len(found.labels) == 2
            for bad in ("12", ("1",), ("1", 2), None):
                with pytest.raises(InvalidRequest, match=r"pairs\[0\] is not a pair"):
                    client.classify([bad], pairs=True)  # type: ignore[list-item]

    def test_skipped_items_have_neither_label_nor_scores(self, double: Double) -> None:
        with double.client() as client:
            found = client.classify(["1", "", "3"], on_error="skip")
        assert found.labels == ["label of 1", None, "label of 3"]
        assert np.isnan(found.scores).all(axis=1).tolist() == [False, True, False]
        assert list(found.errors) == [1]

    def test_nothing_to_classify(self, double: Double) -> None:
        with double.client() as client:
            assert client.classify([]).scores.shape == (0, 0)


EMBEDDING = {"index": 0, "embedding": "AACAPwAAAEA=", "shape": [2]}


class TestAnswersThatAreNot:
    @pytest.mark.parametrize(
        "answer",
        [
            httpx.Response(200, text="<html>log in</html>"),
            httpx.Response(200, json=[]),
            httpx.Response(200, json={}),
            httpx.Response(200, json={"data": []}),
            httpx.Response(200, json={"data": [EMBEDDING, EMBEDDING]}),
            httpx.Response(200, json={"data": [{**EMBEDDING, "index": 1}]}),
            httpx.Response(200, json={"data": [{**EMBEDDING, "embedding": "A"}]}),
            httpx.Response(200, json={"data": [{**EMBEDDING, "embedding": None}]}),
            httpx.Response(200, json={"data": [{**EMBEDDING, "shape": [3]}]}),
            httpx.Response(200, json={"data": [5]}),
            httpx.Response(200, content=b"no array", headers={"content-type": "application/octet-stream"}),
            httpx.Response(307, headers={"location": "http://elsewhere"}),
        ],
    )
    def test_they_are_named_for_what_they_are(self, double: Double, answer: httpx.Response) -> None:
        double.faults = deque([answer])
        with double.client() as client, pytest.raises(UnexpectedAnswer, match="base_url"):
            client.embed(["1"])

    def test_numbers_as_json_are_read_too(self, double: Double) -> None:
        double.faults = deque([httpx.Response(200, json={"data": [{"index": 0, "embedding": [1.5, 2.5]}]})])
        with double.client() as client:
            assert client.embed(["1"]).tolist() == [[1.5, 2.5]]

    def test_a_matrix_in_base64_is_read_too(self, double: Double) -> None:
        """A model whose default pooling type is none answers so where no type was asked for."""
        entry = {**EMBEDDING, "shape": [2, 1]}
        double.faults = deque([httpx.Response(200, json={"data": [entry]})])
        with double.client() as client:
            (matrix,) = client.embed(["1"])
        assert matrix.tolist() == [[1], [2]]

    def test_a_model_that_changes_during_the_call_is_noticed(self, double: Double) -> None:
        answers = [
            httpx.Response(200, json={"data": [EMBEDDING]}, headers={"x-poolhouse-fingerprint": mark})
            for mark in ("old", "old", "new")
        ]
        double.faults = deque(answers)
        with double.client(request_items=1, in_flight=1) as client:
            with pytest.raises(UnexpectedAnswer, match="from old to new at item 2"):
                client.embed(["1", "2", "3"])
            double.faults = deque([httpx.Response(200, json={"data": [{"index": 0, "embedding": [1.5, 2, 3]}]})])
            with pytest.raises(UnexpectedAnswer, match="item 1 came back with 2 dimensions and those before it with 3"):
                client.embed(["1", "2"])

    @pytest.mark.parametrize("results", [None, [{}], [{"index": 1, "relevance_score": 1}], [{"index": 0}]])
    def test_a_ranking_that_is_none(self, double: Double, results: object) -> None:
        double.faults = deque([httpx.Response(200, json={"results": results})])
        with double.client() as client, pytest.raises(UnexpectedAnswer):
            client.rerank("q", ["1"])
