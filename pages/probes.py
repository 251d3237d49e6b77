"""Probes: at which layer and site can a linear probe read a label, or how high, loud or fast a recording is?"""

from components import experiment_page
from components.probes import view

experiment_page.draw(
    "probes",
    title="Probes: what a layer can be read for",
    lead="At which layer does a linear probe read a label or a quantity of recordings that it was not fitted on? "
    "Click a cell or a point; hear the clips.",
    suits=view.suits,
    offers=view.offers,
    explore=view.explore,
    answers=False,
)
