"""thaw: transfer learning for image classification.

Shape letters used at line ends everywhere: N images in a batch, C channels, H height, W width,
D features out of the body, K classes.
"""

__version__ = "0.1.0"
