"""Images as data: read from files, as vectors and back.

    cifar                   CIFAR-10, from the files that you have, in its binary or its Python format
    digits, photographs     those that scikit-learn brings

An image of h × w pixels in c channels is a vector y of d = h w c numbers, row by row, a pixel's channels together.
"""

from .cifar import cifar
from .images import Images
from .scikit import digits, photographs

__all__ = ["Images", "cifar", "digits", "photographs"]
