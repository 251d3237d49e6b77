"""Neurons: do a few carry a shortcut, and does taking them out help where the shortcut does not hold?"""

from components import experiment_page
from components.neurons import view
from interp_core.experiments.neurons.experiment import resolve

experiment_page.draw(
    "ablate",
    title="Neurons that carry a shortcut",
    lead="Take out the neurons that a probe of the domain leans on, K at a time: does the head do better where the "
    "shortcut does not hold? Click a dose; hear the clips that changed.",
    fill=resolve,
    suits=view.suits,
    offers=view.offers,
    explore=view.explore,
)
