"""Attempts, which are rollouts as texts, and the verifiers that score them."""
