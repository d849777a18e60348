"""Python clients for a Poolhouse server: ``Client`` blocks, ``AsyncClient`` is for asyncio. Neither needs Ray or llama.cpp."""

from cluster.client.answers import Classification, EmbedBatch, Ranking, Token
from cluster.client.asynchronous import AsyncClient
from cluster.client.embedding import EmbedOptions
from cluster.client.errors import ServerUnreachable, UnexpectedAnswer
from cluster.client.retries import Retries
from cluster.client.synchronous import Client

__all__ = [
    "AsyncClient",
    "Classification",
    "Client",
    "EmbedBatch",
    "EmbedOptions",
    "Ranking",
    "Retries",
    "ServerUnreachable",
    "Token",
    "UnexpectedAnswer",
]
