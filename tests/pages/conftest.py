"""The dashboard on a tiny demo: `open_app(url parameters)` is a visitor's session without a browser."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import streamlit as st
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from streamlit.components.v2 import manifest_scanner
from streamlit.proto.WidgetStates_pb2 import WidgetState
from streamlit.runtime.scriptrunner import script_runner
from streamlit.testing.v1 import AppTest
from streamlit.testing.v1.element_tree import Selectbox

from components import export, models, page_style, state
from components.clips import owner
from interp_core.models import bundled
from tests.pages.tiny_demo import write_demo

ROOT = Path(__file__).resolve().parents[2]
ROUTER = ROOT / "components" / "router.py"
PATIENCE_S = 120

OpenApp = Callable[..., AppTest]


@pytest.fixture(scope="session")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read only: tests that change the demo copy it."""
    return write_demo(tmp_path_factory.mktemp("assets"))


def _selectbox_state(box: Selectbox) -> WidgetState:
    state = WidgetState()
    state.id = box.id
    if box.value is not None:
        state.string_value = str(box.value)
    return state


@pytest.fixture(scope="session", autouse=True)
def installed_once() -> Iterator[None]:
    """A server looks once through all installed packages for components, and AppTest at each pass of the script."""
    with pytest.MonkeyPatch.context() as patch:
        once = cache(manifest_scanner.scan_component_manifests)
        patch.setattr(manifest_scanner, "scan_component_manifests", once)
        yield


@pytest.fixture(autouse=True)
def typed_options(monkeypatch: pytest.MonkeyPatch) -> None:
    """AppTest knows no option that a visitor has typed himself; all our options are texts shown as they are."""
    monkeypatch.setattr(Selectbox, "_widget_state", property(_selectbox_state))


