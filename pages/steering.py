"""Steering: does the direction of a label, added to what a layer leaves, move the answer to a clip it never saw?"""

from components import experiment_page
from components.steering import view

experiment_page.draw(
    "steer",
    title="Steering: a knob without a donor",
    lead="Add the direction of a label to the states of a recording, and turn the strength up until the answer moves. "
    "Click a cell or a dose; hear the clip.",
    suits=view.suits,
    offers=view.offers,
    explore=view.explore,
)
