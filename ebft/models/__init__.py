"""Models: the policy and the frozen feature network: load, forward, export."""
