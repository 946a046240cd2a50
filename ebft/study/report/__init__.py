"""The report of a study: tables, pictures, a page.

make, page, plots          writes the report; its text; its pictures
effects, groups            differences between arms, with intervals; the groups in a picture
records, read              a study in memory; reads one
record_files               the study's record: six files to keep or to share
"""
