"""Inputs that have killed an encoder, remembered by a digest of their tokens, so that they never reach one again."""

from __future__ import annotations

import hashlib
import ipaddress
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import replace

from cluster.errors import Overloaded, PoisonousInput, PoolhouseError, ReplicaLost
from cluster.types import TokenBatch, VectorBatch

_MOST_DIGESTS = 4096
"""32 bytes each; a client that finds so many deadly texts has other ways."""

_REFUSED_FOR_S = 3600.0
"""Whether a text is deadly depends on the library's build and the hardware, which an update changes while an ingress lives. A
text that is still deadly costs two replicas an hour."""

_BOUND_S = 600.0
_KEY = "key "
_ADDRESS = "address "
_KEY_CONVICTIONS = 3
_KEYLESS_CONVICTIONS = 10
"""Deadly texts of one API key, and of one address without a key, within ``_BOUND_S``; what comes after them is refused, since
each further one would end two replicas. Several clients may share an address, so that it takes more of them."""

_IPV6_BITS_OF_ONE = 64
"""What one connection to the internet is given: whoever has it chooses the rest of its addresses."""

_LONGEST_ADDRESS = 64

ISOLATIONS = 60
"""Messages that may be tried item by item within ``ISOLATIONS_WITHIN_S``, at one encoder replica and from one ingress. Each loads
the model again, one at a time in a replica, and whatever was beside a deadly message in two replicas is tried, too."""
ISOLATIONS_WITHIN_S = _BOUND_S


def client_of(key_id: str | None, address: str | None) -> str:
    """Return the name of who sends a request, as ``RequestFacts.client`` has it: by its key's id, else by its address."""
    if key_id is not None:
        return _KEY + key_id
    if address is None:
        return ""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return _ADDRESS + address[:_LONGEST_ADDRESS]
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return f"{_ADDRESS}{parsed.ipv4_mapped}"
        return f"{_ADDRESS}{ipaddress.ip_network((int(parsed), _IPV6_BITS_OF_ONE), strict=False)}"
    return f"{_ADDRESS}{parsed}"


class Bound:
    """Allows so many events within a time."""

    def __init__(self, most: int, within_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._within_s = within_s
        self._clock = clock
        self._taken_s: deque[float] = deque()

    @property
    def wait_s(self) -> float:
        """Seconds until the next event is allowed; 0 where one is."""
        now_s = self._clock()
        while self._taken_s and self._taken_s[0] <= now_s - self._within_s:
            self._taken_s.popleft()
        return self._taken_s[0] + self._within_s - now_s if len(self._taken_s) >= self._most else 0.0

    def take(self) -> bool:
        """Count an event; False where it is one too many, which does not count."""
        if self.wait_s > 0:
            return False
        self._taken_s.append(self._clock())
        return True


class Quarantine:
    """The digests of deadly items, and the clients that sent several; the longest unseen is forgotten first.

    Args:
        clock: seconds that only grow.
    """

    def __init__(self, most: int = _MOST_DIGESTS, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._until_s: OrderedDict[bytes, float] = OrderedDict()
        self._clients: OrderedDict[str, Bound] = OrderedDict()

    def __len__(self) -> int:
        return len(self._until_s)

    def learn(self, batch: TokenBatch, answer: VectorBatch) -> None:
        """Remember the items of ``batch`` that its answer calls poisonous, and whose they were."""
        for item, error in answer.errors.items():
            # What came with its error was not tried again, so that its verdict is no younger.
            if not isinstance(error, PoisonousInput) or item in batch.errors:
                continue
            digest = _digest(batch, item)
            if not self._is_refused(digest):
                self._count(batch.requests[int(batch.owner[item])].client)
            self._until_s[digest] = self._clock() + _REFUSED_FOR_S
            self._until_s.move_to_end(digest)
            if len(self._until_s) > self._most:
                self._until_s.popitem(last=False)

    def refuse(self, batch: TokenBatch) -> TokenBatch:
        """Return the message with an error for every item that is known to be deadly, or whose client has sent too many."""
        if not self._until_s and not self._clients:
            return batch
        errors = dict(batch.errors)
        for item in range(len(batch)):
            if item not in errors:
                error = self._error_of(batch, item)
                if error is not None:
                    errors[item] = error
        return replace(batch, errors=errors) if len(errors) > len(batch.errors) else batch

    def _error_of(self, batch: TokenBatch, item: int) -> PoolhouseError | None:
        digest = _digest(batch, item)
        if self._is_refused(digest):
            self._until_s.move_to_end(digest)
            return poisonous()
        client = batch.requests[int(batch.owner[item])].client
        wait_s = self._clients[client].wait_s if client in self._clients else 0.0
        return too_many_deadly(client, wait_s) if wait_s > 0 else None

    def _is_refused(self, digest: bytes) -> bool:
        until_s = self._until_s.get(digest)
        if until_s is not None and until_s <= self._clock():
            del self._until_s[digest]
            return False
        return until_s is not None

    def _count(self, client: str) -> None:
        if client not in self._clients:
            self._clients[client] = Bound(_most_convictions(client), _BOUND_S, self._clock)
        self._clients[client].take()
        self._clients.move_to_end(client)
        if len(self._clients) > self._most:
            self._clients.popitem(last=False)


def _most_convictions(client: str) -> int:
    return _KEY_CONVICTIONS if client.startswith(_KEY) else _KEYLESS_CONVICTIONS


def poisonous() -> PoisonousInput:
    """The error of an item that has killed an encoder."""
    return PoisonousInput(
        "this input has ended the process that encoded it, also alone and twice, and is refused; leave it out, and report it "
        "with the model's name"
    )


def too_many_deadly(client: str, wait_s: float) -> Overloaded:
    """The error of a client that has sent several deadly items."""
    origin = "of this API key" if client.startswith(_KEY) else "from this address without an API key"
    return Overloaded(
        f"{_most_convictions(client)} inputs {origin} have ended encoders within {_BOUND_S / 60:g} minutes, so all that come "
        f"{origin} are refused for {wait_s:.0f} s; leave out those that were answered 422",
        retry_after_s=wait_s,
    )


def too_many_isolations(wait_s: float) -> ReplicaLost:
    """The error of work that encoders died with and that is not tried alone."""
    return ReplicaLost(
        "encoders died with this work, and as much such work as may be was tried alone in the last minutes; leave out what may "
        "have ended them, or send it again later",
        retry_after_s=wait_s,
    )


def _digest(batch: TokenBatch, item: int) -> bytes:
    digest = hashlib.blake2b(batch.ids(item).tobytes(), digest_size=32)
    digest.update(bytes((int(batch.pooling[item]),)))
    digest.update(int(batch.second_segment[item]).to_bytes(8, "little", signed=True))
    # What kills one model, or one version of it, may be nothing to another.
    digest.update(batch.fingerprint.encode())
    return digest.digest()
