"""`ebft sample`: what a base model and a checkpoint write after the same contexts.

two_models    finds a checkpoint, its recipe and its base model, and loads both
sampling      samples from both, and scores what they wrote
"""
