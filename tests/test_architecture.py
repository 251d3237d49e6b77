"""The arrows of the design, read off the imports themselves: who may use whom, and what stays in one place."""

import ast
import re
import subprocess
import sys
from collections.abc import Container, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

from interp_core.experiments import EXPERIMENTS
from interp_core.options import declared

ROOT = Path(__file__).resolve().parents[1]
EXPERIMENT_PACKAGES = {registered.request.__module__.rpartition(".")[0] for registered in EXPERIMENTS.values()}
PRODUCT = ("interp_core", "components", "pages")
# A module may import from its own group and from those named here.
MAY_USE = {
    "ground": set(),
    "data": {"ground"},
    "models": {"ground", "data"},
    "trace": {"ground", "data", "models"},
    "engine": {"ground", "data", "models", "trace"},
    "experiments": {"ground", "data", "models", "trace", "engine"},
    "cli": {"ground", "data", "models", "engine", "experiments"},
    "components": {"ground", "data", "models", "engine", "experiments", "cli"},
    "pages": {"ground", "data", "models", "engine", "experiments", "cli", "components"},
    "app": {"ground", "models", "engine", "experiments", "components"},
}
GROUND = {
    "errors",
    "sites",
    "looks",
    "choices",
    "command_words",
    "options",
    "prepared",
    "request",
    "resuming",
    "maths",
    "cache",
    "content",
    "digests",
    "jobs",
    "storage",
    "runs",
    "shards",
    "sinks",
    "stand_ins",
}
CLI = {"cli", "api", "slurm", "terminal", "__main__"}
"""The ways in beside the pages: the command line and Python."""
PRIVATE_ELSEWHERE = {
    "_replace",  # of a named tuple: public in spite of its name
    *("_values", "_indices"),  # torch: the stored parts of a sparse tensor that is not coalesced
    *("_attn_implementation", "_model_mapping", "_get_feat_extract_output_lengths"),  # transformers
}
PAPERS = (
    *(
        "*.md",
        "docs/*.md",
        "*.toml",
        "*.cff",
        "requirements*.txt",
        "Makefile",
        "Dockerfile",
        ".dockerignore",
        ".ci/run",
    ),
    *(".streamlit/*.toml", "benchmarks/*"),
)
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
    return "ground" if part in GROUND else "cli" if part in CLI else part


@cache
def nodes_of(source: str) -> tuple[ast.AST, ...]:
    """All nodes of a file; many tests ask."""
    return tuple(ast.walk(ast.parse(source)))


def imports(source: str, module: str) -> Iterator[tuple[int, str]]:
    """Yield (line, module) of every import in a file, wherever it stands; `from p import name` also as p.name."""
    for node in nodes_of(source):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")[: -node.level]
                base = ".".join([*parents, base] if base else parents)
            yield node.lineno, base
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def package_of(module: str, known: Container[str]) -> str:
    """The package of one experiment that a module belongs to, "" for none and for what all experiments share."""
    parts = module.split(".")
    package = ".".join(parts[:3])
    inside = parts[:2] == ["interp_core", "experiments"] and len(parts) > 2
    return package if inside and package in known else ""


def wrong_imports(source: str, module: str, packages: Container[str] = ()) -> list[str]:
    """Imports that go against the arrows, streamlit or plotly below the components, and another experiment's own."""
    own, found = group_of(module), set()
    for line, name in imports(source, module):
        top = name.partition(".")[0]
        if module.startswith("interp_core") and top in ("streamlit", "plotly"):
            found.add(f"{module}:{line} imports {top}")
        other = package_of(name, packages)
        if other and package_of(module, packages) not in ("", other):
            found.add(f"{module}:{line} imports {name}, which is another experiment's")
        used = group_of(name)
        if own is not None and used is not None and used != own and used not in MAY_USE.get(own, set()):
            found.add(f"{module}:{line} ({own}) imports {name} ({used})")
    return sorted(found)


def uses(source: str, pattern: str) -> list[int]:
    """Lines with an attribute or a name that matches."""
    nodes = nodes_of(source)
    named = (
        (n, n.attr if isinstance(n, ast.Attribute) else n.id) for n in nodes if isinstance(n, ast.Attribute | ast.Name)
    )
    return [node.lineno for node, name in named if re.fullmatch(pattern, name)]


