"""What a run leaves to be read.

run_files.py    results.json, history.json, and the last lines that are printed
curves.py       loss, accuracy and rates by epoch as pictures
predictions.py  predictions.csv, and every figure that follows from it
page.py         report.html, from page.html: all of it as one page; conf/report/ names it
"""
