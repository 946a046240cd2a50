"""Checkpoints: what is in one, whether it is whole, and how a run resumes from it.

folder                 a run's checkpoints: each appears whole or not at all
snapshot               what is in one: a model's folder, and the run's state beside it
  state, nested          the state of the loop; nested state on disk
  shards                 an optimizer's tensors in several processes
manifest               checksums: whether a checkpoint is whole
resume, differences    which one a run resumes from, and what has changed since
checkpointer           the state of a run: saved, and restored
room                   whether the disk has room for them
"""
