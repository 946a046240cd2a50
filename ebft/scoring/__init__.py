"""Scoring: unbiased estimates of the reported losses, and their intervals."""
