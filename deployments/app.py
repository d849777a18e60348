"""Config → Serve application: ``import_path: deployments.app:build``."""

import logging
from typing import Any

from ray import serve
from ray.serve import Application

from cluster.config import Wiring, parse_config
from deployments.encoder import Encoder
from deployments.fast_mode import missing_fast_mode
from deployments.ingress import Ingress
from deployments.pooler import Pooler
from deployments.tokenizer import Tokenizer

logger = logging.getLogger("poolhouse")

# Serve's default of 5 would starve the natural batching, which wants to see what waits.
_INGRESS_ONGOING = 10_000
_STAGE_ONGOING = 64


def build(args: dict[str, Any]) -> Application:
    """Build the application that ``args`` of the YAML describe.

    Raises:
        ConfigError: the configuration is not valid.
    """
    config = parse_config(args)
    for line in missing_fast_mode():
        logger.warning(line)
    ingress = serve.deployment(serve.ingress()(Ingress), name="Ingress", max_ongoing_requests=_INGRESS_ONGOING)
    if config.wiring is Wiring.FUSED:
        return ingress.bind(args)
    tokenizer = serve.deployment(Tokenizer, name="Tokenizer", max_ongoing_requests=_STAGE_ONGOING)
    pooler = serve.deployment(Pooler, name="Pooler", max_ongoing_requests=_STAGE_ONGOING)
    encoders = {
        name: serve.deployment(Encoder, name=f"Encoder-{name}", max_ongoing_requests=_STAGE_ONGOING).bind(args, name)
        for name in config.encoders
    }
    return ingress.bind(args, tokenizer.bind(args), encoders, pooler.bind())
