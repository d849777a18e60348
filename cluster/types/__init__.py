"""The types that every stage shares."""

from cluster.types.kinds import (
    Float32,
    Float64,
    Int32,
    Int64,
    Lane,
    ModelDescription,
    ModelFacts,
    PoolingType,
    ScoreType,
    UInt8,
    pooling_of,
)
from cluster.types.messages import (
    Backlog,
    ReplicaReport,
    RequestFacts,
    TokenBatch,
    VectorBatch,
    offsets_of,
)
from cluster.types.provenance import Provenance

__all__ = [
    "Backlog",
    "Float32",
    "Float64",
    "Int32",
    "Int64",
    "Lane",
    "ModelDescription",
    "ModelFacts",
    "PoolingType",
    "Provenance",
    "ReplicaReport",
    "RequestFacts",
    "ScoreType",
    "TokenBatch",
    "UInt8",
    "VectorBatch",
    "offsets_of",
    "pooling_of",
]
