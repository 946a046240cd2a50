"""Checkpoints: what is in one, that it is whole, and how a run goes on from it."""
