"""Connections that are refused or lost, over real sockets."""

from __future__ import annotations

import base64
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from cluster.api.application import create_application
from cluster.client import Client, Retries, ServerUnreachable
from cluster.errors import DeadlineExceeded
from cluster.types import PoolingType
from tests.support.pipelines import expected_rows, fake_config, local_pipeline
from tests.support.servers import served
from tests.unit.client.conftest import Time

Reply = Callable[[socket.socket], None]
BODY = json.dumps(
    {
        "data": [
            {
                "index": 0,
                "embedding": base64.b64encode(np.array([1, 2], dtype=np.float32).tobytes()).decode(),
                "shape": [2],
            }
        ]
    }
).encode()
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(BODY)


@contextmanager
def scripted(*replies: Reply) -> Iterator[str]:
    """A server that takes one connection for each reply, reads a request and does what the reply says."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(30)

        def serve() -> None:
            for reply in replies:
                connection, _ = listener.accept()
                with connection:
                    connection.settimeout(30)
                    received = b""
                    while not received.endswith(b"}"):
                        received += connection.recv(65_536)
                    reply(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            thread.join(30)
            assert not thread.is_alive()


def _close(connection: socket.socket) -> None:
    """Close before a byte was sent, as a killed server does."""


def _half_a_head(connection: socket.socket) -> None:
    connection.sendall(HEAD[:20])


def _half_a_body(connection: socket.socket) -> None:
    connection.sendall(HEAD + BODY[:30])


def _reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def _garbage(connection: socket.socket) -> None:
    connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")


def _whole(connection: socket.socket) -> None:
    connection.sendall(HEAD + BODY)


@pytest.mark.parametrize("loss", [_close, _half_a_head, _half_a_body, _reset, _garbage])
def test_a_lost_connection_is_made_again(time: Time, loss: Reply) -> None:
    with scripted(loss, loss, _whole) as url, Client(url, retries=time.retries()) as client:
        assert client.embed(["a"]).tolist() == [[1, 2]]
    assert len(time.slept_s) == 2


@pytest.mark.parametrize("loss", [_close, _half_a_body])
def test_after_the_last_try_the_loss_is_named(time: Time, loss: Reply) -> None:
    with (
        scripted(loss, loss) as url,
        Client(url, retries=time.retries(count=1)) as client,
        pytest.raises(ServerUnreachable, match="was lost before the answer was complete") as caught,
    ):
        client.embed(["a"])
    assert caught.value.extra["tries"] == 2


def test_a_port_without_a_server(time: Time) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with (
            Client(url, retries=time.retries(count=2)) as client,
            pytest.raises(ServerUnreachable, match="check the address and that the server runs"),
        ):
            client.embed(["a"])
    assert len(time.slept_s) == 2


def test_silence_counts_as_a_loss(time: Time) -> None:
    released = threading.Event()

    def silent(connection: socket.socket) -> None:
        released.wait(30)

    retries = time.retries(read_timeout_s=0.05, sleep=_releasing(time, released))
    with scripted(silent, _whole) as url, Client(url, retries=retries) as client:
        assert client.embed(["a"]).tolist() == [[1, 2]]


def test_a_server_that_dribbles_does_not_outlast_the_deadline() -> None:
    ended = threading.Event()

    def dribble(connection: socket.socket) -> None:
        connection.sendall(HEAD)
        try:
            while not ended.wait(0.01):
                connection.sendall(b" ")
        except OSError:
            pass

    with scripted(dribble) as url, Client(url, retries=Retries()) as client:
        with pytest.raises(DeadlineExceeded):
            client.embed(["a"], timeout_s=0.2)
        ended.set()


def test_vectors_over_a_socket_are_the_engines() -> None:
    texts = [f"text {number}" for number in range(300)]
    expected = np.concatenate([expected_rows(text, PoolingType.MEAN) for text in texts])
    with (
        local_pipeline(fake_config()) as local,
        served(create_application(local.pipeline, local.check_ready)) as url,
        Client(url, request_items=16, in_flight=8) as client,
    ):
        np.testing.assert_array_equal(client.embed(texts, pooling="mean"), expected)
        assert len(client.embed(texts, pooling="none")) == 300


def _releasing(time: Time, event: threading.Event) -> Callable[[float], object]:
    async def sleep(seconds: float) -> None:
        event.set()
        await time.sleep(seconds)

    return sleep