def private_reaches(source: str) -> list[str]:
    """Names with an underscore that are taken from another module of ours, or from an object this file does not define.

    What a file defines itself (a class's own members, met on another instance) is its own.
    """
    own = {node.name for node in nodes_of(source) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    for node in nodes_of(source):
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            own.add(node.id if isinstance(node, ast.Name) else node.attr)
    found = []
    for node in nodes_of(source):
        names = []
        if isinstance(node, ast.ImportFrom):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.Attribute) and getattr(node.value, "id", "") not in ("self", "cls"):
            names = [] if node.attr in own else [node.attr]
        found += [f"{node.lineno}: {name}" for name in names if re.match("_[^_]", name)]
    return [reach for reach in found if reach.partition(": ")[2] not in PRIVATE_ELSEWHERE]


def own_keys(source: str) -> list[int]:
    """Lines that name a session key or a URL parameter by a text of their own instead of a constant or an argument."""

    def is_store(node: ast.AST) -> bool:
        return getattr(node, "attr", getattr(node, "id", "")) in ("session_state", "query_params")

    found = set()
    calls = {id(node.func): node for node in nodes_of(source) if isinstance(node, ast.Call)}
    for node in nodes_of(source):
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
    assert len(EXPERIMENT_PACKAGES) == len(EXPERIMENTS) > 4
    faults = [
        fault
        for path in files
        for fault in wrong_imports(path.read_text("utf-8"), module_of(path), EXPERIMENT_PACKAGES)
    ]
    assert faults == []
    unknown = {module_of(path) for path in files if group_of(module_of(path)) not in {*MAY_USE, None}}
    assert unknown == set(), "a module outside the groups: say in GROUND or CLI where it belongs"


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
        (
            "interp_core.request",
            "from .experiments.heads.request import HeadsRequest",
            "(ground) imports interp_core.exp",
        ),
        ("interp_core.engine", "from interp_core.experiments import EXPERIMENTS", "(engine) imports interp_core.exp"),
        ("interp_core.experiments.patching.plan", "from ...cli import tell", "(experiments) imports interp_core.cli"),
        ("interp_core.experiments.clips", "import components.form", "(experiments) imports components.form"),
        ("interp_core.cli", "from interp_core.trace.sweep import sweep", "(cli) imports interp_core.trace"),
        ("interp_core.experiments.heads.run", "from ..neurons.sweep import doses", "which is another experiment's"),
        ("interp_core.experiments.compare.plan", "from interp_core.experiments import heads", "another experiment's"),
        ("interp_core.trace.store", "from ..experiments import plan", "(trace) imports interp_core.experiments"),
        ("interp_core.experiments.patching.figures", "if True:\n    import plotly.express as px", "imports plotly"),
        ("interp_core.engine", "from streamlit import session_state", "imports streamlit"),
        ("interp_core.engine", "from components.state import request", "(engine) imports components.state"),
        ("components.patching.charts", "import pages.patching", "(components) imports pages.patching"),
        ("pages.patching", "from interp_core.trace.hooks import edited", "(pages) imports interp_core.trace"),
    ],
)
def test_a_planted_import_against_the_arrows_is_found(module, source, said):
    faults = wrong_imports(source, module, EXPERIMENT_PACKAGES)
    assert faults and said in faults[0]


def test_what_experiments_share_and_the_registry_are_for_all_of_them():
    shared = "from interp_core.experiments.clips import ClipReader\nfrom .files import read"
    assert wrong_imports(shared, "interp_core.experiments.heads.run", EXPERIMENT_PACKAGES) == []
    registry = "from interp_core.experiments.heads.request import HeadsRequest"
    assert wrong_imports(registry, "interp_core.experiments", EXPERIMENT_PACKAGES) == []


