"""Checkpoints: what is in one, that it is whole, and how a run goes on from it.

folder                     a run's checkpoints: each appears whole or not at all
snapshot, state            what is in one: a model's folder, and the state of the run
  nested, generators         nested state on disk; the random generators
  sharded, shards            an optimizer's tensors in several processes
manifest, verify, retry    checksums, damage, and storage that is away for a moment
resume, differences        which one a run goes on from, and what has changed since
room                       whether there is room for them on the disk
"""
