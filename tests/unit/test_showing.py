from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import numpy as np
import pytest

from cluster.calls import Input
from cluster.config import Limits, ModelConfig
from cluster.engine.fake import FakeVocabulary, fake_facts
from cluster.errors import Overloaded
from cluster.showing import ShowingAccount, ShowingThreads
from cluster.tokenization import TokenizedModel, Tokenizer
from cluster.types import Int32

# Too long for the event loop, and not so long that another thread is kept free of it.
LONG_TOKENS = 4_001
LONG = "to " * 4_000


class _Gated(FakeVocabulary):
    """Tokenizes once it may, and notes the texts."""

    def __init__(self) -> None:
        super().__init__()
        self.may = threading.Event()
        self.begun = threading.Semaphore(0)
        self.texts: list[str] = []
        self.told: Callable[[], None] = lambda: None

    def tokenize(self, text: str, parse_special: bool = False) -> Int32:
        self.texts.append(text)
        self.told()
        self.begun.release()
        self.may.wait()
        return super().tokenize(text, parse_special)


def _threads(vocabulary: FakeVocabulary) -> ShowingThreads:
    model = TokenizedModel.create("m", ModelConfig(source="fake"), fake_facts(), "f", vocabulary)
    return ShowingThreads(Tokenizer({"m": model}))


async def test_a_call_that_is_left_before_its_turn_is_never_made() -> None:
    vocabulary = _Gated()
    threads = _threads(vocabulary)
    calls = [asyncio.create_task(threads.tokens("m", LONG + str(n), False, False, False)) for n in range(4)]
    for _ in range(2):
        await asyncio.to_thread(vocabulary.begun.acquire)
    calls[2].cancel()
    with pytest.raises(asyncio.CancelledError):
        await calls[2]
    vocabulary.may.set()
    shown = [await calls[number] for number in (0, 1, 3)]
    threads.close()
    assert sorted(vocabulary.texts) == [LONG + str(n) for n in (0, 1, 3)]
    assert [len(each.ids) for each in shown] == [LONG_TOKENS] * 3


@pytest.mark.parametrize("content", [LONG, [LONG], [5, LONG], ["to"] * 1_000])
async def test_long_contents_leave_the_event_loop_alone_in_every_form(content: Input) -> None:
    threads, used = _threads(vocabulary := _Gated()), set[int]()
    vocabulary.may.set()
    vocabulary.told = lambda: used.add(threading.get_ident())
    await threads.tokens("m", content, False, False, False)
    threads.close()
    assert used
    assert threading.get_ident() not in used


async def test_what_has_not_begun_when_it_is_closed_fails() -> None:
    vocabulary = _Gated()
    threads = _threads(vocabulary)
    calls = [asyncio.create_task(threads.tokens("m", LONG + str(n), False, False, False)) for n in range(3)]
    for _ in range(2):
        await asyncio.to_thread(vocabulary.begun.acquire)
    threads.close()
    vocabulary.may.set()
    assert [len((await call).ids) for call in calls[:2]] == [LONG_TOKENS] * 2
    with pytest.raises(RuntimeError, match="shutdown"):
        await calls[2]


async def test_text_comes_from_packed_ids() -> None:
    threads = _threads(FakeVocabulary())
    ids = (await threads.tokens("m", "to and fro", False, False, False)).ids
    assert ids.dtype == np.int32
    assert await threads.text("m", ids) == "to and fro"
    threads.close()


class TestAccount:
    @pytest.fixture
    def now_s(self) -> list[float]:
        return [100.0]

    @pytest.fixture
    def account(self, now_s: list[float]) -> ShowingAccount:
        return ShowingAccount(Limits(max_queued_tokens=1_000), clock=lambda: now_s[0])

    def test_what_is_in_hand_is_counted_until_it_ends(self, account: ShowingAccount) -> None:
        def fail() -> None:
            with account.hold(400, None):
                assert account.waiting == 700
                raise ValueError("lost")

        with account.hold(300, None):
            with pytest.raises(ValueError, match="lost"):
                fail()
            assert account.waiting == 300
        assert account.waiting == 0

    def test_more_than_may_wait_is_refused_and_one_alone_is_not(self, account: ShowingAccount) -> None:
        with account.hold(5_000, None):
            with pytest.raises(Overloaded, match="5000 characters and token ids wait") as caught, account.hold(1, None):
                pass
            assert caught.value.extra["retry_after_s"] == 1
        with account.hold(600, None), account.hold(400, None):
            assert account.waiting == 1_000

    def test_what_cannot_be_done_in_time_is_refused(self, account: ShowingAccount, now_s: list[float]) -> None:
        with account.hold(10_000, None):
            now_s[0] += 1_000
        assert account.rate == 10.0
        with account.hold(100, 0.5):
            with pytest.raises(Overloaded, match=r"takes about 20.0 s; the request has 10.0 s") as caught:
                account.hold(100, 10.0).__enter__()
            assert caught.value.extra["retry_after_s"] == 20
            with account.hold(100, 30.0):
                assert account.waiting == 200

    def test_a_small_call_that_was_held_up_refuses_nobody(self, account: ShowingAccount, now_s: list[float]) -> None:
        with account.hold(5, None):
            now_s[0] += 5
        assert account.rate is None
        with account.hold(400, None), account.hold(400, 10.0):
            assert account.waiting == 800

    def test_a_small_call_that_was_quick_ends_a_rate_that_is_too_low(
        self, account: ShowingAccount, now_s: list[float]
    ) -> None:
        with account.hold(10_000, None):
            now_s[0] += 1_000
        with account.hold(100, None):
            now_s[0] += 0.1
        assert account.rate == pytest.approx(1_000)
        with account.hold(1, None):
            now_s[0] += 0.1
        assert account.rate == pytest.approx(1_000)