def import_circle(sources: Mapping[str, str]) -> list[str]:
    """The modules of a circle of imports, wherever in a file they stand, also those for type checkers; or none."""
    arrows = {module: {n for _, n in imports(text, module) if n in sources} - {module}
              for module, text in sources.items()}  # fmt: skip
    while leaves := [module for module, used in arrows.items() if not used & arrows.keys()]:
        for module in leaves:
            del arrows[module]
    if not arrows:
        return []
    path = [next(iter(arrows))]  # each that is left imports another that is left: follow them until one comes back
    while (following := min(arrows[path[-1]] & arrows.keys())) not in path:
        path.append(following)
    return path[path.index(following) :]


def test_no_imports_run_in_a_circle_not_even_those_for_types():
    sources = {module_of(path): path.read_text("utf-8") for path in product_files()}
    assert import_circle(sources) == []
    planted = {
        "interp_core.a": "if TYPE_CHECKING:\n    from interp_core.b import B",
        "interp_core.b": "from interp_core import c",
        "interp_core.c": "def f():\n    from .a import A",
        "interp_core.d": "import interp_core.a",
    }
    assert sorted(import_circle(planted)) == ["interp_core.a", "interp_core.b", "interp_core.c"]
    assert import_circle({**planted, "interp_core.c": ""}) == []


def subject_classes(sources: Iterable[str]) -> set[str]:
    """Names of the classes that are subjects: `Subject` and all below it."""
    bases = {
        node.name: {getattr(base, "attr", getattr(base, "id", "")) for base in node.bases}
        for text in sources
        for node in nodes_of(text)
        if isinstance(node, ast.ClassDef)
    }
    found = {"Subject"}
    while more := {name for name, above in bases.items() if above & found} - found:
        found |= more
    return found


def class_checks(source: str, classes: set[str]) -> list[int]:
    """Lines that ask whether something is of one of the classes: isinstance, issubclass, type(x) is, case X()."""
    found = set()
    for node in nodes_of(source):
        asked: list[ast.AST] = []
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("isinstance", "issubclass"):
            asked = list(node.args[1:])
        elif isinstance(node, ast.Compare):
            asked = list(node.comparators)
        elif isinstance(node, ast.MatchClass):
            asked = [node.cls]
        names = {getattr(part, "attr", getattr(part, "id", "")) for one in asked for part in ast.walk(one)}
        found |= {node.lineno} if names & classes else set()  # type: ignore[attr-defined]
    return sorted(found)


def test_only_the_models_themselves_ask_of_which_class_a_model_is():
    models = [path for path in product_files() if module_of(path).startswith("interp_core.models.")]
    classes = subject_classes(path.read_text("utf-8") for path in models)
    assert {"AudioLLM", "Encoder", "ImageClassifier", "SpoofDetector", "ClapAudio", "WhisperDecoder"} < classes
    others = [path for path in product_files() if path not in models]
    faults = {module_of(path): lines for path in others if (lines := class_checks(path.read_text("utf-8"), classes))}
    assert faults == {}, "what depends on the kind of model is a member of Subject"
    planted = (
        "isinstance(subject, Encoder)",
        "isinstance(subject, (str, models.AudioLLM))",
        "issubclass(kind, Encoder | None)",
        "type(subject) is Encoder",
    )
    for line in planted:
        assert class_checks(f"x = 1\nif {line}:\n    pass\n", classes) == [2], line
    assert class_checks("match subject:\n    case Encoder(probe=None):\n        pass\n", classes) == [2]
    assert class_checks("isinstance(subject, Path)\nEncoder(subject)\n", classes) == []


def test_hooks_are_registered_in_one_module():
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


def test_no_module_reaches_into_the_private_names_of_another():
    reaches = {
        module_of(path): found for path in product_files() if (found := private_reaches(path.read_text("utf-8")))
    }
    assert reaches == {}


@pytest.mark.parametrize("planted", ["from a import b, _c", "import m\nm._f()", "engine._roots.append(1)", "a.b._c.d"])
def test_a_planted_reach_is_found_and_a_file_s_own_names_are_let_through(planted):
    assert len(private_reaches(planted)) == 1
    own = "class A:\n    def __eq__(self, o):\n        return o._x == 1\n    def f(self):\n        self._x = self._y"
    assert private_reaches(own + "\nfrom __future__ import annotations\na.__dict__") == []


