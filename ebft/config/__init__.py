"""Recipes: from a YAML file and overrides to validated options, and back.

read, overrides, load      a file with its base; `key=value`; both → validated options
recipe, component          options and jobs of all recipes; a class named by its path
explain                    mistakes, one line each
dump                       options → a recipe with all defaults
environment, shipped       no environment variables; the recipes that come with ebft
"""
