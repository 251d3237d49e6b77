"""What a report is put together from, each as HTML: text from elsewhere is escaped here and nowhere else."""

import base64
import html
import io
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import soundfile
from matplotlib.figure import Figure

from interp_core.experiments.example import Sound
from interp_core.looks import BLUE, OCHRE, VERMILLION

ROWS, COLUMNS, LETTERS = 20, 40, 300
"""The most of a table that is written out, and of a text in it."""
DPI = 110


def esc(text: object) -> str:
    """Text word for word. What no file can hold (half a character of a broken name) is written as its number."""
    return html.escape(str(text).encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\0"))


def paragraph(text: object, kind: str = "") -> str:
    """Text as a paragraph; `kind` is its class."""
    return f'<p class="{kind}">{esc(text)}</p>' if kind else f"<p>{esc(text)}</p>"


def bullets(lines: Iterable[object]) -> str:
    """Lines as a list."""
    return f"<ul>{''.join(f'<li>{esc(line)}</li>' for line in lines)}</ul>"


def marked(text: str) -> str:
    """Our own words, a list in markdown with * for stress, as HTML."""
    points = [esc(" ".join(point.split())) for point in re.split(r"^- ", text, flags=re.MULTILINE) if point.strip()]
    strong = [re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", point) for point in points]
    both = [re.sub(r"\*(.+?)\*", r"<em>\1</em>", point) for point in strong]
    return f"<ul>{''.join(f'<li>{point}</li>' for point in both)}</ul>"


def code(text: str) -> str:
    """Text to be copied."""
    return f'<pre tabindex="0"><code>{esc(text)}</code></pre>'


def named(values: Mapping[str, object], title: str) -> str:
    """Names and values as a table of two columns."""
    rows = "".join(
        f'<tr><th scope="row">{esc(name)}</th><td>{_cell(value)}</td></tr>' for name, value in values.items()
    )
    return _scrolled(f"<caption>{esc(title)}</caption><tbody>{rows}</tbody>", title)


def table(name: str, data: pd.DataFrame) -> str:
    """The first rows and columns of a table, and how many are left out."""
    shown = data.iloc[:ROWS, :COLUMNS]
    said = [f"{len(data):,} rows"]
    if len(shown) < len(data):
        said = [f"the first {len(shown)} of {len(data):,} rows; {len(data) - len(shown):,} are left out"]
    if len(shown.columns) < len(data.columns):
        said.append(f"{len(data.columns) - len(shown.columns)} of {len(data.columns)} columns are left out")
    head = "".join(f'<th scope="col">{esc(column)}</th>' for column in shown)
    rows = "".join(
        f"<tr>{''.join(f'<td>{_cell(value)}</td>' for value in row)}</tr>" for row in shown.itertuples(index=False)
    )
    caption = f"<caption>{esc(name)}: {esc('; '.join(said))}</caption>"
    return _scrolled(f"{caption}<thead><tr>{head}</tr></thead><tbody>{rows}</tbody>", name)


def _scrolled(inside: str, title: str) -> str:
    return f'<div class="wide" role="region" tabindex="0" aria-label="{esc(title)}"><table>{inside}</table></div>'


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and value != value):
        return ""
    if isinstance(value, float | np.floating):
        return esc(f"{value:.4g}")
    text = str(value)
    return esc(text if len(text) <= LETTERS else f"{text[:LETTERS]} … ({len(text):,} letters)")


def picture(figure: Figure, said: str) -> str:
    """A figure as a PNG inside the page."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=DPI, facecolor="white")
    return f'<figure><img src="{_data(out.getvalue(), "image/png")}" alt="{esc(said)}"></figure>'


def audio(side: str, sound: Sound) -> str:
    """A recording as a 16-bit WAV inside the page, at its own level; only what is beyond full scale is turned down."""
    out = io.BytesIO()
    loudest = max(1.0, float(np.abs(sound.samples).max()))
    soundfile.write(out, sound.samples / loudest, sound.sample_rate, format="WAV", subtype="PCM_16")
    source = _data(out.getvalue(), "audio/wav")
    name = esc(f"{side}: {sound.label}")
    player = f'<audio controls preload="none" aria-label="{name}" src="{source}"></audio>'
    return f'<p class="{side}">{name}<br>{player}</p>'


def _data(content: bytes, mime: str) -> str:
    return f"data:{mime};base64,{base64.b64encode(content).decode('ascii')}"


def section(title: str, *inside: str) -> str:
    """A heading and what is under it; nothing where nothing is."""
    return f"<section><h2>{esc(title)}</h2>{''.join(inside)}</section>" if any(inside) else ""


STYLE = """
:root{color-scheme:light dark;--paper:#fff;--ink:#1a1a1a;--faint:#595959;--line:#d0d0d0;--card:#f5f5f5}
@media(prefers-color-scheme:dark){:root{--paper:#171614;--ink:#eee;--faint:#b5b5b5;--line:#444;--card:#24221f}}
body{background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,sans-serif;margin:0 auto;max-width:64rem;
padding:1.5rem}
h1{font-size:1.7rem;margin:0 0 .25rem}h2{border-top:1px solid var(--line);font-size:1.25rem;margin:2rem 0 .5rem;
padding-top:1rem}h3{font-size:1rem;margin:1.5rem 0 .25rem}
.faint,caption{color:var(--faint)}.left-out{border-left:3px solid;padding-left:.75rem}
.wide{margin:.75rem 0;max-height:32rem;overflow:auto}table{border-collapse:collapse;font-size:.85rem}
caption{padding:.25rem 0;text-align:left}th,td{border:1px solid var(--line);padding:.2rem .5rem;text-align:left;
unicode-bidi:isolate;vertical-align:top}td{max-width:32rem;overflow-wrap:anywhere}thead th{background:var(--card)}
pre{background:var(--card);overflow-x:auto;padding:.75rem;white-space:pre-wrap;overflow-wrap:anywhere}
h1,h3,li,p{overflow-wrap:anywhere;unicode-bidi:isolate}
figure{background:#fff;border:1px solid var(--line);margin:.75rem 0}img{display:block;height:auto;max-width:100%}
.pair{display:flex;flex-wrap:wrap;gap:1.5rem}.A,.B{border-left:4px solid;margin:.5rem 0;padding-left:.75rem}
audio{margin-top:.25rem;max-width:100%}
"""
STYLE += f".A{{border-color:{BLUE}}}.B{{border-color:{VERMILLION}}}.left-out{{border-color:{OCHRE}}}\n"
