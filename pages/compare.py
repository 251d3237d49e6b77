"""Compare: where do two models differ, and does the donor's activation, put into the base, change the answer?"""

from components import experiment_page
from components.compare import donor, view, words

experiment_page.draw(
    "compare",
    title="Two models side by side",
    lead="Where do a base and a donor differ, and does the donor's activation, put into the base, change the answer? "
    "Click a cell; hear the clips whose score moved.",
    ask=donor.ask,
    fill=donor.fill,
    offers=view.offers,
    explore=view.explore,
    facts=words.counted,
    run="Compare",
)
