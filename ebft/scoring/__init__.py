"""Scoring: unbiased estimates of the losses that are reported, and their intervals."""
