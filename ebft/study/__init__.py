"""Studies: many runs of recipes from one file, each in a folder and a process of its own.

options, arms, plan        the schema; what is compared; the runs that follow
job, worker, process       the study; one run of it; the process between the two
folder, contents           where its files are, and what they say
surroundings               commit, versions, hardware
dry_run                    what it would cost
report                     tables, pictures and a page from a study's folder; its record
"""