@pytest.fixture(autouse=True)
def steady_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server has its script's folder in `sys.path` for good; AppTest puts it there for each pass of the script, and a
    job that imports something or asks for a package's version just when it is taken out misses an entry.
    """
    monkeypatch.setattr(script_runner, "modified_sys_path", lambda _path: nullcontext())


@pytest.fixture
def server(assets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A fresh server on the tiny demo; its folder, below which manifests may lie and runs are kept."""
    monkeypatch.setattr(bundled, "ASSETS", assets)
    monkeypatch.setenv("PATCHBAY_ROOTS", str(tmp_path))
    monkeypatch.setenv("PATCHBAY_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("PATCHBAY_LINKS", "ask")  # most tests come by a link and look at the page before they run it
    monkeypatch.setenv("PATCHBAY_DATA", str(tmp_path / "recordings"))
    monkeypatch.setattr(owner, "visitor", lambda: "of one browser")  # AppTest sends no cookie
    monkeypatch.setattr(models, "PATIENCE_S", PATIENCE_S / 2)  # a session here is one pass of the script
    forget()
    yield tmp_path
    from components import server

    server.engine().jobs.close(timeout=60)
    forget()


def forget() -> None:
    """As a restart of the server would."""
    bundled.demos.cache_clear()
    st.cache_resource.clear()
    st.cache_data.clear()


@pytest.fixture
def open_app(server: Path) -> OpenApp:
    """open_app(layer="2", ...) -> a session that followed a link with these parameters."""

    def follow(**parameters: str) -> AppTest:
        at = AppTest.from_file(str(ROUTER), default_timeout=PATIENCE_S).switch_page(str(ROOT / "pages" / "patching.py"))
        for name, value in parameters.items():
            at.query_params[name] = value
        return at.run()

    return follow


@pytest.fixture
def paper(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Figure]:
    """paper() -> what PNG, SVG and PDF of the page's export are made of, as the page is now."""
    seen: list[partial[Figure]] = []
    button = export._button

    def noted(label: str, data: partial[Any], *settings: Any, **named: Any) -> None:
        if label == "PNG":
            seen.append(data)
        button(label, data, *settings, **named)

    monkeypatch.setattr(export, "_button", noted)
    return lambda: seen[-1].args[0]()


def opened_export(at: AppTest) -> AppTest:
    """As a press on Export."""
    at.session_state[state.EXPORT] = True
    return at.run()


def marks_on(figure: Figure) -> dict[str, Any]:
    """What stands on paper: x of lines through the plot, centres of frames and of rings, and all words."""
    axes = figure.axes[0]
    upright = [line.get_xdata()[0] for line in axes.lines if line.get_transform() == axes.get_xaxis_transform()]
    rings = [line for line in axes.lines if line.get_markerfacecolor() == "none" and len(line.get_xdata()) == 1]
    frames = [patch.get_xy() for patch in axes.patches if isinstance(patch, Rectangle) and not patch.get_fill()]
    return {
        "lines": upright,
        "rings": [(ring.get_xdata()[0], ring.get_ydata()[0]) for ring in rings],
        "frames": {(round(x + 0.48), round(y + 0.48)) for x, y in frames},
        "words": " ".join(text.get_text() for text in figure.findobj(Text)),
    }


def send(at: AppTest, element: Any, selection: dict[str, Any]) -> AppTest:
    """What the browser sends when something is selected in a table; AppTest has no hand for it."""
    states = at._tree.get_widget_states()
    widget = states.widgets.add()
    widget.id = element.proto.id
    widget.string_value = json.dumps({"selection": selection})
    return at._run(widget_state=states)


def by_key(at: AppTest, kind: str, key: str) -> Any:
    """The chart, table or component with a key."""
    return next(element for element in at.get(kind) if element.proto.id.endswith(f"-{key}"))


def click_point(at: AppTest, key: str, trace: str, i: int) -> AppTest:
    """Click point `i` of the trace with this name in the chart with this key."""
    chart = by_key(at, "plotly_chart", key)
    data = json.loads(chart.proto.spec)["data"]
    number = next(n for n, drawn in enumerate(data) if drawn.get("name", "").startswith(trace))
    return click(at, key, data[number]["customdata"][i])


def click(at: AppTest, key: str, *carried: Sequence[Any]) -> AppTest:
    """Click points of the chart with a key that carry this."""
    return trigger(at, f"{page_style.MARK}{key}", "clicked", [list(one) for one in carried])


def marked(at: AppTest, key: str) -> dict[str, Any]:
    """What is drawn into the chart with a key: lines, dots, frames and names."""
    return told(at, f"{page_style.MARK}{key}")


def words(at: AppTest) -> str:
    """All the text of a page, markdown unescaped."""
    parts = [
        element.value
        for kind in ("title", "markdown", "caption", "info", "warning", "error")
        for element in at.get(kind)
    ]
    return "\n".join(parts).replace("\\", "")


def faults(at: AppTest) -> list[str]:
    """What went wrong: exceptions and error boxes."""
    return [str(element.value) for element in [*at.exception, *at.error]]


def told(at: AppTest, key: str) -> dict[str, Any]:
    """What the browser is sent for the component with a key."""
    return json.loads(by_key(at, "bidi_component", key).proto.json)


def tell(at: AppTest, key: str, **state: Any) -> AppTest:
    """The component with a key sets its state, as its script does with `setStateValue`."""
    states = at._tree.get_widget_states()
    widget = states.widgets.add()
    widget.id = by_key(at, "bidi_component", key).proto.id
    widget.json_value = json.dumps(state)
    return at._run(widget_state=states)


def trigger(at: AppTest, key: str, event: str, value: Any) -> AppTest:
    """The component with a key reports an event, as its script does with `setTriggerValue`."""
    states = at._tree.get_widget_states()
    widget = states.widgets.add()
    widget.id = f"$$STREAMLIT_INTERNAL_KEY_{by_key(at, 'bidi_component', key).proto.id}__events"
    widget.json_trigger_value = json.dumps([{"event": event, "value": value}])
    return at._run(widget_state=states)


def in_link(at: AppTest, name: str) -> str | None:
    """What the address says of a parameter."""
    found = at.query_params.get(name)
    return found[0] if isinstance(found, list) else found
