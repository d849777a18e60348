from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest

from cluster.api.errors import error_body
from cluster.client import Retries, ServerUnreachable
from cluster.client.errors import retry_after
from cluster.client.retries import Deadline, wire_timeout_s
from cluster.errors import (
    DeadlineExceeded,
    InvalidRequest,
    MethodNotAllowed,
    ModelNotFound,
    NotReady,
    Overloaded,
    PermissionDenied,
    PoisonousInput,
    PoolhouseError,
    ReplicaLost,
    RequestTimeout,
    Unauthorized,
    UnsupportedMediaType,
)
from tests.unit.client.conftest import Double, Fault, Time


def answer(error: PoolhouseError) -> httpx.Response:
    status, body, headers = error_body(error)
    return httpx.Response(status, content=body, headers=headers)


PASSING: list[Fault] = [
    answer(Overloaded("the queue is full")),
    answer(NotReady("still starting")),
    answer(ReplicaLost("a replica died")),
    answer(RequestTimeout("the body stalled while others needed its room")),
    httpx.Response(408, text="<html>Request Timeout</html>"),
    httpx.Response(502, text="<html>Bad Gateway</html>"),
    httpx.Response(503),
    httpx.ConnectError("connection refused"),
    httpx.ConnectTimeout("timed out"),
    httpx.ReadTimeout("timed out"),
    httpx.ReadError("connection reset"),
    httpx.WriteError("broken pipe"),
    httpx.RemoteProtocolError("server disconnected without sending a response"),
]
LASTING: list[PoolhouseError] = [
    InvalidRequest("bad"),
    Unauthorized("no key"),
    PermissionDenied("not yours"),
    ModelNotFound("no such model"),
    MethodNotAllowed("no"),
    UnsupportedMediaType("no"),
    PoisonousInput("kills", "input"),
    PoolhouseError("a fault inside"),
    DeadlineExceeded("too late"),
]


class TestWhatIsRepeated:
    @pytest.mark.parametrize("fault", PASSING, ids=repr)
    def test_what_may_pass(self, double: Double, time: Time, fault: Fault) -> None:
        double.faults = deque([fault, fault])
        with double.client(time) as client:
            assert client.embed(["7"]).tolist() == [[7, 7]]
        assert len(double.requests) == 3
        assert len(time.slept_s) == 2
        assert len({request.headers["x-request-id"] for request in double.requests}) == 1
        assert double.bodies[0] == double.bodies[2]

    @pytest.mark.parametrize("error", LASTING, ids=lambda error: error.code)
    def test_not_what_would_fail_again(self, double: Double, time: Time, error: PoolhouseError) -> None:
        double.faults = deque([answer(error)])
        with double.client(time) as client, pytest.raises(type(error)):
            client.embed(["7"])
        assert len(double.requests) == 1
        assert time.slept_s == []

    def test_only_the_request_that_failed(self, double: Double, time: Time) -> None:
        double.faults = deque([httpx.ConnectError("refused")])
        with double.client(time, request_items=2) as client:
            vectors = client.embed(map(str, range(6)))
        assert vectors[:, 0].tolist() == list(range(6))
        assert len(double.requests) == 4

    def test_health_is_asked_once(self, double: Double, time: Time) -> None:
        double.faults = deque([answer(NotReady("still starting", retry_after_s=1))])
        with double.client(time) as client:
            with pytest.raises(NotReady):
                client.health()
            assert client.health() == {}
        assert time.slept_s == []


class TestGivingUp:
    def test_after_the_last_repetition_the_servers_error_is_raised(self, double: Double, time: Time) -> None:
        double.faults = deque([answer(Overloaded("the queue is full"))] * 10)
        with double.client() as client:
            client._client._connection.retries = time.retries(count=3)
            with pytest.raises(Overloaded, match="the queue is full") as caught:
                client.embed(["7"])
        assert caught.value.extra["tries"] == len(double.requests) == 4

    def test_a_lost_replica_is_no_fault_of_the_items_it_held(self, double: Double, time: Time) -> None:
        double.faults = deque([answer(ReplicaLost("a replica died", "input[1]"))] * 20)
        with double.client(time) as client, pytest.raises(ReplicaLost) as caught:
            client.embed(["1", "2", "3"], on_error="skip")
        assert "items" not in caught.value.extra
        assert double.bodies
        assert [body["input"] for body in double.bodies] == [["1", "2", "3"]] * len(double.bodies)

    def test_no_answer_is_server_unreachable(self, double: Double) -> None:
        double.faults = deque([httpx.ConnectError("connection refused")] * 20)
        with double.client() as client, pytest.raises(ServerUnreachable, match=r"no connection .*check the address"):
            client.embed(["7"])

    def test_a_server_that_asks_for_a_long_wait_is_not_waited_for(self, double: Double, time: Time) -> None:
        double.faults = deque([answer(Overloaded("come back tomorrow", retry_after_s=86_400))])
        with double.client(time) as client, pytest.raises(Overloaded):
            client.embed(["7"])
        assert time.slept_s == []


