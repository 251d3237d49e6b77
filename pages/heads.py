"""Heads: which of them separate the classes, is it more than chance, and does the model use them?"""

from components import experiment_page
from components.heads import view, words

experiment_page.draw(
    "heads",
    title="Heads, blocks, stages",
    lead="Which attention heads separate the classes, and does the model use them? Click a head; hear its clips.",
    suits=view.suits,
    fill=view.fill,
    offers=view.offers,
    explore=view.explore,
    facts=words.counted,
    answers=False,
)
