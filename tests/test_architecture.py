"""The arrows of the design, read off the imports themselves: who may use whom, and what stays in one place."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PRODUCT = ("interp_core", "components", "pages")
# A module may import from its own group and from those named here.
MAY_USE = {
    "ground": set(),  # errors, sites, maths, cache, jobs, storage
    "data": {"ground"},
    "models": {"ground", "data"},
    "trace": {"ground", "data", "models"},
    "experiments": {"ground", "data", "models", "trace"},
    "engine": {"ground", "data", "models", "trace", "experiments"},
    "components": {"ground", "data", "models", "experiments", "engine"},
    "pages": {"ground", "data", "models", "experiments", "engine", "components"},
    "app": {"ground", "engine", "components"},
}
GROUND = {"errors", "sites", "maths", "cache", "jobs", "storage"}
ENGINE = {"engine", "request", "patch_folder", "runs", "figures", "doors", "cli", "__main__"}
PAPERS = ("*.md", "*.toml", "requirements*.txt", "Makefile", ".ci/run", ".streamlit/*.toml", "benchmarks/*")
OF_OTHER_PLACES = (
    r"/work/|/workspace|/home/|/root/|/tmp/|/mnt/|sandbox|\bissues? #?\d|\bbrief\b|pypi\.|pythonhosted|artifactory"
)


def product_files() -> list[Path]:
    found = [path for folder in PRODUCT for path in sorted((ROOT / folder).rglob("*.py"))]
    return found + [path for path in [ROOT / "app.py"] if path.exists()]


def module_of(path: Path, root: Path = ROOT) -> str:
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def group_of(module: str) -> str | None:
    """The group of a module of ours, None for anybody else's or for a bare package."""
    first, _, rest = module.partition(".")
    if first in ("components", "pages", "app"):
        return first
    if first != "interp_core" or not rest:
        return None
    part = rest.partition(".")[0]
    return "ground" if part in GROUND else "engine" if part in ENGINE else part


def imports(tree: ast.AST, module: str) -> Iterator[tuple[int, str]]:
    """Yield (line, module) of every import in a file, wherever it stands; `from p import name` also as p.name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")[: -node.level]
                base = ".".join([*parents, base] if base else parents)
            yield node.lineno, base
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def wrong_imports(source: str, module: str) -> list[str]:
    """Imports that go against the arrows, and streamlit or plotly below the components."""
    own, found = group_of(module), set()
    for line, name in imports(ast.parse(source), module):
        top = name.partition(".")[0]
        if module.startswith("interp_core") and top in ("streamlit", "plotly"):
            found.add(f"{module}:{line} imports {top}")
        used = group_of(name)
        if own is not None and used is not None and used != own and used not in MAY_USE.get(own, set()):
            found.add(f"{module}:{line} ({own}) imports {name} ({used})")
    return sorted(found)


def uses(source: str, pattern: str) -> list[int]:
    """Lines with an attribute or a name that matches."""
    nodes = ast.walk(ast.parse(source))
    named = (
        (n, n.attr if isinstance(n, ast.Attribute) else n.id) for n in nodes if isinstance(n, ast.Attribute | ast.Name)
    )
    return [node.lineno for node, name in named if re.fullmatch(pattern, name)]


def own_keys(source: str) -> list[int]:
    """Lines that name a session key or a URL parameter by a text of their own instead of a constant or an argument."""

    def is_store(node: ast.AST) -> bool:
        return getattr(node, "attr", getattr(node, "id", "")) in ("session_state", "query_params")

    found = set()
    tree = ast.parse(source)
    calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        key: ast.AST | None = None
        if isinstance(node, ast.Subscript) and is_store(node.value):
            key = node.slice
        elif isinstance(node, ast.Attribute) and is_store(node.value):
            call = calls.get(id(node))
            key = call.args[0] if call and call.args and node.attr in ("get", "pop", "setdefault") else node.value
        if key is not None and (is_store(key) or not isinstance(key, ast.Attribute | ast.Name)):
            found.add(node.lineno)
    return sorted(found)


def test_imports_point_one_way_and_the_core_knows_no_screen():
    files = product_files()
    assert len(files) > 30
    faults = [fault for path in files for fault in wrong_imports(path.read_text("utf-8"), module_of(path))]
    assert faults == []
    unknown = {module_of(path) for path in files if group_of(module_of(path)) not in {*MAY_USE, None}}
    assert unknown == set(), "a module outside the groups: say in GROUND or ENGINE where it belongs"


@pytest.mark.parametrize(
    "module, source, said",
    [
        (
            "interp_core.data.clips",
            "from interp_core.models.load import open_model",
            "(data) imports interp_core.models",
        ),
        ("interp_core.models.load", "def f():\n    import interp_core.trace.sweep", ":2 (models)"),
        ("interp_core.maths.stats", "from interp_core import engine", "(ground) imports interp_core.engine"),
        ("interp_core.experiments.plan", "from ..runs import open_run", "(experiments) imports interp_core.runs"),
        ("interp_core.trace.store", "from ..experiments import plan", "(trace) imports interp_core.experiments"),
        ("interp_core.figures", "if True:\n    import plotly.express as px", "imports plotly"),
        ("interp_core.engine", "from streamlit import session_state", "imports streamlit"),
        ("interp_core.engine", "from components.state import request", "(engine) imports components.state"),
        ("components.charts", "import pages.patching", "(components) imports pages.patching"),
        ("pages.patching", "from interp_core.trace.hooks import edited", "(pages) imports interp_core.trace"),
    ],
)
def test_a_planted_import_against_the_arrows_is_found(module, source, said):
    faults = wrong_imports(source, module)
    assert faults and said in faults[0]


def test_only_the_two_doors_register_hooks():
    callers = {module_of(path) for path in product_files() if uses(path.read_text("utf-8"), r"register_\w*hook\w*")}
    assert callers == {"interp_core.trace.hooks"}
    assert uses("def f(m):\n    m.register_forward_pre_hook(g)\n", r"register_\w*hook\w*") == [2]


def test_every_session_key_and_url_name_is_spelled_in_one_module():
    faults = {
        module_of(path): lines
        for path in product_files()
        if module_of(path) != "components.state" and (lines := own_keys(path.read_text("utf-8")))
    }
    assert faults == {}


@pytest.mark.parametrize(
    "planted",
    [
        "st.session_state['pair'] = 1",
        "st.session_state[f'pair {i}']",
        "st.session_state.pair = 1",
        "session_state.get('pair', 0)",
        "st.query_params['pair']",
        "st.session_state.update(pair=1)",
    ],
)
def test_a_planted_session_key_is_found_and_a_constant_of_state_is_let_through(planted):
    assert own_keys(f"x = 1\n{planted}\n") == [2]
    assert own_keys("st.session_state[state.PAIR] = st.session_state.get(state.LAYER) or st.session_state[key]") == []


def test_no_file_is_longer_than_a_person_reads_in_one_go():
    long = {module_of(path): n for path in product_files() if (n := len(path.read_text("utf-8").splitlines())) > 400}
    assert long == {}


def test_product_files_speak_of_no_other_place():
    faults = [
        f"{path.relative_to(ROOT)}:{number} {found.group()}"
        for path in [*product_files(), *sorted(path for name in PAPERS for path in ROOT.glob(name))]
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if (found := re.search(OF_OTHER_PLACES, line, re.IGNORECASE))
    ]
    assert faults == []
    for planted in ("open('/work/main/x')", "# see issue 12", "in the sandbox", "/home/me/clips"):
        assert re.search(OF_OTHER_PLACES, planted, re.IGNORECASE), planted
