"""Models: the policy and the frozen feature network.

options, load                  the `model:` section, and what it loads
  refused, weights               what of a model's files is refused; whether its weights are right
  embedded, lora, quantize       the model in a wheel, adapters, base models in 4 bits
shape                          dimensions, for what things cost; how much text a model reads
tokenizer                      texts → tokens and back
layers                         the decoder's layers: found, recomputed in backward, compiled
forward                        a row of trees → last hidden states; the KV cache
  attention, flex                what its tokens see: on any device, on a GPU
log_probs, tree_log_probs      hidden states → log-probs, through the LM head
probe                          the tree compared with independent rows, on the real model
shard, whole                   weights sharded over processes, and gathered
export                         a folder that `from_pretrained` loads
"""
