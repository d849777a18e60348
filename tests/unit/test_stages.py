"""The account of what an ingress has let in, which admission keeps and autoscaling reads."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from cluster.batching.encoder import Encoder
from cluster.stages import Stages
from cluster.tokenization import TextBatch, TextOptions
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
