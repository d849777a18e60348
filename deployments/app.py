"""Config → Serve application: ``import_path: deployments.app:build``."""

import logging
from typing import Any

from ray import serve
from ray.serve import Application, Deployment
from ray.serve.config import RequestRouterConfig

from cluster.config import Wiring, parse_config
from deployments.contradictions import STAGE_ONGOING
from deployments.encoder import Encoder
from deployments.failures import failures_told
from deployments.fast_mode import missing_fast_mode, unguarded_proxy
from deployments.ingress import Ingress
from deployments.pooler import Pooler
from deployments.tokenizer import Tokenizer

logger = logging.getLogger("poolhouse")

# Serve's default of 5 would starve the natural batching, which wants to see what waits.
_INGRESS_ONGOING = 10_000

# How soon Serve learns that a replica has died or is stuck; the configuration's deployments may say otherwise.
_HEALTH_CHECKS = {"health_check_period_s": 2.0, "health_check_timeout_s": 10.0}


def build(args: dict[str, Any]) -> Application:
    """Build the application that ``args`` of the YAML describe.

    Raises:
        ConfigError: the configuration is not valid.
    """
    with failures_told("the application"):
        config = parse_config(args)
    for line in missing_fast_mode() + unguarded_proxy():
        logger.warning(line)
    ingress = serve.deployment(
        serve.ingress()(Ingress), name="Ingress", max_ongoing_requests=_INGRESS_ONGOING, **_HEALTH_CHECKS
    )
    if config.wiring is Wiring.FUSED:
        return ingress.bind(args)
    encoders = {name: _stage(Encoder, f"Encoder-{name}").bind(args, name) for name in config.encoders}
    return ingress.bind(args, _stage(Tokenizer, "Tokenizer").bind(args), encoders, _stage(Pooler, "Pooler").bind())


def _stage(stage: type, name: str) -> Deployment:
    return serve.deployment(
        stage,
        name=name,
        max_ongoing_requests=STAGE_ONGOING,
        request_router_config=RequestRouterConfig(request_router_class="deployments.careful_router.CarefulRouter"),
        **_HEALTH_CHECKS,
    )
