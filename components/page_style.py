"""What the theme cannot say about a page: margins, the colour of a chart's words, columns that stack, larger type.

Rules of style only, from here and nowhere else: nothing that a visitor or a file names stands in them.
"""

from __future__ import annotations

import streamlit as st

STACKS = "stacks_"
"""Begins the key of a container whose columns go below each other where a page is narrow."""
FIRST, LAST = "first_of_stack", "last_of_stack"
"""Keys of the containers that stand above and below all others where columns go below each other."""
HEADING = "heading"
"""The key of the container with a page's title."""
STEPS = "steps_"
"""Begins the key of a container with two buttons that step through what stands beside them; it stays one line."""
BAR = "bar"
"""The key of the container with the origin of the run on show and its export."""
NOTE = "note"
"""The key of the container with what an example says and the button that closes it; it stays one line."""
MARK = "mark_of_"
"""Begins the key of what draws the mark into a chart; it takes no room."""
CARD = "card_"
"""Begins the key of a container that is one link: a click anywhere in it is a click on the link in it."""
NARROW_PX, LOW_PX = 1100, 840

# Streamlit leaves 80 pixels at each side, which charts need more than the page does, and 60 above for a bar with one
# button in it; where the sidebar is folded away that bar holds the way back to it, and the room stays. What
# says there that the page is busy stands beside the button of the settings, and not on it.
_MARGINS = f"""
[data-testid='stMainBlockContainer'] {{ padding-left: 2.5rem; padding-right: 2.5rem; }}
[data-testid='stAppViewContainer']:not(:has([data-testid='stExpandSidebarButton']))
  [data-testid='stMainBlockContainer'] {{ padding-top: 1.5rem; }}
[data-testid='stHeader'] {{ background: transparent; }}
[data-testid='stHeader'], [data-testid='stHeader'] * {{ pointer-events: none !important; }}
[data-testid='stHeader'] :is(button, a, button *, a *) {{ pointer-events: auto !important; }}
[data-testid='stStatusWidget'] {{ margin-right: 12rem; }}
.st-key-{HEADING} {{ padding-right: 2rem; }}
.st-key-{HEADING} h1 {{ white-space: nowrap; padding: 0; }}
.st-key-{HEADING} > [data-testid='stElementContainer']:has([data-testid='stMarkdown'] p) {{ order: 3;
  flex: 1 0 100%; }}
.st-key-{HEADING} > [data-testid='stElementContainer']:has([data-testid='stHeading']) {{ flex: 1 1 0; }}
.st-key-{HEADING} > :is([data-testid='stLayoutWrapper'], .stVerticalBlock) {{ flex: 0 0 auto; }}
:is(.st-key-{BAR}, .st-key-{NOTE}) {{ flex-wrap: nowrap; }}
[class*='st-key-{MARK}'] {{ display: none; }}
[class*='st-key-{CARD}'] {{ position: relative; }}
[class*='st-key-{CARD}']:hover {{ border-color: currentColor; }}
[class*='st-key-{CARD}'] :is([data-testid='stElementContainer'], [data-testid='stPageLink'], a) {{ position: static; }}
[class*='st-key-{CARD}'] [data-testid='stPageLink'] a::after {{ content: ''; position: absolute; inset: 0; }}
:is(.st-key-{BAR} > [data-testid='stElementContainer'],
  .st-key-{NOTE} > [data-testid='stElementContainer']:has([data-testid='stAlert'])) {{ flex: 1 1 0; min-width: 0; }}
[class*='st-key-{STEPS}'] {{ flex-wrap: nowrap; }}
[class*='st-key-{STEPS}'] > [data-testid='stElementContainer']:has([data-testid='stCaptionContainer']) {{
  flex: 1 1 0; min-width: 0; }}
[class*='st-key-{STEPS}'] > [data-testid='stElementContainer']:has(> .stButton) {{ flex: 0 0 auto; min-width: 0; }}
[class*='st-key-{STEPS}'] > [data-testid='stElementContainer'] > .stButton button {{ padding: 0.25rem 0.4rem; }}
[data-testid='stMainBlockContainer'] [data-testid='stVerticalBlock'] {{ gap: 0.65rem; }}
"""
# While a part of the page runs again, Streamlit fades what it may replace over a second, from half a second on: each
# frame of that is drawn anew, which slows the very run that it waits for. Here it begins later and is short.
_STALE = """
[data-stale='true'], [data-stale='true'] :is(details, summary) {
  transition-delay: 1.5s !important; transition-duration: 0.2s !important; }
"""
# Streamlit's own grey for the words of a chart is 3.7:1 on white; here they take the colour of the page's text. The
# green of its code is too faint for a caption.
_CHART_WORDS = """
[data-testid='stMarkdownContainer'] :is(th, td) { padding: 0.35rem 0.5rem; }
[data-testid='stMarkdownContainer'] td { overflow-wrap: anywhere; }
[data-testid='stMarkdownContainer'] td strong { white-space: nowrap; }
[data-testid='stCaptionContainer'] code { color: inherit; }
.js-plotly-plot :is(.xtick, .ytick, .cbaxis, .cbtitle) text,
  .js-plotly-plot :is(.xtitle, .ytitle, .annotation-text, .gtitle) { fill: currentColor !important; }
"""
_STACKED = f"""
@media (max-width: {NARROW_PX}px) {{
  .st-key-{HEADING} h1 {{ white-space: normal; }}
  [class*='st-key-{STACKS}'] > [data-testid='stLayoutWrapper'] > [data-testid='stHorizontalBlock'],
  [class*='st-key-{STACKS}'] > [data-testid='stHorizontalBlock'] {{ flex-direction: column; }}
  [class*='st-key-{STACKS}'] > [data-testid='stLayoutWrapper'] > [data-testid='stHorizontalBlock']
    > [data-testid='stColumn'] {{ width: 100%; flex: 1 1 auto; }}
  [data-testid='stColumn']:has(.st-key-{FIRST}, .st-key-{LAST}),
  [data-testid='stColumn']:has(.st-key-{FIRST}, .st-key-{LAST}) > [data-testid='stVerticalBlock'] {{
    display: contents; }}
  [data-testid='stLayoutWrapper']:has(> .st-key-{FIRST}) {{ order: -1; }}
  [data-testid='stLayoutWrapper']:has(> .st-key-{LAST}) {{ order: 1; }}
}}
@media (max-height: {LOW_PX}px) {{
  [data-testid='stAppViewContainer']:not(:has([data-testid='stExpandSidebarButton']))
    [data-testid='stMainBlockContainer'] {{ padding-top: 0.4rem; }}
}}
"""
_PRESENTED = f"""
[data-testid='stMain'] :is([data-testid='stMarkdownContainer'] p, [data-testid='stWidgetLabel'] p) {{
  font-size: 1.15rem; }}
[data-testid='stMain'] :is(.st-key-{HEADING}, .st-key-{BAR}) {{ display: none; }}
[data-testid='stMain'] [data-testid='stVerticalBlock'] {{ gap: 0.5rem; }}
[data-testid='stMain'] [data-testid='stMainBlockContainer'] {{ padding-top: 0.75rem !important; }}
"""


def apply(*, presented: bool) -> None:
    """Put the rules on the page; `presented`: those of the presenter mode too."""
    st.html(f"<style>{_MARGINS}{_STALE}{_CHART_WORDS}{_STACKED}{_PRESENTED if presented else ''}</style>")
