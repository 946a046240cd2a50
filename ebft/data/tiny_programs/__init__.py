"""Small programs with unit tests, made from a seed: a task with a verifier for small models."""
