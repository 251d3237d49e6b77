"""Every icon that the dashboard names is one that Streamlit knows: another one takes down what stands below it."""

import re
from pathlib import Path

import pytest
from streamlit.errors import StreamlitAPIException
from streamlit.string_util import validate_material_icon

ROOT = Path(__file__).resolve().parents[2]


def icons(text: str) -> list[str]:
    return re.findall(r":material/\w+:", text)


def test_every_icon_of_the_dashboard_exists():
    named = {
        icon
        for folder in ("components", "pages")
        for path in (ROOT / folder).rglob("*.py")
        for icon in icons(path.read_text("utf-8"))
    }
    assert len(named) > 10
    for icon in sorted(named):
        validate_material_icon(icon)


def test_an_icon_that_does_not_exist_would_be_noticed():
    (icon,) = icons('st.expander("x", icon=":material/no_such_icon:")')
    with pytest.raises(StreamlitAPIException):
        validate_material_icon(icon)
