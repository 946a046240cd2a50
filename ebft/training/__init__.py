"""The algorithm: one step, its losses, its checks, its figures."""
