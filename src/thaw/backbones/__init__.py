"""A name -> a pretrained body, what it wants to see, its layer groups.

    backbone.py         torchvision's models; the contract of all: Backbone, InputSpec
    timm_backbone.py    timm's, with their own input spec and order of groups
    own_backbones.py    thaw's own nets as backbones
    tiny.py             a small residual net; weights/ holds what it learned
    cnn.py              a small net to train from scratch
    tracing.py          one pass without data: which layers run, in which order, how large
    parts.py            takes a body apart into modules
    groups.py           makes ordered layer groups of them
    layers.py           layer groups by name, and their rates
    cut.py              a body up to one of its groups
    taps.py             what each of its groups gives
    pretrained.py       weight files: fetched, read without running code, checked
    licences.py         what is known of the licence of weights
    catalogue.py        what is known of each set of weights before it is fetched
    catalogue_plot.py   accuracy against parameters and compute

No Lightning and no Hydra in here.
"""
