"""What the runs of a study have shown: tables, pictures, a page.

make, page, plots          the report; its text; its pictures
effects, groups            differences between arms, with intervals; what a picture compares
records, read              a study in memory; reading one
record_files               the study's record: six files to keep or to hand on
"""
