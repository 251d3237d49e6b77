"""Layer patching: if A's audio at a layer becomes B's, does the answer move toward B?"""

from components import experiment_page
from components.patching import ask, explain, view

experiment_page.draw(
    "patch",
    title="Layer patching",
    lead="Inside the model, B's audio replaces A's at one layer. Click a layer: see the answer flip, hear A and B.",
    ask=lambda asked: asked,  # the sidebar has asked for pairs and questions too
    fill=ask.fill,
    offers=view.offers,
    explore=view.explore,
    without_run=view.without_run,
    facts=explain.counted,
    skip=ask.IN_SIDEBAR,
    run="Run on all pairs",
)