def test_no_file_is_longer_than_a_person_reads_in_one_go():
    long = {module_of(path): n for path in product_files() if (n := len(path.read_text("utf-8").splitlines())) > 400}
    assert long == {}
    pages = [path for path in product_files() if module_of(path).startswith("pages.")]
    long = {module_of(path): n for path in pages if (n := len(path.read_text("utf-8").splitlines())) > 50}
    assert len(pages) > 5 and long == {}, "a page is a call of the frame; what it does is in the components"


def test_a_signed_number_that_rounds_to_zero_has_no_minus():
    bare = re.compile(r":\+\.\d[f%]")
    lines = [(module_of(path), line) for path in product_files() for line in path.read_text("utf-8").splitlines()]
    assert len(lines) > 10_000
    assert [one for one in lines if bare.search(one[1])] == [], "write {:+z.3f}, which gives +0.000 for -1e-5"


HEAVY = {"torch", "transformers", "streamlit", "plotly", "librosa", "scipy", "sklearn", "matplotlib", "pandas"}
LIGHT = [
    *("interp_core", "interp_core.cli", "interp_core.options", "interp_core.request", "interp_core.experiments"),
    *(module_of(path) for path in sorted((ROOT / "interp_core" / "experiments").glob("*/request.py"))),
]


def loaded(code: str) -> set[str]:
    """The heavy libraries that a fresh process has imported after some code."""
    show = "import sys; sys.stderr.write('loaded ' + ' '.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{show}"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return HEAVY & set(done.stderr.rpartition("loaded ")[2].split())


def test_requests_options_and_the_parser_import_no_heavy_library():
    assert len(LIGHT) == 5 + len(EXPERIMENTS)
    assert loaded("\n".join(f"import {module}" for module in LIGHT)) == set()
    assert loaded("import interp_core.models.bundled") == set(), "which the forms ask what ships"
    assert "scipy" in loaded("import interp_core.maths.stats"), "otherwise nothing would be tested"


def test_help_of_the_program_and_of_every_command_imports_no_heavy_library():
    asked = [["--help"], *([command, "--help"] for command in (*EXPERIMENTS, "check", "models"))]
    code = (
        "from interp_core.__main__ import main\n"
        f"for arguments in {asked}:\n"
        "    try:\n        main(arguments)\n    except SystemExit as done:\n        assert done.code == 0\n"
        "    print('----')"
    )
    assert loaded(code) == set()
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    texts = shown.stdout.split("----\n")[:-1]
    assert len(texts) == len(asked)
    assert all(command in texts[0] for command in EXPERIMENTS)
    for command, text in zip(EXPERIMENTS, texts[1:], strict=False):
        for one in declared(EXPERIMENTS[command].request):
            shown_there = bool(re.search(rf"{one.flag}\b", text))
            assert shown_there is (one.name not in EXPERIMENTS[command].request.unused), (command, one.flag)
        for flag in ("--config", "--out", "--resume"):
            assert flag in text


def test_product_files_speak_of_no_other_place():
    faults = [
        f"{path.relative_to(ROOT)}:{number} {found.group()}"
        for path in [*product_files(), *sorted(path for name in PAPERS for path in ROOT.glob(name))]
        if path.suffix != ".png"
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if (found := re.search(OF_OTHER_PLACES, line, re.IGNORECASE))
    ]
    assert faults == []
    for planted in ("open('/work/main/x')", "# see issue 12", "in the sandbox", "/home/me/clips"):
        assert re.search(OF_OTHER_PLACES, planted, re.IGNORECASE), planted


@pytest.mark.parametrize("word", ["Ready", "Progress", "KINDS", "CHOICES", "Probe", "Task", "Place", "Sweep"])
def test_a_word_of_the_design_is_defined_once(word):
    found = []
    for path in [*ROOT.glob("interp_core/**/*.py"), *ROOT.glob("components/**/*.py")]:
        for node in ast.parse(path.read_text("utf-8")).body:
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            names = {getattr(node, "name", ""), *(one.id for one in targets if isinstance(one, ast.Name))}
            found += [str(path.relative_to(ROOT))] * (word in names)
    assert len(found) < 2, f"{word} means {len(found)} things: {', '.join(found)}"
