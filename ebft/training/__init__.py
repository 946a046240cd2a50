"""The algorithm.

loop                  fine-tuning on one page: sample, score, accumulate, clip, update
ahead                 sampling the next step's rollouts while a step trains
losses                the two parts of the loss, for a micro-batch and summed over a step
objective             the formulas of the losses, with importance weights
parts                 the loop's inputs, and what it reports of each step
checks                what parts must return; which document a NaN is in
metrics               a step's metrics
gradients, sketch     single documents' gradients, their norms and noise; sketches of them
  sharded_gradients     the same where weights are sharded over processes
"""
