"""Rollout geometry: plans, the tree of a document and its rollouts, and the records of a step."""
