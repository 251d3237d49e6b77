"""Text from elsewhere gets onto a page through `words.md` alone: read off the source of every page and component."""

from pathlib import Path

import pytest

from components.words import md, option
from tests.foreign import Source

ROOT = Path(__file__).resolve().parents[1]
FILES = [path for folder in ("components", "pages") for path in sorted((ROOT / folder).rglob("*.py"))]


def faults(*sources: str) -> list[str]:
    return Source({f"m{number}": source for number, source in enumerate(sources)}).faults()


def test_no_page_shows_text_from_elsewhere_but_through_md():
    assert len(FILES) > 50
    assert Source({str(path.relative_to(ROOT)): path.read_text("utf-8") for path in FILES}).faults() == []


@pytest.mark.parametrize(
    "planted",
    [
        "st.error(job.error)",
        "st.error(str(error))",
        "st.caption(f'made {run.made}')",
        "left.markdown('clips: ' + row['clip_id'])",
        "st.markdown('\\n'.join(f'- {line}' for line in lines))",
        "said = 'a'\n    said += label\n    st.info(said)",
        "lines = []\n    lines.append(clip.text)\n    st.markdown(' '.join(lines))",
        "st.button(f'Open {name}', key='x')",
        "st.text_input('Name', help=about(row))",
        "st.progress(0.5, text=job.title)",
        "st.segmented_control('By', columns)",
        "choice('By', columns, key='x')",
        "state.shared(st.segmented_control, 'Kind', kinds, default=kinds[0])",
        "draw(row.title)",
        "st.caption(helper(row))",
        "def inner():\n        st.caption(outer)\n    outer = row.name",
    ],
)
def test_planted_text_from_elsewhere_is_found(planted):
    page = "def page(row, lines, label, name, error, columns, kinds):\n    "
    rest = "def draw(title):\n    st.title(title)\ndef helper(row):\n    return f'of {row.name}'\ndraw('Runs')"
    assert len(faults(page + planted, rest)) >= 1
    assert faults(page + "pass", rest) == []  # control: what is found is what was planted
    assert faults(rest.replace("row.name", "md(row.name)") + "\nst.caption(helper(3))") == []


def test_constants_numbers_and_what_md_has_made_are_let_through():
    let_through = """
def page(row, n: int):
    said = f"{md(row.name)}: {row.rate:.2f}, {len(row.clips)} clips, {n} of them"
    said += ", many" if row.many else ""
    lines = [f"- {md(line)}" for line in row.lines]
    lines.append("end")
    st.markdown("; ".join([said, *lines]))
    st.caption(", ".join(map(md, row.names)), help=WORDS[row.kind])
    st.segmented_control("By", row.columns, format_func=md)
    st.selectbox("Plain", row.columns)
"""
    assert faults(let_through) == []
    assert len(faults(let_through.replace("md(line)", "line"))) == 1


def test_names_stay_as_they_are_in_links_and_everything_else_is_escaped():
    assert [option(name) for name in ("prosody", "same_text", "question 1", "resid-post")] == [
        "prosody", "same_text", "question 1", "resid-post"
    ]  # fmt: skip
    for text in ("__bold__", "*a*", "www.example.org", "a:b:c", "_a_"):
        assert option(text) == md(text) != text
