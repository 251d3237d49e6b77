"""Sign flip: what do flipped neurons do to energy, zero crossings and modulation of the representation behind them?"""

from components import experiment_page
from components.signflip import view

experiment_page.draw(
    "signflip",
    title="Sign flips, measured where they can act",
    lead="Flip the neurons that matter for a class at one layer, and measure the representation at every layer behind "
    "it. Click a cell; hear the clips whose answer changed.",
    suits=view.suits,
    offers=view.offers,
    explore=view.explore,
)
