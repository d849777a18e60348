"""A rerank or classify request's way through the stages. The ingress drives it; both wirings run this same code."""

from cluster.reranking.flow import Reranking, Route

__all__ = ["Reranking", "Route"]
