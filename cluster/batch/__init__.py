"""Batch inference over datasets with Ray Data."""
