"""Images as data: read from files, as vectors and back; and denoisers that make images which no datum is.

    cifar                   CIFAR-10, from the files that you have, in its binary or its Python format
    digits, photographs     those that scikit-learn brings
    Local                   each pixel told by its window alone: Squares, at the memory_edge, or WienerWindows
    EquivariantLocal        the same at any place
    Golden                  on the data that may count

An image of h × w pixels in c channels is a vector y of d = h w c numbers, row by row, a pixel's channels together.
"""

from .cifar import cifar
from .equivariant import EquivariantLocal
from .golden import Golden
from .images import Images
from .local import Denoised, Local
from .memory import memory_edge, window_entropies
from .scikit import digits, photographs
from .windows import Squares, WienerWindows

__all__ = [
    "Denoised", "EquivariantLocal", "Golden", "Images", "Local", "Squares", "WienerWindows", "cifar", "digits", "memory_edge",
    "photographs", "window_entropies",
]  # fmt: skip
