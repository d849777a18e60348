"""Where results come from: when an engine had each item, and which build of the library computed it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cluster.types.kinds import Float64, Int32


@dataclass(frozen=True, slots=True, eq=False)
class Provenance:
    """Where the items of a message come from.

    Attributes:
        spans: float64 ``[n, 2]``, when an engine took each item and when it gave it back, by this process's
            ``time.monotonic``; NaN for an item that no engine has computed, or that was kept from before. The clocks of two
            machines differ, so a message carries how long ago it was, and its receiver counts back from when it arrives.
        build: int32 ``[n]``, index into ``builds``; -1 where no engine has computed the item.
        builds: what ``Engine.build`` says of the engines.
    """

    spans: Float64
    build: Int32
    builds: tuple[str, ...]

    @classmethod
    def unknown(cls, items: int) -> Provenance:
        """Of items that come from no engine."""
        return cls(np.full((items, 2), np.nan), np.full(items, -1, dtype=np.int32), ())

    @classmethod
    def of(cls, spans: Float64, build: str) -> Provenance:
        """Of items that one build has computed, but for those without a span."""
        return cls(spans, np.where(np.isnan(spans[:, 0]), -1, 0).astype(np.int32), (build,))

    @classmethod
    def of_items(cls, spans: Sequence[Sequence[float]], builds: Sequence[str]) -> Provenance:
        """Of items with these spans, each computed by the build of its own; the empty name stands for none."""
        names = tuple(dict.fromkeys(name for name in builds if name))
        place = {name: index for index, name in enumerate(names)}
        build = np.asarray([place.get(name, -1) for name in builds], dtype=np.int32)
        return cls(np.asarray(spans, dtype=np.float64).reshape(-1, 2), build, names)

    def __len__(self) -> int:
        return len(self.spans)

    def __reduce__(self) -> tuple[object, ...]:
        """Carry ages in place of times."""
        # Bytes are pickled in a tenth of the time that small arrays take.
        return _arrived, ((time.monotonic() - self.spans).tobytes(), self.build.tobytes(), self.builds)

    @property
    def used_builds(self) -> tuple[str, ...]:
        """The builds that have computed any of the items, in the order of their names."""
        counts = np.bincount(self.build + 1, minlength=len(self.builds) + 1)[1:]
        return tuple(sorted(name for name, count in zip(self.builds, counts.tolist(), strict=True) if count))

    def build_of(self, item: int) -> str:
        """The build that has computed one item; empty where none has."""
        index = int(self.build[item])
        return self.builds[index] if index >= 0 else ""

    def select(self, items: Sequence[int]) -> Provenance:
        """Of some of the items, in the order given."""
        index = np.asarray(items, dtype=np.int64)
        return Provenance(self.spans[index], self.build[index], self.builds)

    @staticmethod
    def concatenate(parts: Sequence[Provenance]) -> Provenance:
        """Of the items of all, in order."""
        builds = list(dict.fromkeys(build for part in parts for build in part.builds))
        # The last entry stands for -1.
        places = [np.asarray([*map(builds.index, part.builds), -1], dtype=np.int32) for part in parts]
        return Provenance(
            np.concatenate([part.spans for part in parts]),
            np.concatenate([place[part.build] for place, part in zip(places, parts, strict=True)]),
            tuple(builds),
        )


def _arrived(ages_s: bytes, build: bytes, builds: tuple[str, ...]) -> Provenance:
    spans = time.monotonic() - np.frombuffer(ages_s, dtype=np.float64).reshape(-1, 2)
    return Provenance(spans, np.frombuffer(build, dtype=np.int32), builds)


UNKNOWN = Provenance.unknown(0)
