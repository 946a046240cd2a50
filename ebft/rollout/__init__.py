"""Rollout geometry: the records of a step, and the tree of a document and its rollouts."""
