"""Recipes: from a YAML file and overrides to validated options, and back.

read, overrides, load      a file, with its base; `key=value`; both → validated options
recipe, component          what every recipe has; a class that one names by its path
explain                    mistakes, one line each
dump                       options → a recipe that says everything, defaults too
environment, shipped       no environment variables; the recipes that come with ebft
"""
