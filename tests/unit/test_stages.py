"""The account of what an ingress has let in, which admission keeps and autoscaling reads."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from cluster.batching.encoder import Encoder
from cluster.calls import AnswerOptions, EmbedCall, Encoding, RerankCall, Strategy
from cluster.errors import PoisonousInput
from cluster.pipeline import Pipeline
from cluster.quarantine import Quarantine, poisonous
from cluster.reranking import Reranking
from cluster.stages import Stages
from cluster.texts import TextBatch, TextOptions
from cluster.types import Lane, PoolingType, RequestFacts, TokenBatch, VectorBatch
from tests.support.pipelines import MODEL, fake_config, ids_of, local_pipeline

TEXT = "one two three"


async def _encode(stages: Stages) -> None:
    texts = TextBatch(MODEL, [TEXT], [0], [TextOptions(PoolingType.MEAN)], [RequestFacts("request")])
    tokens = await stages.tokenize(texts, Lane.INTERACTIVE)
    await stages.encode(MODEL, PoolingType.MEAN, tokens, Lane.INTERACTIVE)


async def test_what_is_in_an_encoder_is_in_the_account_until_it_is_answered() -> None:
    sent: asyncio.Queue[TokenBatch] = asyncio.Queue()
    answer = asyncio.Event()

    async def encode(name: str, batch: TokenBatch) -> VectorBatch:
        await sent.put(batch)
        await answer.wait()
        return await asyncio.wrap_future(local.encoders[name].submit(batch))

    with local_pipeline(fake_config(), encode=encode) as local:
        stages = local.pipeline.stages
        assert stages.backlog("wide").tokens == 0
        request = asyncio.create_task(_encode(stages))
        message = await sent.get()
        tokens = len(ids_of(TEXT))
        assert message.backlog is not None
        assert message.backlog.tokens == stages.backlog("wide").tokens == tokens
        assert message.backlog.ingress == stages.backlog("narrow").ingress
        answer.set()
        await request
        assert stages.backlog("wide").tokens == 0


async def test_an_encoder_s_answer_and_its_report_agree_on_what_waits_elsewhere() -> None:
    with local_pipeline(fake_config()) as one, local_pipeline(fake_config()) as other:
        shared: Encoder = one.encoders["wide"]
        shared.hear(replace(other.pipeline.stages.backlog("wide"), tokens=900))
        await _encode(one.pipeline.stages)
        assert one.pipeline.stages.admission.loads["wide"].elsewhere_tokens == 900
        words = {backlog.ingress: backlog.tokens for backlog in shared.state().backlogs}
        assert words[other.pipeline.stages.backlog("wide").ingress] == 900
        assert words[one.pipeline.stages.backlog("wide").ingress] == len(ids_of(TEXT))


async def test_a_message_of_refused_items_alone_does_not_change_what_is_known_of_the_encoder() -> None:
    encoders = {"wide": {"model": MODEL, "engine": "fake", "slots": 2}, "narrow": {"model": "short", "engine": "fake"}}
    with local_pipeline(fake_config(encoders=encoders)) as local:
        stages = local.pipeline.stages
        await _encode(stages)
        assert stages.admission.loads["wide"].slots == 2
        texts = TextBatch(MODEL, [[50_000]], [0], [TextOptions(PoolingType.MEAN)], [RequestFacts("request")])
        refused = await stages.tokenize(texts, Lane.INTERACTIVE)
        answer = await stages.encode(MODEL, PoolingType.MEAN, refused, Lane.INTERACTIVE)
        assert list(answer.errors) == [0]
        assert stages.admission.loads["wide"].slots == 2


def _watched(stage: Callable[..., Awaitable[Any]], sizes: list[int]) -> Callable[..., Awaitable[Any]]:
    async def send(*arguments: Any) -> Any:
        answer = await stage(*arguments)
        sizes.append(max(len(pickle.dumps(arguments[-1])), len(pickle.dumps(answer))))
        return answer

    return send


async def _asked(pipeline: Pipeline, encoding: Encoding, pooling: PoolingType) -> tuple[list[bytes], list[float]]:
    inputs = [f"word{number} " * (number % 60 + 1) for number in range(80)]
    call = EmbedCall(inputs, pooling=pooling, options=AnswerOptions(encoding=encoding))  # type: ignore[arg-type]
    embedded, *ranked = await asyncio.gather(
        pipeline.embed(call, "request"),
        *(
            Reranking(pipeline.stages).rerank(RerankCall(["word3 word4"], inputs, strategy=strategy), "request")
            for strategy in Strategy
        ),
    )
    return embedded.pieces, [score for answer in ranked for score in answer.scores.tolist()]


@pytest.mark.parametrize(
    ("encoding", "pooling"),
    [(Encoding.JSON, PoolingType.NONE), (Encoding.RAW, PoolingType.NONE), (Encoding.JSON, PoolingType.MEAN)],
)
async def test_no_stage_is_sent_or_answers_more_than_a_message_may_weigh_and_answers_are_the_same(
    encoding: Encoding, pooling: PoolingType
) -> None:
    cap_bytes = 72_000
    sizes: dict[str, list[int]] = {stage: [] for stage in ("tokenize", "encode", "finish", "score")}
    with local_pipeline(fake_config()) as whole:
        senders = whole.pipeline.stages.senders
        watched = {stage: _watched(getattr(senders, stage), sizes[stage]) for stage in sizes}
        expected = await _asked(whole.pipeline, encoding, pooling)
        bounded = replace(senders, message_bytes=cap_bytes, **watched)
        assert (
            await _asked(Pipeline(whole.pipeline.config, whole.pipeline.descriptions, bounded), encoding, pooling)
            == expected
        )
    # An eighth of the transport's limit is kept for what is around a message's content.
    assert all(seen and max(seen) <= cap_bytes * 8 / 7 for seen in sizes.values()), {
        stage: max(seen, default=0) for stage, seen in sizes.items()
    }
    if pooling is PoolingType.NONE:
        assert len(sizes["finish"]) > 2


async def test_work_that_waits_while_an_equal_text_is_found_deadly_does_not_reach_an_encoder() -> None:
    free = asyncio.Event()
    sent: asyncio.Queue[TokenBatch] = asyncio.Queue()

    async def encode(name: str, batch: TokenBatch) -> VectorBatch:
        await sent.put(batch)
        await free.wait()
        answer = await asyncio.wrap_future(local.encoders[name].submit(batch))
        answer.errors.update({item: poisonous() for item in range(len(batch)) if batch.ids(item)[0] == 13})
        return answer

    async def ask(stages: Stages, token_id: int) -> VectorBatch:
        texts = TextBatch(MODEL, [[token_id, 5]], [0], [TextOptions(PoolingType.MEAN)], [RequestFacts("r")])
        tokens = await stages.tokenize(texts, Lane.INTERACTIVE)
        return await stages.encode(MODEL, PoolingType.MEAN, tokens, Lane.INTERACTIVE)

    batching = {"outstanding": 1, "deduplicate": False}
    with local_pipeline(fake_config(batching=batching), encode=encode) as local:
        stages = local.pipeline.stages
        first = asyncio.create_task(ask(stages, 13))
        await sent.get()
        waiting = [asyncio.create_task(ask(stages, token_id)) for token_id in (13, 7)]
        while stages.queued_tokens["wide"] < 4:  # noqa: ASYNC110  # there is no event for it
            await asyncio.sleep(0)
        free.set()
        assert isinstance((await first).errors[0], PoisonousInput)
        answers = [await answer for answer in waiting]
        assert [list(answer.errors) for answer in answers] == [[0], []]
        assert list((await sent.get()).errors) == [0]


async def test_what_a_sender_has_found_out_by_itself_is_refused() -> None:
    """As by a trial that nobody waited for."""
    quarantine = Quarantine()
    sent: list[TokenBatch] = []

    async def encode(name: str, batch: TokenBatch) -> VectorBatch:
        sent.append(batch)
        return await asyncio.wrap_future(local.encoders[name].submit(batch))

    async def ask(stages: Stages) -> VectorBatch:
        texts = TextBatch(MODEL, [TEXT], [0], [TextOptions(PoolingType.MEAN)], [RequestFacts("r")])
        tokens = await stages.tokenize(texts, Lane.INTERACTIVE)
        return await stages.encode(MODEL, PoolingType.MEAN, tokens, Lane.INTERACTIVE)

    with local_pipeline(fake_config(batching={"deduplicate": False}), encode=encode, quarantine=quarantine) as local:
        assert not (await ask(local.pipeline.stages)).errors
        quarantine.learn(sent[0], VectorBatch.refused(sent[0].fingerprint, poisonous()))
        assert isinstance((await ask(local.pipeline.stages)).errors[0], PoisonousInput)
