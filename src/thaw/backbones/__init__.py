"""From a name to a pretrained body, the input it expects, and its layer groups; no Lightning."""
