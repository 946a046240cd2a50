"""Studies: many runs of recipes from one file, each in a folder and a process of its own."""
