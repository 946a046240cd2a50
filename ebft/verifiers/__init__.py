"""Attempts, which are rollouts as texts, and the verifiers that score them.

attempts     what a verifier receives
functions    verifiers of answers and programs: exact match, final answer, unit tests
  numbers      numbers in texts, as people and models write an answer
  answers      the program in what a model wrote, without fences and prose
translations verifiers of translations: BLEU and chrF of a sentence
find         verifiers by name, or by the dotted path of a function
"""
