"""Studies: many runs of recipes from one file, each in a folder and a process of its own.

options, arms, plan        the schema; the arms that are compared; the runs of the arms
job, process, worker       runs the study; starts the process of a run; the code of that process
folder, contents           the files of a study: paths, and schemas
dry_run                    the estimate of `--dry-run`
report                     tables, pictures and a page from a study's folder; its record
"""
