"""Recipes: from a YAML file and overrides to validated options, and back."""
