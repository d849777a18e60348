"""Items that are tried alone, in real child processes, which end with them or are ended."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster import isolated
from cluster.assembly import load_tokenizer
from cluster.config import parse_config
from cluster.engine.fake import FakeEngine
from cluster.errors import DeadlineExceeded, InvalidRequest, PoisonousInput, ReplicaLost, VersionChanged
from cluster.failures import Cause
from cluster.isolated import Child, ChildEnded
from cluster.isolation import encode_isolated
from cluster.pooling import pool_one
from cluster.texts import TextBatch, TextOptions
from cluster.types import PoolingType, RequestFacts, TokenBatch, offsets_of

POISON_ID = 13
ARGS: dict[str, Any] = {
    "models": {"m": {"source": "fake"}},
    "encoders": {"e": {"model": "m", "engine": "fake", "fake_poison_id": POISON_ID}},
}

_FAULTY = """
import os, signal, time
from pathlib import Path
from cluster.engine.fake import FakeEngine
call = FakeEngine._native_call
def faulty(self, token_ids, offsets):
    {fault}
    call(self, token_ids, offsets)
FakeEngine._native_call = faulty
from cluster.isolated import main
main()
"""

Faulty = Callable[[str], None]


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> Faulty:
    """Makes children whose engine first runs a line of code, which sees ``token_ids``."""

    def install(fault: str) -> None:
        monkeypatch.setattr(isolated, "_COMMAND", (sys.executable, "-c", _FAULTY.format(fault=fault)))

    return install


def _tokens(*items: list[int], deadline_s: float | None = None) -> TokenBatch:
    request = RequestFacts("r", deadline_s=deadline_s)
    texts = TextBatch("m", list(items), [0] * len(items), [TextOptions(PoolingType.MEAN)], [request])
    return load_tokenizer(parse_config(ARGS)).tokenize(texts)


def test_the_guilty_item_alone_is_refused() -> None:
    innocent = [[5, 6], [7], [8, 9, 10]]
    answer = encode_isolated(ARGS, "e", _tokens(innocent[0], [4, POISON_ID], *innocent[1:]))
    assert list(answer.errors) == [1]
    assert isinstance(answer.errors[1], PoisonousInput)
    assert answer.errors[1].status == 422
    for item, ids in zip((0, 2, 3), innocent, strict=True):
        hidden = FakeEngine().encode(np.asarray(ids, dtype=np.int32), offsets_of([len(ids)]))
        np.testing.assert_array_equal(answer.rows(item)[0], pool_one(hidden, PoolingType.MEAN).ravel())


def test_a_segmentation_fault_convicts_as_an_abort_does(faulty: Faulty) -> None:
    faulty("77 in token_ids and os.kill(os.getpid(), signal.SIGSEGV)")
    assert isinstance(encode_isolated(ARGS, "e", _tokens([77])).errors[0], PoisonousInput)


@pytest.mark.parametrize("end", ["os.kill(os.getpid(), signal.SIGKILL)", "os._exit(0)"])
def test_a_child_that_is_ended_from_outside_convicts_nobody(faulty: Faulty, end: str) -> None:
    faulty(f"77 in token_ids and {end}")
    answer = encode_isolated(ARGS, "e", _tokens([5], [77], [6]))
    assert list(answer.errors) == [1]
    assert type(answer.errors[1]) is ReplicaLost


def test_an_item_whose_child_was_ended_once_from_outside_is_tried_again(faulty: Faulty, tmp_path: Path) -> None:
    mark = tmp_path / "ended"
    first = f"77 in token_ids and not Path({str(mark)!r}).exists()"
    faulty(f"{first} and (Path({str(mark)!r}).touch(), os.kill(os.getpid(), signal.SIGKILL))")
    assert not encode_isolated(ARGS, "e", _tokens([77])).errors
    assert mark.exists()


def test_an_item_that_native_code_dies_with_only_once_is_encoded(faulty: Faulty, tmp_path: Path) -> None:
    mark = tmp_path / "aborted"
    first = f"77 in token_ids and not Path({str(mark)!r}).exists()"
    faulty(f"{first} and (Path({str(mark)!r}).touch(), os.abort())")
    assert not encode_isolated(ARGS, "e", _tokens([77])).errors
    assert mark.exists()


def test_a_control_that_dies_as_well_convicts_nobody(faulty: Faulty) -> None:
    # As an allocation that fails where memory is short: it depends on how much a call needs, not on the text.
    faulty("len(token_ids) > 20 and os.abort()")
    answer = encode_isolated(ARGS, "e", _tokens([5], [6] * 21, [7]))
    assert list(answer.errors) == [1]
    assert type(answer.errors[1]) is ReplicaLost


def test_memory_that_runs_short_between_two_tries_convicts_nobody(faulty: Faulty, tmp_path: Path) -> None:
    # A first failed allocation, then a control with luck, then the out-of-memory killer, then all allocations fail.
    tries = tmp_path / "tries"
    tries.touch()
    faulty(
        f"""77 in token_ids and open({str(tries)!r}, 'a').write('.')
    tried = os.path.getsize({str(tries)!r})
    77 in token_ids and tried == 1 and os.abort()
    77 in token_ids and tried == 2 and os.kill(os.getpid(), signal.SIGKILL)
    len(token_ids) > 20 and tried > 1 and os.abort()"""
    )
    answer = encode_isolated(ARGS, "e", _tokens([77] * 21))
    assert type(answer.errors[0]) is ReplicaLost


def test_an_error_of_python_s_is_the_answer_to_its_item_and_ends_no_child(faulty: Faulty, tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    faulty(f"open({str(starts)!r}, 'a').write('.') if 8 in token_ids else None; 1 / int(77 not in token_ids)")
    answer = encode_isolated(ARGS, "e", _tokens([77], [8]))
    assert list(answer.errors) == [0]
    assert answer.errors[0].status == 500
    assert starts.read_text() == "."


def test_a_message_of_another_version_is_prepared_again() -> None:
    with pytest.raises(VersionChanged):
        encode_isolated(ARGS, "e", replace(_tokens([5], [6]), fingerprint="another"))


def test_an_item_that_is_slow_is_late_and_not_guilty(faulty: Faulty, monkeypatch: pytest.MonkeyPatch) -> None:
    faulty("77 in token_ids and time.sleep(600)")
    monkeypatch.setattr("cluster.isolation.stuck_after_s", lambda tokens, speed: 0.5 if tokens == 1 else 60.0)
    answer = encode_isolated(ARGS, "e", _tokens([5, 5], [77], [6, 6]))
    assert list(answer.errors) == [1]
    assert type(answer.errors[1]) is ReplicaLost


def test_an_item_has_as_long_as_its_request_and_no_minute_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[float] = []
    encode = isolated.Child.encode

    def noted(self: Child, batch: TokenBatch, within_s: float, stop: threading.Event) -> Any:
        limits.append(within_s)
        return encode(self, batch, within_s, stop)

    monkeypatch.setattr(isolated.Child, "encode", noted)
    encode_isolated(ARGS, "e", _tokens([5], deadline_s=time.monotonic() + 100_000.0))
    encode_isolated(ARGS, "e", _tokens([5] * 500, deadline_s=time.monotonic() + 100_000.0))
    encode_isolated(ARGS, "e", _tokens([5] * 500, deadline_s=time.monotonic() + 70.0))
    assert limits[0] == 30.0 + 10 * 1 / 20
    assert limits[1] == 30.0 + 10 * 500 / 20
    assert 0.0 < limits[2] <= 70.0


def test_an_item_whose_request_is_late_is_not_tried() -> None:
    answer = encode_isolated(ARGS, "e", _tokens([POISON_ID], deadline_s=time.monotonic() - 1.0))
    assert type(answer.errors[0]) is DeadlineExceeded


def test_an_item_that_carries_an_error_keeps_it() -> None:
    batch = _tokens([5], [50_000])
    answer = encode_isolated(ARGS, "e", batch)
    assert list(answer.errors) == [1]
    assert type(answer.errors[1]) is InvalidRequest


def test_a_child_that_has_ended_between_two_items_says_how() -> None:
    child = Child(ARGS, "e", threading.Event())
    child._process.kill()
    child._process.wait()
    with pytest.raises(ChildEnded) as caught:
        child.encode(_tokens([5]), 30.0, threading.Event())
    assert caught.value.cause is Cause.ENDED


def test_work_that_is_stopped_goes_on_to_no_further_item(faulty: Faulty) -> None:
    stop = threading.Event()
    faulty("7 in token_ids and time.sleep(600)")
    threading.Timer(0.1, stop.set).start()
    with pytest.raises(ReplicaLost):
        encode_isolated(ARGS, "e", _tokens([7], [5]), stop)


def test_a_verdict_stands_when_no_further_child_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    started = 0

    class FewChildren(Child):
        def __init__(self, *arguments: Any) -> None:
            nonlocal started
            started += 1
            if started > 2:
                raise ChildEnded(-9)
            super().__init__(*arguments)

    monkeypatch.setattr("cluster.isolation.Child", FewChildren)
    answer = encode_isolated(ARGS, "e", _tokens([5], [POISON_ID], [6], [7]))
    assert {item: type(error) for item, error in answer.errors.items()} == {
        1: PoisonousInput,
        2: ReplicaLost,
        3: ReplicaLost,
    }
    assert started == 3


def test_an_encoder_that_does_not_start_blames_no_item() -> None:
    broken = {**ARGS, "models": {"m": {"source": "./there-is-no-such-file.gguf"}}}
    broken["encoders"] = {"e": {"model": "m"}}
    with pytest.raises(ReplicaLost):
        encode_isolated(broken, "e", _tokens([5]))
