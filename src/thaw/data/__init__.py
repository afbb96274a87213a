"""Photo sources. Imports nothing, so that `thaw.data.decode` needs no Lightning.

base (the data module of all sources), demo and flowers, flowers102, pets, dogs_vs_cats, folder;
photos (files and labels), archive (downloads), splitting, decode, dataset, loading (the order),
workers (how many)
"""
