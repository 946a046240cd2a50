"""The Python interface: what the command line does, from a program or a notebook.

finetune     run a recipe: fine-tune, or evaluate a model
given        models, data and parts that are objects, as files and overrides of the recipe
results      a run's figures as data frames and pictures, and its policy
"""
