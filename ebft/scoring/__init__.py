"""Scoring: unbiased estimates of the reported losses, and their intervals.

interval           intervals of means over documents, of paired changes, and over seeds
kernels            kernels between features
  kernel_scores      unbiased estimates of the feature-matching loss and other kernel scores
pairs              figures of means over pairs of documents, with intervals
  gradient_signal  signal and noise of gradients, and where the noise comes from
estimators         pass@k, corpus-level figures, entropy drift, gradient noise
"""
