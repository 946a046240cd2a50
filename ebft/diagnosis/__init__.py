"""`ebft noise`: what a recipe's gradient says, measured before training.

run                     the command: load once, measure each alternative, show
  alternatives          the recipe and its variations, on the same documents
  sets                  two independent sets of rollouts for each context, scored
  evidence              what is measured of an alternative: products of documents' gradients
  figures               what follows: signal, noise, the best n and γ, with intervals
    effect              optimizer steps to an effect of a stated size
    advice              a recommendation in the recipe's keys
  table, picture, record   the results on the terminal, as a picture, as JSON
"""

FEWEST = 8
"""Documents that intervals need."""
