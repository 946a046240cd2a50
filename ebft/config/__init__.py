"""Recipes: from a YAML file and overrides to validated options, and back.

read, overrides, load      a file with its base; `key=value`; both → validated options
recipe                     options and jobs of all recipes
component, class_kinds     a class named by its path: optimizers, schedules, loggers
  usual                    those whose arguments are checked without importing them
explain                    mistakes, one line each
dump                       options → a recipe with all defaults
about                      the recipe of the run that wrote a checkpoint
"""
