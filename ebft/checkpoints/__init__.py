"""Checkpoints: writes and verifies them, and resumes runs from them.

folder                 the folder of a run's checkpoints, which are written atomically
snapshot               the contents of a checkpoint: the model's folder and the run's state
  state, nested          the state of the training loop; nested state on disk
  shards                 the optimizer's tensors in several processes
manifest               checksums, to find damaged checkpoints
resume, differences    chooses the checkpoint to resume from, and compares its recipe
checkpointer           saves and restores the state of a run
hub                    the options of uploads to the Hugging Face Hub
publisher, upload      uploads checkpoints while a run trains, each in a process of its own
room                   checks whether the checkpoints fit on the disk
"""
