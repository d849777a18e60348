"""The rerank paths over the fake engine, whose score of a pair is the share of the document's words that the query has."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

import httpx
import numpy as np
import pytest

from cluster.types import PoolingType
from tests.support.pipelines import LocalPipeline, expected_rows, fake_config, http_client, local_pipeline

QUERY = "river in paris"
DOCUMENTS = ["a river", "in paris", "unrelated words", "the paris of rivers here"]
SCORES = [0.5, 1.0, 0.0, 0.2]
BEST_FIRST = [1, 0, 3, 2]


async def post(client: httpx.AsyncClient, path: str, **body: Any) -> httpx.Response:
    return await client.post(path, json=body)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize("path", ["/rerank", "/reranking", "/v1/rerank", "/v1/reranking"])
async def test_documents_come_best_first_with_raw_scores(client: httpx.AsyncClient, path: str) -> None:
    answer = await post(client, path, query=QUERY, documents=DOCUMENTS)
    body = answer.json()
    assert [result["index"] for result in body["results"]] == BEST_FIRST
    assert [result["relevance_score"] for result in body["results"]] == pytest.approx(
        [SCORES[index] for index in BEST_FIRST]
    )
    assert (body["object"], body["model"]) == ("list", "fake")
    assert (body["score_type"], body["strategy"]) == ("logit", "cross_encoder")
    assert "document" not in body["results"][0]
    assert answer.headers["x-poolhouse-score-type"] == "logit"


async def test_usage_counts_every_pair(client: httpx.AsyncClient) -> None:
    body = (await post(client, "/rerank", query="one two", documents=["three", "four five"])).json()
    assert body["usage"] == {"prompt_tokens": 5 + 6, "total_tokens": 5 + 6}
    assert sorted(result["tokens"] for result in body["results"]) == [5, 6]


@pytest.mark.parametrize(("top_n", "expected"), [(None, 4), (0, 4), (2, 2), (4, 4), (99, 4)])
async def test_top_n_takes_the_best(client: httpx.AsyncClient, top_n: int | None, expected: int) -> None:
    body = (await post(client, "/rerank", query=QUERY, documents=DOCUMENTS, top_n=top_n)).json()
    assert [result["index"] for result in body["results"]] == BEST_FIRST[:expected]


async def test_objects_are_documents_and_come_back_if_asked_for(client: httpx.AsyncClient) -> None:
    documents = [{"text": "a river"}, "in paris"]
    body = (await post(client, "/v1/rerank", query=QUERY, documents=documents, return_documents=True)).json()
    assert [result["document"]["text"] for result in body["results"]] == ["in paris", "a river"]


async def test_equal_scores_keep_the_order_of_the_request(client: httpx.AsyncClient) -> None:
    body = (await post(client, "/rerank", query=QUERY, documents=["paris"] * 30 + ["x"] + ["paris"])).json()
    assert [result["index"] for result in body["results"]] == [*range(30), 31, 30]


@pytest.mark.parametrize("switch", [{"raw_scores": False}, {"use_activation": True}])
async def test_a_probability_may_be_asked_for(client: httpx.AsyncClient, switch: dict[str, bool]) -> None:
    body = (await post(client, "/rerank", query=QUERY, documents=["in paris"], **switch)).json()
    assert body["score_type"] == "probability"
    assert body["results"][0]["relevance_score"] == pytest.approx(sigmoid(1.0))


async def test_cohere_gets_scores_between_0_and_1(client: httpx.AsyncClient) -> None:
    answer = await post(client, "/v2/rerank", model="fake", query=QUERY, documents=DOCUMENTS, top_n=2)
    body = answer.json()
    assert body["results"] == [
        {"index": 1, "relevance_score": pytest.approx(sigmoid(1.0))},
        {"index": 0, "relevance_score": pytest.approx(sigmoid(0.5))},
    ]
    assert body["meta"]["billed_units"] == {"search_units": 1}
    assert body["id"]
    raw = (await post(client, "/v2/rerank", query=QUERY, documents=DOCUMENTS, raw_scores=True)).json()
    assert raw["results"][0]["relevance_score"] == 1.0


async def test_cohere_cuts_long_documents_and_says_so(client: httpx.AsyncClient) -> None:
    body = (await post(client, "/v2/rerank", query="one", documents=["word " * 600, "word"])).json()
    cut = {result["index"]: result.get("truncated_tokens", 0) for result in body["results"]}
    assert cut == {0: 600 - (512 - 3), 1: 0}


async def test_cohere_errors_have_message_and_id(client: httpx.AsyncClient) -> None:
    answer = await client.post(
        "/v2/rerank", json={"query": "one", "documents": []}, headers={"x-request-id": "request-7"}
    )
    assert answer.status_code == 400
    assert answer.json() == {"message": "documents is an empty list; send at least one document", "id": "request-7"}


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank"])
async def test_texts_get_teis_bare_list(client: httpx.AsyncClient, path: str) -> None:
    answer = await post(client, path, query=QUERY, texts=DOCUMENTS, return_text=True)
    assert [entry["index"] for entry in answer.json()] == BEST_FIRST
    assert answer.json()[0] == {"index": 1, "score": pytest.approx(sigmoid(1.0)), "text": "in paris"}
    assert answer.headers["x-poolhouse-score-type"] == "probability"
    raw = await post(client, path, query=QUERY, texts=DOCUMENTS, raw_scores=True)
    assert raw.json()[0] == {"index": 1, "score": 1.0}
    assert raw.headers["x-poolhouse-score-type"] == "logit"


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        ({"query": "one", "texts": []}, 400, "Empty"),
        ({"query": "", "texts": ["two"]}, 400, "Empty"),
        ({"query": "one", "texts": [1]}, 422, "Validation"),
        ({"texts": ["two"]}, 422, "Validation"),
        ({"query": "one", "texts": ["word " * 600], "truncate": False}, 422, "Validation"),
        ({"query": "one", "texts": ["two"], "model": "short"}, 424, "Backend"),
        ({"query": "one", "texts": ["two"], "truncation_direction": "Up"}, 422, "Validation"),
    ],
)
async def test_texts_get_teis_errors(client: httpx.AsyncClient, body: dict[str, Any], status: int, kind: str) -> None:
    answer = await post(client, "/rerank", **body)
    assert (answer.status_code, answer.json()["error_type"]) == (status, kind)
    assert answer.json()["error"]


@pytest.mark.parametrize(("direction", "score"), [("Right", 0.0), ("Left", 1.0)])
async def test_tei_says_which_end_is_cut(client: httpx.AsyncClient, direction: str, score: float) -> None:
    text = "word " * 600 + "same " * 509
    answer = await post(
        client,
        "/rerank",
        query="same",
        texts=[text],
        truncate=True,
        truncation_direction=direction,
        raw_scores=True,
    )
    assert answer.json()[0]["score"] == score
    assert answer.headers["x-poolhouse-truncated-tokens"] == "600"


@pytest.mark.parametrize(("inputs", "width"), [("one", None), (["one", "one two"], None), ([["one"], ["a", "a"]], 2)])
async def test_predict_answers_texts_pairs_and_batches(
    client: httpx.AsyncClient, inputs: Any, width: int | None
) -> None:
    body = (await post(client, "/predict", inputs=inputs)).json()
    rows = [body] if width is None else body
    assert len(rows) == (width or 1)
    assert all(set(row[0]) == {"score", "label"} for row in rows)


async def test_similarity_is_the_cosine_of_two_vectors(client: httpx.AsyncClient) -> None:
    sentences = ["a river", "in paris"]
    answer = await post(client, "/similarity", inputs={"source_sentence": QUERY, "sentences": sentences})
    query = expected_rows(QUERY, PoolingType.MEAN)[0]
    expected = [float(query @ expected_rows(text, PoolingType.MEAN)[0]) for text in sentences]
    assert answer.json() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("first", "second"), [("text_1", "text_2"), ("queries", "documents"), ("queries", "items"), ("data_1", "data_2")]
)
async def test_score_takes_one_text_and_many(client: httpx.AsyncClient, first: str, second: str) -> None:
    body = (await post(client, "/score", **{first: QUERY, second: DOCUMENTS})).json()
    assert [entry["index"] for entry in body["data"]] == [0, 1, 2, 3]
    assert [entry["score"] for entry in body["data"]] == pytest.approx(SCORES)


@pytest.mark.parametrize("strategy", ["cross_encoder", "late_interaction", "similarity"])
async def test_score_takes_as_many_of_each(client: httpx.AsyncClient, strategy: str) -> None:
    firsts, seconds = ["one", "two words", "one"], ["one", "three", "two"]
    together = (await post(client, "/v1/score", text_1=firsts, text_2=seconds, strategy=strategy)).json()
    alone = [
        (await post(client, "/v1/score", text_1=first, text_2=second, strategy=strategy)).json()
        for first, second in zip(firsts, seconds, strict=True)
    ]
    expected = [one["data"][0]["score"] for one in alone]
    assert [entry["score"] for entry in together["data"]] == pytest.approx(expected, abs=1e-5)


async def test_score_refuses_two_texts_for_three(client: httpx.AsyncClient) -> None:
    answer = await post(client, "/score", text_1=["a", "b"], text_2=["a", "b", "c"])
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "text_1"


async def test_classify_names_the_best_label(client: httpx.AsyncClient) -> None:
    body = (await post(client, "/v1/classify", pairs=[["one two", "one"], ["one", "two"]])).json()
    assert [entry["probs"][0] for entry in body["data"]] == pytest.approx([sigmoid(1.0), 0.5])
    assert [entry["label"] for entry in body["data"]] == ["score", "score"]
    assert body["score_type"] == "probability"
    raw = (await post(client, "/v1/classify", pairs=[["one two", "one"]], raw_scores=True)).json()
    assert raw["data"][0]["scores"] == [1.0]
    single = (await post(client, "/classify", input="one")).json()
    assert len(single["data"]) == 1


async def test_late_interaction_is_max_sim_of_token_vectors(client: httpx.AsyncClient) -> None:
    answer = await post(client, "/v1/rerank", query=QUERY, documents=DOCUMENTS, strategy="late_interaction")
    body = answer.json()
    got = {result["index"]: result["relevance_score"] for result in body["results"]}
    # Each text is encoded with the prompt that the configuration has for its side.
    query = expected_rows(f"query: {QUERY}", PoolingType.NONE, 2.0)
    documents = [expected_rows(f"passage: {text}", PoolingType.NONE, 2.0) for text in DOCUMENTS]
    expected = [(query @ document.T).max(axis=1).sum(dtype=np.float64) for document in documents]
    assert [got[index] for index in range(4)] == pytest.approx(expected, abs=1e-5)
    assert (body["score_type"], body["strategy"]) == ("maxsim", "late_interaction")
    unit = (await post(client, "/v2/rerank", query=QUERY, documents=DOCUMENTS, strategy="late_interaction")).json()
    scores = {result["index"]: result["relevance_score"] for result in unit["results"]}
    means = [max(0.0, score / len(query)) for score in expected]
    assert [scores[index] for index in range(4)] == pytest.approx(means, abs=1e-5)


@pytest.mark.parametrize("strategy", ["cross_encoder", "late_interaction", "similarity"])
async def test_many_documents_are_split_and_merged(strategy: str) -> None:
    documents = [f"text {number % 50} of {number % 7}" for number in range(10_000)]
    small = {"batching": {"message_tokens": 512, "message_items": 64}}
    with local_pipeline(fake_config(**small)) as local, local_pipeline(fake_config()) as whole:
        body = {"query": "text 3 of 5", "documents": documents, "top_n": 25, "strategy": strategy}
        async with http_client(local) as one, http_client(whole) as other:
            split = (await one.post("/v1/rerank", json=body)).json()["results"]
            same = (await other.post("/v1/rerank", json=body)).json()["results"]
    assert len(split) == 25
    assert [result["relevance_score"] for result in split] == pytest.approx(
        [result["relevance_score"] for result in same], abs=1e-5
    )
    if strategy == "cross_encoder":
        assert split == same
        assert {documents[result["index"]] for result in split} == {
            "text 3 of 3",
            "text 3 of 5",
            "text 5 of 3",
            "text 5 of 5",
        }


async def test_a_cap_on_documents_cuts_them_in_every_strategy(client: httpx.AsyncClient) -> None:
    for strategy, tokens in (("cross_encoder", 3 + 2), ("late_interaction", 4 + 2), ("similarity", 4 + 2)):
        body = (
            await post(
                client,
                "/v1/rerank",
                query="one",
                documents=["a b c d e"],
                max_tokens_per_doc=2,
                strategy=strategy,
            )
        ).json()
        result = body["results"][0]
        assert (result["tokens"], result["truncated_tokens"]) == (tokens, 3)


@pytest.mark.parametrize(("tokens", "kept"), [(-1, 512), (40, 40), (9_999, 512)])
async def test_vllms_clients_cut_pairs(client: httpx.AsyncClient, tokens: int, kept: int) -> None:
    for path, names in (("/v1/rerank", ("query", "documents")), ("/score", ("text_1", "text_2"))):
        body = {names[0]: "one", names[1]: ["word " * 600], "truncate_prompt_tokens": tokens}
        answer = (await post(client, path, **body)).json()
        assert answer["usage"]["total_tokens"] == kept
    vectors = await post(
        client, "/rerank", query="one", documents=["a b"], truncate_prompt_tokens=1, strategy="similarity"
    )
    assert vectors.json()["results"][0]["truncated_tokens"] == 1


@pytest.mark.parametrize("direction", [("left", 1.0), ("right", 0.0)])
async def test_vllms_clients_say_which_side_is_cut(client: httpx.AsyncClient, direction: tuple[str, float]) -> None:
    documents = ["word " * 600 + "same " * 509]
    body = {"query": "same", "documents": documents, "truncate_prompt_tokens": -1, "truncation_side": direction[0]}
    assert (await post(client, "/rerank", **body)).json()["results"][0]["relevance_score"] == direction[1]


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"truncate_prompt_tokens": 0}, "truncate_prompt_tokens"),
        ({"documents": []}, "documents"),
        ({"documents": None}, "documents"),
        ({"documents": 123}, "documents"),
        ({"documents": "one"}, "documents"),
        ({"documents": ["a", 2, None]}, "documents[1], documents[2]"),
        ({"documents": ["a", {"title": "b"}]}, "documents[1]"),
        ({"query": ""}, "query"),
        ({"query": None}, "query"),
        ({"query": ["a"]}, "query"),
        ({"query": "word " * 600}, "query"),
        ({"query": "word " * 600, "truncate": "end"}, "query"),
        ({"query": "word " * 600, "strategy": "late_interaction"}, "query"),
        ({"query": "word " * 600, "truncate": "end", "strategy": "similarity"}, "query"),
        ({"documents": ["a", "word " * 600]}, "documents[1]"),
        ({"documents": ["a", "word " * 600], "strategy": "late_interaction"}, "documents[1]"),
        ({"top_n": -1}, "top_n"),
        ({"top_n": "two"}, "top_n"),
        ({"strategy": "magic"}, "strategy"),
        ({"instruction": "judge"}, "instruction"),
        ({"instruction": "judge", "strategy": "similarity"}, "instruction"),
        ({"max_tokens_per_doc": 0}, "max_tokens_per_doc"),
        ({"model": "short"}, "model"),
        ({"nonsense": 1, "strict": True}, "nonsense"),
    ],
)
async def test_bad_input_is_refused_by_name(client: httpx.AsyncClient, changes: dict[str, Any], param: str) -> None:
    body = {"query": QUERY, "documents": DOCUMENTS, **changes}
    answer = await client.post("/v1/rerank", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


async def test_a_query_that_is_too_long_is_refused_with_both_lengths(client: httpx.AsyncClient) -> None:
    error = (await post(client, "/rerank", query="word " * 600, documents=["a"])).json()["error"]
    assert (error["n_prompt_tokens"], error["n_ctx"]) == (602, 512)


@pytest.mark.parametrize(
    ("path", "field"), [("/v1/rerank", "documents"), ("/v2/rerank", "documents"), ("/rerank", "texts")]
)
async def test_too_many_documents_are_refused_with_the_limit(client: httpx.AsyncClient, path: str, field: str) -> None:
    answer = await post(client, path, query="one", **{field: ["two"] * 100_001})
    assert answer.status_code == 413
    assert "100001" in answer.text
    assert "50000" in answer.text


async def test_one_bad_request_leaves_its_neighbours_whole(local: LocalPipeline) -> None:
    async with http_client(local) as client:
        bad = await client.post("/rerank", json={"query": "word " * 600, "documents": ["a"]})
        good = await client.post("/rerank", json={"query": QUERY, "documents": DOCUMENTS})
    assert (bad.status_code, good.status_code) == (400, 200)


async def test_an_api_keys_limits_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    digest = hashlib.sha256(b"secret").hexdigest()
    record = {"id": "few", "sha256": digest, "models": ["short"], "max_items": 2}
    monkeypatch.setenv("RERANK_KEYS", json.dumps([record]))
    with local_pipeline(fake_config(api_keys={"environment": "RERANK_KEYS"})) as local:
        async with http_client(local) as client:
            nobody = await post(client, "/v2/rerank", query="a", documents=["b"])
            client.headers["authorization"] = "Bearer secret"
            other = await post(client, "/v2/rerank", query="a", documents=["b"])
            body = {"model": "short", "strategy": "similarity", "query": "a"}
            many = await post(client, "/v2/rerank", **body, documents=["b"] * 3)
            few = await post(client, "/v2/rerank", **body, documents=["b"] * 2)
    assert (nobody.status_code, other.status_code, many.status_code, few.status_code) == (401, 403, 413, 200)
    assert set(nobody.json()) == {"message", "id"}
