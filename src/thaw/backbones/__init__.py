"""From a name to a pretrained body, the input it expects, and its layer groups.

backbone.py is the contract of all; tracing.py sees in which order modules run, groups.py splits
them by it. Nothing in this package imports Lightning or Hydra.
"""
