"""Recipes: from a YAML file and overrides to validated options, and back.

read, overrides, load      a file, with its base; `key=value`; both → validated options
recipe                     what every recipe has, and the job that it runs
component, kinds           a class that a recipe names by its path: optimizers, schedules, loggers
explain                    mistakes, one line each
dump                       options → a recipe that says everything, defaults too
"""
