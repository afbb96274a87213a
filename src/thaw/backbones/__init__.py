"""From a name to a pretrained body, the input it expects, and its layer groups.

    backbone.py         the contract of all backbones (Backbone, InputSpec); torchvision's models
    timm_backbone.py    timm's models
    own_backbones.py    thaw's own small networks (tiny.py, cnn.py) as backbones
    rebuild.py          a body without weights, from what a model file recorded
    tracing.py          one forward pass without data: which modules run, in which order
    parts.py            splits a body into modules
    groups.py           makes ordered layer groups of these modules
    pretrained.py       weight files: fetched, read without running code, checked

Nothing in this package imports Lightning or Hydra.
"""