class TestWaits:
    def test_they_double_up_to_the_longest(self) -> None:
        retries = Retries(uniform=lambda: 1.0)
        waits = [retries.wait_s(repetition, None) for repetition in range(9)]
        assert waits == [0.25, 0.5, 1, 2, 4, 8, 16, 20, 20]
        assert retries.wait_s(5000, None) == 20

    def test_half_is_left_to_chance(self) -> None:
        assert Retries(uniform=lambda: 0.0).wait_s(3, None) == 1.0
        drawn = {Retries().wait_s(3, None) for _ in range(20)}
        assert len(drawn) > 1
        assert all(1.0 <= wait_s <= 2.0 for wait_s in drawn)

    def test_never_before_retry_after(self) -> None:
        assert Retries(uniform=lambda: 0.0).wait_s(0, 7.0) == 7.0
        assert Retries(uniform=lambda: 1.0).wait_s(0, 7.0) == pytest.approx(7.7)

    def test_retry_after_of_the_body_is_waited_for(self, double: Double, time: Time) -> None:
        double.faults = deque([answer(Overloaded("full", retry_after_s=2.5))])
        with double.client(time) as client:
            client.embed(["7"])
        assert time.slept_s == [pytest.approx(2.5 * 1.05)]

    def test_retry_after_of_a_proxy_is_waited_for(self, double: Double, time: Time) -> None:
        double.faults = deque([httpx.Response(503, headers={"retry-after": "11"})])
        with double.client(time) as client:
            client.embed(["7"])
        assert time.slept_s == [pytest.approx(11 * 1.05)]

    def test_retry_after_may_be_a_date(self) -> None:
        soon = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
        past = format_datetime(datetime.now(UTC) - timedelta(seconds=60), usegmt=True)
        seconds = retry_after(soon)
        assert seconds is not None
        assert 50 < seconds <= 60
        assert retry_after(past) == 0
        assert [retry_after(header) for header in (None, "", "soon", "nan", "inf", "-5", "2.5")] == [
            None, None, None, None, None, 0, 2.5,
        ]  # fmt: skip


class TestDeadlines:
    def test_each_request_is_sent_what_remains(self, double: Double, time: Time) -> None:
        double.faults = deque([answer(Overloaded("full", retry_after_s=10))] * 2)
        with double.client(time) as client:
            client.embed(["7"], timeout_s=60)
        assert [body["timeout_s"] for body in double.bodies] == [60, 49.5, 39]

    def test_without_one_nothing_is_sent(self, double: Double) -> None:
        with double.client() as client:
            client.embed(["7"])
        assert "timeout_s" not in double.bodies[0]

    def test_a_wait_beyond_it_is_not_begun(self, double: Double, time: Time) -> None:
        double.faults = deque([answer(Overloaded("the queue is full", retry_after_s=10))])
        with double.client(time) as client, pytest.raises(DeadlineExceeded, match="the queue is full") as caught:
            client.embed(["7"], timeout_s=5)
        assert isinstance(caught.value.__cause__, Overloaded)
        assert time.slept_s == []

    def test_it_covers_the_whole_iterable(self, double: Double, time: Time) -> None:
        done: list[int] = []

        def texts() -> Iterator[str]:
            for number in range(100):
                time.now_s += 1
                yield str(number)

        with double.client(time, request_items=10, in_flight=1) as client, pytest.raises(DeadlineExceeded):
            done.extend(index for index, _ in client.embed_iter(texts(), timeout_s=50))
        assert 0 < len(done) < 60
        assert done == list(range(len(done)))

    def test_a_server_that_hangs_does_not_hold_the_call(self, double: Double) -> None:
        async def before(body: dict[str, Any]) -> None:
            await asyncio.Event().wait()

        double.before = before
        with double.client() as client, pytest.raises(DeadlineExceeded, match=r"not done within its 0\.05 s"):
            client.embed(["7"], timeout_s=0.05)

    @pytest.mark.parametrize("timeout_s", [0, -1, float("nan")])
    def test_it_must_lie_ahead(self, double: Double, timeout_s: float) -> None:
        with double.client() as client, pytest.raises(InvalidRequest, match="above 0"):
            client.embed(["7"], timeout_s=timeout_s)

    def test_what_is_sent_is_within_what_the_server_takes(self) -> None:
        assert [wire_timeout_s(s) for s in (1e-9, 0.0123456, 59.9999, 1e9)] == [0.001, 0.012, 60.0, 86_400.0]

    def test_none_is_no_limit(self) -> None:
        assert Deadline(None, lambda: 0.0).remaining_s() is None
