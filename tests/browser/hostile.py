"""Texts that a page could take for something else than text."""

TEXTS = (
    "http://example.org/a",
    "see https://example.org:80/x?y=1#z.",
    "www.example.org",
    "somebody@example.org",
    "**bold** _slanted_ ~~gone~~ `code`",
    "<b>bold</b> <img src=x onerror=alert(1)> <!-- no -->",
    "[name](http://example.org) ![picture](http://example.org/p.png) <http://example.org>",
    "# title 1. one - two > three | a | b",
    ":red[red] :material/home: :smile: :+1: :streamlit: a:b:c",
    "$x^2$ $$y$$ \\alpha &lt; &amp; a\\b",
    "a -> b <- c <-> d -- e >= f <= g ~= h",
    "[^1] [ ] [x] (c) 'quoted' \"twice\" ...",
)
