"""The types that every stage shares."""

from cluster.types.kinds import (
    Float32,
    Int32,
    Int64,
    Lane,
    ModelFacts,
    PoolingType,
    ScoreType,
    UInt8,
    pooling_of,
)
from cluster.types.messages import (
    MESSAGE_VERSION,
    Backlog,
    ReplicaReport,
    RequestFacts,
    TokenBatch,
    VectorBatch,
    offsets_of,
)

__all__ = [
    "MESSAGE_VERSION",
    "Backlog",
    "Float32",
    "Int32",
    "Int64",
    "Lane",
    "ModelFacts",
    "PoolingType",
    "ReplicaReport",
    "RequestFacts",
    "ScoreType",
    "TokenBatch",
    "UInt8",
    "VectorBatch",
    "offsets_of",
    "pooling_of",
]
