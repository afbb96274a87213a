"""What a run leaves to be read.

run_files    results.json, history.json, curves.png, and the last lines that are printed
curves       loss, accuracy and rates by epoch as a picture
predictions  predictions.csv, and every figure that follows from it
page         report.html: all of it as one page
page_full    the same page with what costs another pass: heat maps, how far the layers moved
"""
