"""The records of a step, and the tree that they are computed in.

records               documents, contexts, rollouts, features, terms
  contexts              how contexts and rollouts are made
tree, tree_mask       rollouts as branches of their documents; what a token sees
  rows                  the same as ordinary texts
transfer              copies to a device for which the host does not wait
streams               random numbers that depend on nothing but their address
micro_batches         documents divided by a budget of tokens
"""
