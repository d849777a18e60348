"""One request and its answer, repeated where that can help, within a deadline."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field

import httpx

from cluster.client.errors import ServerUnreachable, UnexpectedAnswer, error_of
from cluster.client.retries import RETRIED_STATUSES, Deadline, Retries, wire_timeout_s
from cluster.errors import DeadlineExceeded, InvalidRequest, PoolhouseError


@dataclass(frozen=True, slots=True)
class Message:
    """One request.

    Attributes:
        members: the body's JSON without its closing brace, so that the time limit can be added to it; empty for GET.
        limited: the path reads ``timeout_s`` in its body.
    """

    method: str
    path: str
    members: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    limited: bool = False
    repeatable: bool = True


class Connection:
    """A server, and a bound on the requests that are in flight to it."""

    def __init__(
        self,
        base_url: str,
        api_key: str | None,
        in_flight: int,
        retries: Retries,
        transport: httpx.AsyncBaseTransport | None,
    ) -> None:
        self.retries = retries
        self._slots = asyncio.Semaphore(in_flight)
        headers = {"user-agent": "poolhouse-client"}
        if api_key is not None:
            headers["authorization"] = f"Bearer {api_key}"
        try:
            url = httpx.URL(base_url.rstrip("/").removesuffix("/v1"))
        except httpx.InvalidURL as error:
            raise InvalidRequest(f"base_url is {base_url!r}, which is no address: {error}", "base_url") from error
        if url.scheme not in ("http", "https") or not url.host:
            raise InvalidRequest(f"base_url is {base_url!r}; give http://HOST:PORT or https://HOST", "base_url")
        try:
            self._http = httpx.AsyncClient(
                base_url=url,
                headers=headers,
                transport=transport,
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=in_flight),
            )
        except UnicodeEncodeError as error:
            raise InvalidRequest("api_key has characters outside ASCII; check how it was copied", "api_key") from error

    async def aclose(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def send(self, message: Message, deadline: Deadline) -> httpx.Response:
        """Return the answer to a message, a success.

        Raises:
            PoolhouseError: the server's error, after the last repetition where it may pass.
            ServerUnreachable: no answer came, after the last repetition.
            DeadlineExceeded: the deadline passed, or would pass before the next repetition.
        """
        try:
            async with asyncio.timeout(deadline.remaining_s()), self._slots:
                return await self._repeat(message, deadline)
        except TimeoutError as error:
            raise deadline.exceeded() from error

    async def _repeat(self, message: Message, deadline: Deadline) -> httpx.Response:
        request_id = uuid.uuid4().hex
        repetition = 0
        while True:
            outcome = await self._try(message, request_id, deadline)
            if isinstance(outcome, httpx.Response):
                return outcome
            retry_after_s = outcome.extra.get("retry_after_s")
            asked_s = float(retry_after_s) if isinstance(retry_after_s, (int, float)) else None
            last = not message.repeatable or repetition >= self.retries.count
            if last or (asked_s or 0.0) > self.retries.longest_retry_after_s:
                outcome.extra["tries"] = repetition + 1
                raise outcome
            wait_s = self.retries.wait_s(repetition, asked_s)
            remaining_s = deadline.remaining_s()
            if remaining_s is not None and wait_s >= remaining_s:
                raise DeadlineExceeded(
                    f"{remaining_s:.3g} s are left of the call's {deadline.timeout_s:g} s and the next try is due in "
                    f"{wait_s:.3g} s; last error: {outcome.message}"
                ) from outcome
            await self.retries.sleep(wait_s)
            repetition += 1

    async def _try(self, message: Message, request_id: str, deadline: Deadline) -> httpx.Response | PoolhouseError:
        """Return the answer, or an error that may pass.

        Raises:
            PoolhouseError: an error that a repetition would meet again.
        """
        remaining_s = deadline.remaining_s()
        body = message.members
        if body:
            limit = b',"timeout_s":%g' % wire_timeout_s(remaining_s) if message.limited and remaining_s else b""
            body = body + limit + b"}"
        patience_s = self.retries.read_timeout_s if remaining_s is None else remaining_s
        headers = {"x-request-id": request_id, **message.headers}
        if body:
            headers["content-type"] = "application/json"
        try:
            response = await self._http.request(
                message.method,
                message.path,
                content=body or None,
                headers=headers,
                timeout=httpx.Timeout(patience_s, connect=min(patience_s, self.retries.connect_timeout_s)),
            )
        except httpx.TransportError as error:
            lost = ServerUnreachable(_why(error, self._http.base_url, patience_s), request_id=request_id)
            if isinstance(error, (httpx.UnsupportedProtocol, httpx.LocalProtocolError)):
                raise lost from error
            lost.__cause__ = error
            return lost
        except httpx.RequestError as error:
            raise UnexpectedAnswer(f"the answer of {self._http.base_url} cannot be read: {error}") from error
        if response.is_success:
            return response
        failure = error_of(response)
        if response.status_code in RETRIED_STATUSES:
            return failure
        raise failure


def _why(error: httpx.TransportError, url: httpx.URL, patience_s: float) -> str:
    if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout)):
        return f"no connection to {url} ({error or type(error).__name__}); check the address and that the server runs"
    if isinstance(error, httpx.ReadTimeout):
        return f"{url} sent nothing for {patience_s:g} s; send smaller requests, or raise timeout_s or read_timeout_s"
    return f"the connection to {url} was lost before the answer was complete ({error or type(error).__name__})"
