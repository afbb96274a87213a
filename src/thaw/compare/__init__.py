"""Runs beside each other: `thaw compare`.

runs.py             run folders, read
names.py            names that tell settings apart
run_groups.py       groups of runs that differ in the seed or fold only
paired.py           means, paired differences, their intervals
tables.py           scores, cost and runs as tables
comparison.py       all of it in words and Markdown
pictures.py         pictures of groups
curves.py           loss and accuracy by epoch
page.py             one HTML page
"""
