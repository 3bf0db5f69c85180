"""Figures: what the sampler does, and how well. The only room that needs matplotlib, imported where it is used.

Every function takes arrays and gives back a `matplotlib.figure.Figure`, made without pyplot: nothing global is touched,
nothing is shown. The colours are Okabe and Ito's, told apart by every eye; each series has a marker of its own besides.
"""

from .costs import quality_cost
from .curves import Curve, Order, Panel, convergence, order_parameters
from .images import Film, film, image_grid
from .paths import Bundle, Evolution, bundles, evolution, space_time
from .style import BLACK, BLUE, GREEN, LINE_STYLES, MARKERS, ORANGE, PALETTE, PURPLE, RED, SKY, YELLOW

__all__ = [
    "BLACK", "BLUE", "GREEN", "LINE_STYLES", "MARKERS", "ORANGE", "PALETTE", "PURPLE", "RED", "SKY", "YELLOW",
    "Bundle", "Curve", "Evolution", "Film", "Order", "Panel",
    "bundles", "convergence", "evolution", "film", "image_grid", "order_parameters", "quality_cost", "space_time",
]  # fmt: skip
