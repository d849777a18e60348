"""Every kind of request of ``make mix``, against the application in this process."""

from __future__ import annotations

import random
from collections.abc import Iterator

import httpx
import pytest

from cluster.config import parse_config
from tests.mix.__main__ import document, judge
from tests.mix.good import good_kinds
from tests.mix.lanes import Lanes, Tally
from tests.mix.reference import Reference
from tests.mix.refused import refused_kinds
from tests.mix.requests import Kind, Request, Texts
from tests.mix.scores import score_kinds
from tests.support.pipelines import LocalPipeline, http_client, local_pipeline

CONFIG = parse_config(document("split")["applications"][0]["args"])
REFERENCE = Reference(CONFIG)
TEXTS = Texts(REFERENCE)
KINDS = [*good_kinds(REFERENCE, TEXTS), *score_kinds(REFERENCE, TEXTS), *refused_kinds(REFERENCE, TEXTS)]
OF_EACH = 8

# What a server does with a connection shows on one.
NEEDS_A_SOCKET = {"malformed: HTTP"}


@pytest.fixture(scope="module")
def local() -> Iterator[LocalPipeline]:
    with local_pipeline(CONFIG) as pipeline:
        yield pipeline


async def _answer(client: httpx.AsyncClient, request: Request) -> httpx.Response | None:
    head, _, body = request.raw.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    if "transfer-encoding" in headers:
        return None
    method, path, _ = first.split(" ")
    return await client.request(method, path, content=body, headers=headers)


@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if kind.name not in NEEDS_A_SOCKET], ids=lambda kind: kind.name
)
async def test_the_application_answers_every_kind_as_it_promises(local: LocalPipeline, kind: Kind) -> None:
    chance = random.Random(kind.name)
    answered = 0
    async with http_client(local) as client:
        for _ in range(OF_EACH):
            request = kind.make(chance)
            answer = await _answer(client, request)
            if answer is None:
                continue
            answered += 1
            assert answer.status_code in request.statuses, answer.text[:300]
            if answer.status_code == 200 and request.check is not None:
                assert request.check(answer.content), answer.text[:300]
    assert answered


async def test_a_vector_of_another_text_is_wrong(local: LocalPipeline) -> None:
    (kind,) = [kind for kind in KINDS if kind.name == "one text"]
    chance = random.Random(1)
    first, second = kind.make(chance), kind.make(chance)
    assert first.raw != second.raw
    async with http_client(local) as client:
        answer = await _answer(client, first)
    assert answer is not None
    assert first.check is not None
    assert first.check(answer.content)
    assert second.check is not None
    assert not second.check(answer.content)


def _lanes(**tally: int) -> Lanes:
    lanes = Lanes(0, KINDS)
    lanes.tallies["one text"] = Tally(**tally)
    return lanes


@pytest.mark.parametrize(
    ("lanes", "last_mb", "fault"),
    [
        (_lanes(wrong=1), 100.0, "one text: 1 wrong answers"),
        (_lanes(unexpected=2), 100.0, "one text: 2 answers of a status that is not promised"),
        (_lanes(), 106.0, "Ingress (1) grew from 100 to 106 MB"),
        (_lanes(), 104.0, None),
    ],
)
def test_what_is_not_held_is_named(lanes: Lanes, last_mb: float, fault: str | None) -> None:
    samples = [{"Ingress (1)": 100.0}] * 9 + [{"Ingress (1)": last_mb}]
    assert judge(lanes, samples) == ([] if fault is None else [fault])


def test_a_replica_in_place_of_another_is_not_held() -> None:
    samples = [{"Ingress (1)": 100.0}] * 9 + [{"Ingress (2)": 50.0}]
    assert judge(_lanes(), samples) == ["replicas were replaced: Ingress (1) became Ingress (2)"]
