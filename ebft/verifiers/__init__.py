"""Attempts, which are rollouts as texts, and the verifiers that score them.

attempts     what a verifier receives
functions    the verifiers: exact match, final answer, unit tests
  numbers      numbers in texts, as people and models write an answer
find         verifiers by name, or by the dotted path of a function
"""
