"""Features of a frozen body: computed once, kept, learned from, scored.

table.py            features of photos in views, on disk; what they depend on
extraction.py       the pass over the photos that fills them
cache_choice.py     which phases train on them
caching.py          the callback that puts them in the photos' place
solvers.py          ridge, logistic regression, SVM; strength chosen on validation
scores.py           linear probe, nearest neighbours, LogME
speed.py            images a second
"""
