"""Features of a frozen body: computed once, stored on disk, used instead of photos.

table.py    the features of photos in views
key.py      everything the features depend on; names their file
fill.py     the pass over the photos that writes the file
"""
