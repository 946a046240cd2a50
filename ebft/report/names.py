"""What figures that make a curve are called together."""

from __future__ import annotations


def family(name: str, at: int) -> str:
    """The name of a measure at some length, without that length.

    >>> family("held-out CFM of 8 tokens (layer 8)", 8)
    'held-out CFM of … tokens (layer 8)'
    """
    of_tokens = f"of {at} tokens"
    if of_tokens in name:
        return name.replace(of_tokens, "of … tokens", 1)
    return name.replace(str(at), "…", 1)
