"""Hidden states from a Poolhouse server, asked for by URL with pooling type none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self

from cluster.errors import EngineError, ModelNotFound, PoolingUnavailable, nearest
from cluster.evaluation.sources import SourceFacts, Token
from cluster.types import Float32, PoolingType

if TYPE_CHECKING:
    from cluster.client import Client, EmbedBatch
    from cluster.client import Token as ClientToken

_PROBE = "a"


class ServerModel:
    """See ``cluster.evaluation.sources.HiddenStateSource``.

    Args:
        model: name or alias; None is the server's first.

    Raises:
        ModelNotFound: the server has no such model.
        PoolingUnavailable: the server does not answer none for it.
    """

    def __init__(self, client: Client, model: str | None = None) -> None:
        self._client = client
        self.cut_tokens = 0
        self._entry = _entry_of(client.models(), model)
        self._model = str(self._entry["id"])
        pooling_types = tuple(PoolingType(name) for name in self._entry.get("pooling_types", ()))
        if PoolingType.NONE not in pooling_types:
            raise PoolingUnavailable(
                f"the server does not answer none for {self._model}, from which all others are made; add none to an "
                "encoder's pooling, or compare with --local",
                "pooling",
            )
        self._pooling_types = pooling_types

    @classmethod
    def connect(cls, url: str, model: str | None = None, api_key: str | None = None) -> Self:
        """Connect to the server at ``url``.

        Raises:
            PoolhouseError: it does not answer, or not as a Poolhouse server would.
        """
        # Imported late: comparing on a local engine needs no client.
        from cluster.client import Client

        client = Client(url, api_key=api_key)
        try:
            return cls(client, model)
        except BaseException:
            client.close()
            raise

    @property
    def facts(self) -> SourceFacts:
        """What the server says of the model."""
        trained = self._entry.get("trained_pooling")
        causal = self._entry.get("causal")
        refused = self._entry.get("refused_pooling_types", {})
        return SourceFacts(
            name=self._model,
            architecture=str(self._entry.get("architecture", "unknown")),
            pooling_types=self._pooling_types,
            refused={PoolingType(name): str(why) for name, why in refused.items()},
            trained_pooling=PoolingType(trained) if trained else None,
            causal=causal if isinstance(causal, bool) else None,
            ends_with_token=self.tokens(_PROBE)[-1].special,
        )

    def hidden_states(self, texts: Sequence[str]) -> Iterator[Float32]:
        """Yield float32 ``[n_tokens, dimensions]`` for each text, in order, as the requests' answers come in."""
        batches = self._client.embed_batches(
            texts, pooling=PoolingType.NONE, model=self._model, normalize=False, truncate="end", lane="bulk"
        )
        for batch in batches:
            self._count(batch)
            for row in batch.rows:
                if row is None:
                    raise EngineError("the server left out a text; run it again")
                yield row

    def tokens(self, text: str) -> list[Token]:
        """Return the tokens of a text, special ones included."""
        worn = self._pieces(text, add_special=True)
        bare = [token.id for token in self._pieces(text, add_special=False)]
        ids = [token.id for token in worn]
        last_start = len(ids) - len(bare)
        start = next((s for s in range(last_start + 1) if ids[s : s + len(bare)] == bare), 0)
        return [
            Token(token.id, token.piece.decode("utf-8", "replace"), not start <= position < start + len(bare))
            for position, token in enumerate(worn)
        ]

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _count(self, batch: EmbedBatch) -> None:
        self.cut_tokens += batch.truncated_tokens

    def _pieces(self, text: str, *, add_special: bool) -> list[ClientToken]:
        return self._client.tokens(text, model=self._model, add_special=add_special, parse_special=False)


def _entry_of(models: list[dict[str, Any]], wanted: str | None) -> dict[str, Any]:
    if not models:
        raise ModelNotFound("the server has no model", "model")
    if wanted is None:
        return models[0]
    for entry in models:
        if wanted == entry["id"] or wanted in entry.get("aliases", ()):
            return entry
    names = [str(entry["id"]) for entry in models]
    raise ModelNotFound(
        f"the server has no model {wanted!r}{nearest(wanted, names)}; its models: {', '.join(names)}", "model"
    )
