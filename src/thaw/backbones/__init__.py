"""From a name to a pretrained body, the input it expects, and its layer groups.

    backbone.py         the contract of all backbones (Backbone, InputSpec)
    torchvision_backbone.py  torchvision's models
    timm_backbone.py    timm's models
    tiny.py             a small network of thaw's own, with weights
    cnn.py              the textbook network to train from scratch
    rebuild.py          a body without weights, from what a model file recorded
    tracing.py          one forward pass without data: which modules run, in which order
    meta_device.py      models without values
    groups.py           splits a body into ordered layer groups
    pretrained.py       weight files: fetched, read without running code, checked

Nothing in this package imports Lightning or Hydra.
"""
