"""What several commands have in common: the look of their help, where the model is, and values of a checked form."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.cli.models import DEFAULT_SOURCE
from cluster.errors import InvalidRequest

if TYPE_CHECKING:
    from cluster.client import Client
    from cluster.config import ModelConfig, PoolhouseConfig
    from cluster.evaluation.sources import HiddenStateSource
    from cluster.types import PoolingType

API_KEY_VARIABLE = "POOLHOUSE_API_KEY"

Subparsers = argparse._SubParsersAction


def add_command(
    subparsers: Subparsers[argparse.ArgumentParser], name: str, help_text: str, examples: str, description: str = ""
) -> argparse.ArgumentParser:
    """Register a command whose help ends with examples; ``examples`` is kept line by line."""
    return subparsers.add_parser(
        name,
        help=help_text,
        description=description or f"{help_text[0].upper()}{help_text[1:]}.",
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_model_arguments(parser: argparse.ArgumentParser, *, default: str | None = DEFAULT_SOURCE) -> None:
    """Add the arguments that say where the model is; ``default`` is the local one, None where there is none."""
    source = parser.add_argument_group("model")
    place = source.add_mutually_exclusive_group()
    place.add_argument("--local", action="store_true", help="run the model in this process (the default)")
    place.add_argument("--url", help="ask a server, as in http://127.0.0.1:8000")
    local = f"path, hf://… or package:… (default: {default})" if default else "path or hf://…, needed"
    source.add_argument("--model", help=f"local: {local}; of a server: its name (default: the server's)")
    source.add_argument("--quantisation", choices=("f16", "f32", "q8_0"), default="f16", help="of a packaged model")
    source.add_argument("--append-eos", action="store_true", help="close every text with the end token (local only)")
    source.add_argument("--threads", type=positive, help="CPU threads (local only; default: all)")
    source.add_argument("--api-key", help=f"of the server (default: the variable {API_KEY_VARIABLE})")


def check_place(options: argparse.Namespace) -> None:
    """Check that the arguments of ``add_model_arguments`` do not contradict each other.

    Raises:
        InvalidRequest: they do.
    """
    if options.url is None and options.api_key is not None:
        raise InvalidRequest("--api-key is for a server; give its --url, or leave it out")
    if options.url is not None and (options.append_eos or options.threads is not None):
        raise InvalidRequest("--append-eos and --threads are for a local model; leave them out, or leave out --url")


def open_source(options: argparse.Namespace) -> HiddenStateSource:
    """Open the source of hidden states that the arguments name.

    Raises:
        InvalidRequest: the arguments contradict each other.
        PoolhouseError: the model does not load, or the server does not answer.
    """
    check_place(options)
    if options.url is not None:
        from cluster.evaluation.server import ServerModel

        return ServerModel.connect(options.url, options.model, api_key_of(options))
    from cluster.evaluation.local import LocalModel

    return LocalModel.load(model_config(options), threads=options.threads)


def open_client(options: argparse.Namespace) -> Client:
    """Open a client of the server at ``--url``."""
    from cluster.client import Client

    return Client(options.url, api_key=api_key_of(options))


def model_config(options: argparse.Namespace) -> ModelConfig:
    """Return the configuration of the local model."""
    from cluster.config import ModelConfig

    return ModelConfig(
        source=options.model or DEFAULT_SOURCE,
        quantisation=options.quantisation,
        append_eos=True if options.append_eos else None,
    )


def local_config(options: argparse.Namespace, pooling: PoolingType | None = None) -> PoolhouseConfig:
    """Return the configuration of the local model and one encoder for it; ``pooling`` None is all that it can."""
    from cluster.config import EncoderConfig, PoolhouseConfig

    model = model_config(options)
    name = Path(model.source.removeprefix("package:").partition("@")[0]).stem
    # What the file's name has that a model's name may not.
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")[:128] or "model"
    encoder = EncoderConfig(model=name, threads=options.threads, pooling=None if pooling is None else (pooling,))
    return PoolhouseConfig(models={name: model}, encoders={name: encoder})


def api_key_of(options: argparse.Namespace) -> str | None:
    """Return the API key of the command line, else of the environment, where it does not show in a list of processes."""
    given: str | None = options.api_key
    return given or os.environ.get(API_KEY_VARIABLE) or None


def positive(text: str) -> int:
    """Return a whole number above 0."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def names(text: str) -> tuple[str, ...]:
    """Return names joined by commas."""
    found = tuple(name.strip() for name in text.split(","))
    if not all(found):
        raise argparse.ArgumentTypeError(f"{text!r} has an empty name; give names joined by commas")
    return found
