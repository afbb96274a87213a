"""Features of a frozen body: computed once, stored on disk, used instead of photos.

key.py              everything that features depend on; equal keys mean equal features
table.py            features as a table on disk, and the pass that fills it
"""
