"""Estimators, with confidence intervals.

interval           means over documents, paired changes, means over seeds: with intervals
kernels            kernels between features
  kernel_scores      the feature-matching loss and other kernel scores, without bias
estimators         pass@k, figures of a whole corpus, entropy drift, gradient noise
"""
