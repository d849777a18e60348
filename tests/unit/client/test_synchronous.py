"""The blocking client against the real application over the fake engine."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterator

import httpx
import numpy as np
import pytest

from cluster.client import Client
from cluster.errors import (
    InputTooLong,
    InvalidRequest,
    ModelNotFound,
    PayloadTooLarge,
    PoolingUnavailable,
    Unauthorized,
)
from cluster.types import PoolingType
from tests.support.pipelines import DIMENSIONS, SHORT_MODEL, expected_rows, fake_config, ids_of
from tests.unit.client.conftest import Double, Recorder

OpenClient = Callable[..., Client]
TEXTS = [f"text {number} {'word ' * (number % 5)}" for number in range(23)]
LONG = "word " * 40


class TestEmbed:
    @pytest.mark.parametrize("pooling", ["mean", "cls", "last", "weighted"])
    def test_vectors_come_in_the_order_of_the_texts(self, open_client: OpenClient, pooling: str) -> None:
        vectors = open_client(request_items=3).embed(TEXTS, pooling=pooling)
        expected = np.concatenate([expected_rows(text, PoolingType(pooling)) for text in TEXTS])
        assert isinstance(vectors, np.ndarray)
        assert vectors.dtype == np.float32
        assert vectors.shape == (23, DIMENSIONS)
        np.testing.assert_array_equal(vectors, expected)

    def test_pooling_type_none_returns_a_matrix_for_each_text(self, recorder: tuple[Recorder, Client]) -> None:
        transport, client = recorder
        matrices = client.embed(TEXTS, pooling="none")
        assert len(matrices) == 23
        for text, matrix in zip(TEXTS, matrices, strict=True):
            assert matrix is not None
            np.testing.assert_array_equal(matrix, expected_rows(text, PoolingType.NONE))
        assert {answer.headers["content-type"] for answer in transport.answers} == {"application/octet-stream"}

    def test_none_and_one_vector_agree(self, open_client: OpenClient) -> None:
        client = open_client()
        matrix = client.embed([TEXTS[3]], pooling=PoolingType.NONE)[0]
        assert matrix is not None
        mean = client.embed([TEXTS[3]], pooling=PoolingType.MEAN, normalize=False)
        np.testing.assert_allclose(matrix.mean(axis=0), mean[0], rtol=1e-6)

    def test_no_float_is_printed(self, recorder: tuple[Recorder, Client]) -> None:
        transport, client = recorder
        client.embed(TEXTS)
        assert [len(body["input"]) for body in transport.bodies] == [4, 4, 4, 4, 4, 3]
        assert {body["encoding_format"] for body in transport.bodies} == {"base64"}

    def test_token_ids_are_taken_as_they_are(self, open_client: OpenClient) -> None:
        ids = ids_of("a few words")
        vectors = open_client().embed([ids, ids.tolist(), tuple(ids.tolist()), "a few words"])
        assert (vectors == vectors[0]).all()

    def test_options_reach_the_server(self, open_client: OpenClient) -> None:
        client = open_client()
        prompted = client.embed(["a text"], pooling="mean", input_type="query")
        np.testing.assert_array_equal(prompted, client.embed(["query: a text"], pooling="mean"))
        raw = client.embed(["a text"], pooling="mean", normalize=False)
        np.testing.assert_array_equal(raw, expected_rows("a text", PoolingType.MEAN, p=-1))
        assert client.embed(["a text"], dimensions=4, model=SHORT_MODEL).shape == (1, 4)
        cut = client.embed([LONG], model=SHORT_MODEL, truncate="end", lane="bulk", timeout_s=30)
        assert np.isfinite(cut).all()

    def test_vectors_may_be_written_to(self, open_client: OpenClient) -> None:
        client = open_client()
        client.embed(["a text"])[0, 0] = 1
        (matrix,) = client.embed(["a text"], pooling="none")
        assert matrix is not None
        matrix[0, 0] = 1

    def test_any_iterable_will_do(self, open_client: OpenClient) -> None:
        client = open_client(request_items=3)
        expected = client.embed(TEXTS)
        for texts in (iter(TEXTS), (text for text in TEXTS), dict.fromkeys(TEXTS), np.array(TEXTS)):
            np.testing.assert_array_equal(client.embed(texts), expected)

    def test_nothing_in_nothing_out(self, open_client: OpenClient) -> None:
        client = open_client()
        assert client.embed([]).shape == (0, 0)
        assert client.embed([], dimensions=4).shape == (0, 4)
        assert client.embed([], pooling="none") == []

    def test_one_string_is_not_taken_for_its_characters(self, open_client: OpenClient) -> None:
        with pytest.raises(InvalidRequest, match=r"one string; pass a list: \[text\]"):
            open_client().embed("a text")

    def test_an_unknown_option_is_an_error(self, open_client: OpenClient) -> None:
        with pytest.raises(TypeError, match="no option 'dimension'; it has: dimensions"):
            open_client().embed(["a"], dimension=4)  # type: ignore[call-overload]
        with pytest.raises(InvalidRequest, match="on_error is 'ignore'"):
            open_client().embed(["a"], on_error="ignore")  # type: ignore[call-overload]

    def test_progress_counts_items_and_tokens(self, open_client: OpenClient) -> None:
        seen: list[tuple[int, int]] = []
        open_client(request_items=10).embed(TEXTS, progress=lambda items, tokens: seen.append((items, tokens)))
        tokens = [len(ids_of(text)) for text in TEXTS]
        assert seen == [(10, sum(tokens[:10])), (20, sum(tokens[:20])), (23, sum(tokens))]

    def test_batches_say_what_made_them(self, open_client: OpenClient) -> None:
        batches = list(open_client(request_items=10).embed_batches(TEXTS, pooling="cls"))
        assert [(batch.start, len(batch)) for batch in batches] == [(0, 10), (10, 10), (20, 3)]
        assert {(batch.model, batch.pooling) for batch in batches} == {("fake", "cls")}
        assert len({batch.fingerprint for batch in batches}) == 1
        assert batches[0].fingerprint
        assert batches[0].tokens == [len(ids_of(text)) for text in TEXTS[:10]]

    def test_truncation_is_counted(self, open_client: OpenClient) -> None:
        client = open_client()
        for pooling in ("mean", "cls"):
            (batch,) = client.embed_batches([LONG, "short"], model=SHORT_MODEL, truncate="end", pooling=pooling)
            assert batch.truncated_tokens == len(ids_of(LONG)) - 16

    def test_iterating_yields_index_and_vector(self, open_client: OpenClient) -> None:
        client = open_client(request_items=4)
        expected = client.embed(TEXTS)
        pairs = list(client.embed_iter(TEXTS))
        assert [index for index, _ in pairs] == list(range(23))
        np.testing.assert_array_equal(np.stack([row for _, row in pairs if row is not None]), expected)

    def test_an_endless_iterable_is_read_only_a_little_ahead(self, open_client: OpenClient) -> None:
        pulled = 0

        def endless() -> Iterator[str]:
            nonlocal pulled
            for number in itertools.count():
                pulled += 1
                yield f"text {number}"

        stream = open_client(request_items=5, in_flight=2).embed_iter(endless())
        indices = [index for index, _ in itertools.islice(stream, 100)]
        stream.close()
        assert indices == list(range(100))
        # Four requests ahead of the one that is being handed out.
        assert pulled <= 100 + 4 * 5

    def test_the_iterable_is_read_in_the_callers_thread(self, open_client: OpenClient) -> None:
        readers = set()

        def texts() -> Iterator[str]:
            for number in range(9):
                readers.add(threading.current_thread())
                yield str(number)

        open_client(request_items=2).embed(texts())
        assert readers == {threading.current_thread()}

    def test_an_error_of_the_iterable_passes_through(self, open_client: OpenClient) -> None:
        def texts() -> Iterator[str]:
            yield from TEXTS
            raise OSError("the file ended early")

        client = open_client(request_items=2)
        with pytest.raises(OSError, match="the file ended early"):
            client.embed(texts())
        assert client.embed(["still works"]).shape == (1, DIMENSIONS)


class TestBadItems:
    BAD = (3, 9, 10, 17)

    def _texts(self) -> list[str]:
        return [LONG if index in self.BAD else f"{index} ok" for index in range(20)]

    def test_their_indices_are_those_of_the_whole_iterable(self, open_client: OpenClient) -> None:
        client = open_client(request_items=8)
        with pytest.raises(InputTooLong) as caught:
            client.embed(iter(self._texts()[4:]), model=SHORT_MODEL)
        assert caught.value.extra["items"] == [5, 6]
        assert caught.value.param == "input[5], input[6]"
        assert "2 of 8 items cannot be served: input[5]: the input has" in caught.value.message
        with pytest.raises(InputTooLong) as caught:
            client.embed(self._texts()[11:], model=SHORT_MODEL)
        assert (caught.value.param, caught.value.extra["items"]) == ("input[6]", [6])
        assert caught.value.extra["n_ctx"] == 16

    def test_what_came_before_is_handed_out_first(self, open_client: OpenClient) -> None:
        indices: list[int] = []
        with pytest.raises(InputTooLong):
            indices.extend(
                index for index, _ in open_client(request_items=4).embed_iter(self._texts()[4:], model=SHORT_MODEL)
            )
        assert indices == [0, 1, 2, 3]

    def test_skipping_them_leaves_the_others_right(self, open_client: OpenClient) -> None:
        client = open_client(request_items=8)
        texts = self._texts()
        vectors = client.embed(texts, model=SHORT_MODEL, on_error="skip")
        assert np.flatnonzero(np.isnan(vectors).any(axis=1)).tolist() == list(self.BAD)
        for index, text in enumerate(texts):
            if index not in self.BAD:
                np.testing.assert_array_equal(vectors[[index]], expected_rows(text, PoolingType.MEAN))

    def test_each_skipped_item_has_its_own_error(self, open_client: OpenClient) -> None:
        texts: list[object] = [*self._texts(), "", None, [999_999], "\ud800", 5.0, [1.5], [], "ok"]
        batches = list(
            open_client(request_items=16).embed_batches(texts, model=SHORT_MODEL, on_error="skip")  # type: ignore[arg-type]
        )
        errors = {index: error for batch in batches for index, error in batch.errors.items()}
        assert sorted(errors) == [*self.BAD, 20, 21, 22, 23, 24, 25, 26]
        assert {type(errors[index]) for index in self.BAD} == {InputTooLong}
        for index, said in {
            20: r"input[20] is an empty text",
            21: r"input[21] is of type NoneType; pass a text or a list of token ids",
            22: r"token id 999999 is outside the model's vocabulary",
            23: r"input[23] cannot be sent as JSON",
            24: r"input[24] is of type float",
            26: r"input[26] is an empty list of token ids",
        }.items():
            assert said in errors[index].message
            assert errors[index].extra["items"] == [index]
            assert errors[index].param == f"input[{index}]"

    def test_skipped_matrices_are_none(self, open_client: OpenClient) -> None:
        matrices = open_client().embed(["a", "", "b"], pooling="none", on_error="skip")
        assert [matrix is None for matrix in matrices] == [False, True, False]

    def test_items_that_cannot_be_sent_end_the_call_with_all_their_indices(self, open_client: OpenClient) -> None:
        with pytest.raises(InvalidRequest, match=r"input\[1\] is an empty text.* \(and 1 more bad items") as caught:
            open_client().embed(["a", "", "b", ""])
        assert caught.value.extra["items"] == [1, 3]

    def test_all_bad_is_all_nan(self, open_client: OpenClient) -> None:
        vectors = open_client(request_items=2).embed(["", "", "", "a"], on_error="skip")
        assert np.isnan(vectors[:3]).all()
        assert np.isfinite(vectors[3]).all()
        assert open_client().embed(["", ""], on_error="skip").shape == (2, 0)

    def test_a_request_above_the_servers_limit_is_sent_in_halves(self, open_client: OpenClient) -> None:
        client = open_client(fake_config(limits={"max_items": 3}), request_items=16)
        np.testing.assert_array_equal(
            client.embed(TEXTS, pooling="mean"),
            np.concatenate([expected_rows(text, PoolingType.MEAN) for text in TEXTS]),
        )

    def test_one_item_above_the_servers_limit_is_a_bad_item(self, open_client: OpenClient) -> None:
        client = open_client(fake_config(limits={"max_body_bytes": 500}))
        texts = ["a", "b" * 600, "c"]
        with pytest.raises(PayloadTooLarge) as caught:
            client.embed(texts)
        assert caught.value.extra["items"] == [1]
        vectors = client.embed(texts, on_error="skip")
        assert np.isnan(vectors).any(axis=1).tolist() == [False, True, False]


class TestErrors:
    def test_they_have_the_servers_classes(self, open_client: OpenClient) -> None:
        client = open_client()
        with pytest.raises(ModelNotFound, match="fake") as caught:
            client.embed(["a"], model="fakee")
        assert caught.value.extra["request_id"]
        with pytest.raises(PoolingUnavailable):
            client.embed(["a"], model=SHORT_MODEL, pooling="last")
        with pytest.raises(InvalidRequest) as wrong:
            client.embed(["a"], dimensions=5000)
        assert wrong.value.param == "dimensions"

    def test_api_keys(self, open_client: OpenClient, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TEST_KEYS", "tests:sk-test")
        config = fake_config(api_keys={"environment": "TEST_KEYS"})
        assert open_client(config, api_key="sk-test").embed(["a"]).shape == (1, DIMENSIONS)
        with pytest.raises(Unauthorized, match="unknown"):
            open_client(config, api_key="sk-wrong").embed(["a"])
        with pytest.raises(Unauthorized, match="missing"):
            open_client(config).embed(["a"])

    @pytest.mark.parametrize(
        ("options", "param"),
        [
            ({"base_url": "localhost:8000"}, "base_url"),
            ({"base_url": "http://"}, "base_url"),
            ({"base_url": "http://[::"}, "base_url"),
            ({"api_key": "schlüssel"}, "api_key"),
            ({"in_flight": 0}, "in_flight"),
            ({"request_items": 0}, None),
        ],
    )
    def test_arguments_are_checked(self, options: dict[str, object], param: str | None) -> None:
        with pytest.raises(InvalidRequest) as caught:
            Client(**options)  # type: ignore[arg-type]
        assert caught.value.param == param


class TestSmallQuestions:
    def test_tokens_and_back(self, open_client: OpenClient) -> None:
        client = open_client()
        ids = client.tokenize("a few words")
        assert ids.dtype == np.int32
        np.testing.assert_array_equal(client.tokenize("a few words", add_special=True), ids_of("a few words"))
        assert client.detokenize(ids) == client.detokenize(ids.tolist()) == "a few words"

    def test_pieces_are_bytes(self, open_client: OpenClient) -> None:
        client = open_client()
        tokens = client.tokens("für dich")
        assert [token.id for token in tokens] == client.tokenize("für dich").tolist()
        assert all(isinstance(token.piece, bytes) for token in tokens)

    def test_a_text_that_is_not_utf8_is_refused_here(self, open_client: OpenClient) -> None:
        with pytest.raises(InvalidRequest, match="cannot be sent as JSON"):
            open_client().tokenize("\ud800")

    def test_listings(self, open_client: OpenClient) -> None:
        client = open_client()
        assert [model["id"] for model in client.models()] == ["fake", SHORT_MODEL]
        assert client.info()["name"] == "poolhouse"
        assert client.health() == {"status": "ok"}


class TestBaseUrl:
    @pytest.mark.parametrize(
        ("given", "asked"),
        [
            ("http://host:1/", "http://host:1/v1/embeddings"),
            ("https://host/v1", "https://host/v1/embeddings"),
            ("http://host/prefix/v1/", "http://host/prefix/v1/embeddings"),
        ],
    )
    def test_openais_form_and_prefixes_are_understood(self, given: str, asked: str) -> None:
        double = Double(faults=deque([httpx.Response(400, json={"error": {}})]))
        with Client(given, transport=double.transport) as client, pytest.raises(InvalidRequest):
            client.embed(["1"])
        assert str(double.requests[0].url) == asked
