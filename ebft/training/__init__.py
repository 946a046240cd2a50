"""The algorithm.

loop                       fine-tuning on one page: sample, score, accumulate, update
losses, totals             the two parts of the loss; their sums over a step
machinery                  what the loop is given, and what it says of each step
contract, check_finite     what parts must return; where a NaN arose
clip                       gradient clipping, of sharded gradients too
metrics, gradients         a step's figures; the size and the noise of each part's gradient
"""
