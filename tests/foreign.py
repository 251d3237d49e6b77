"""Reads off the source whether a page can show text from elsewhere in any way but through `words.md`.

Every argument that Streamlit reads as markdown is followed backwards, through names and the project's own functions, to
what it is made of: constants, numbers and `md(...)` are safe, and anything else is text from elsewhere.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping

READ_AS_MARKDOWN = {
    **dict.fromkeys(("markdown", "caption", "title", "header", "subheader", "error", "warning", "info", "success",
                     "toast", "spinner", "badge"), (0, "body", "text", "label", "help")),
    **dict.fromkeys(("button", "form_submit_button", "download_button", "link_button", "expander", "popover",
                     "checkbox", "toggle", "radio", "selectbox", "multiselect", "segmented_control", "pills", "metric",
                     "slider", "select_slider", "number_input", "text_input", "text_area"), (0, "label", "help")),
    "progress": ("text",),
    "page_link": ("label", "help"),
    "tabs": (0,),
    "image": ("caption",),
}  # fmt: skip
"""Methods of Streamlit, and their arguments by place and name, that are read as markdown."""
OPTIONS = {"segmented_control": 1, "pills": 1, "radio": 1, "select_slider": 1, "choice": 1}
"""Widgets, Streamlit's and `components.widgets`' own, that read their options as markdown too, and where these stand
among the arguments."""
ESCAPE = {"md", "option"}
COUNTS = {"nbytes", "seconds", "len", "int", "float", "round", "abs", "sum", "mean", "nunique", "share", "layer_title",
          "p_said", "layer_text", "undefined_before_onset"}  # fmt: skip
"""Functions that give numbers, and words of their own around them."""
KEEPS = {"upper", "lower", "capitalize", "strip", "rstrip", "replace", "removesuffix", "removeprefix", "format"}
PASSED = {"facts": "counted"}
"""Functions that pages hand to the frame: the name there, and the one under which every page defines it."""
ITERATED = {"list", "tuple", "sorted", "filter", "zip", "enumerate", "reversed", "dict", "items", "values"}


class Source:
    """The modules of a product, by name -> text."""

    def __init__(self, sources: Mapping[str, str]) -> None:
        self.trees = {module: ast.parse(text) for module, text in sources.items()}
        self.functions: dict[str, list[ast.FunctionDef]] = {}
        self.calls: dict[str, list[tuple[ast.Call, ast.FunctionDef]]] = {}
        self.module_of: dict[int, str] = {}
        for module, tree in self.trees.items():
            for function in _functions(tree):
                self.functions.setdefault(function.name, []).append(function)
                self.module_of[id(function)] = module
                for call in _own_nodes(function, ast.Call):
                    self.calls.setdefault(_name(call.func), []).append((call, function))
        self._known: dict[tuple[int, int], bool] = {}

    def faults(self) -> list[str]:
        """`module:line what` of every argument that may hold text from elsewhere."""
        found = []
        for module, tree in self.trees.items():
            for function in _functions(tree):
                for call in _own_nodes(function, ast.Call):
                    for argument in _markdown(call):
                        if not self.safe(argument, function):
                            found.append(f"{module}:{argument.lineno} {ast.unparse(argument)[:90]}")
        return sorted(found)

    def safe(self, node: ast.AST | None, where: ast.FunctionDef) -> bool:
        """Whether what an expression inside a function gives is no text from elsewhere."""
        if node is None:
            return True
        key = (id(node), id(where))
        if key not in self._known:
            self._known[key] = True  # of a circle: as far as the rest of it is safe
            self._known[key] = self._look(node, where)
        return self._known[key]

    def _look(self, node: ast.AST, where: ast.FunctionDef) -> bool:
        every = lambda nodes: all(self.safe(one, where) for one in nodes)  # noqa: E731
        match node:
            case ast.Constant() | ast.Compare():
                return True
            case ast.JoinedStr():
                return every(node.values)
            case ast.FormattedValue():
                spec = ast.unparse(node.format_spec)[2:-1] if node.format_spec else ""
                return spec[-1:] in tuple("fgedn%,") or self.safe(node.value, where)
            case ast.BinOp():
                return every((node.left, node.right))
            case ast.BoolOp() | ast.UnaryOp():
                return every(node.values if isinstance(node, ast.BoolOp) else [node.operand])
            case ast.IfExp():
                return every((node.body, node.orelse))
            case ast.NamedExpr() | ast.Starred() | ast.Await():
                return self.safe(node.value, where)
            case ast.List() | ast.Tuple() | ast.Set():
                return every(node.elts)
            case ast.Dict():
                return every(node.values)
            case ast.ListComp() | ast.GeneratorExp() | ast.SetComp():
                return self.safe(node.elt, where)
            case ast.DictComp():
                return self.safe(node.value, where)
            case ast.Subscript():
                return self.safe(node.value, where)
            case ast.Attribute():
                return node.attr.isupper() or _name(node.value) == "about"  # what a setting is declared with
            case ast.Name():
                return node.id.isupper() or self._named(node.id, where)
            case ast.Call():
                return self._called(node, where)
        return False

    def _named(self, name: str, where: ast.FunctionDef) -> bool:
        """All that a name inside a function is ever bound to; of an argument, all that it is ever called with."""
        given, place = [*where.args.posonlyargs, *where.args.args], None
        for at, one in enumerate(given):
            place = at if one.arg == name else place
        if place is not None or name in {one.arg for one in where.args.kwonlyargs}:
            return self._passed(name, place, where)
        if where.args.vararg is not None and where.args.vararg.arg == name:
            calls = self.calls.get(where.name, [])
            return all(self.safe(one, caller) for call, caller in calls for one in call.args[len(given) :])
        bound = list(_bound(where, name))
        outer = getattr(where, "outer", None)
        if not bound and outer is not None:
            return self._named(name, outer)
        return bool(bound) and all(self.safe(one, where) for one in bound)

    def _passed(self, name: str, place: int | None, where: ast.FunctionDef) -> bool:
        annotated = {one.arg: one.annotation for one in [*where.args.args, *where.args.kwonlyargs]}.get(name)
        if annotated is not None and ast.unparse(annotated) in ("int", "float", "bool"):
            return True
        calls = self._own(where.name, where, self.calls.get(where.name, []))
        for call, caller in calls:
            named = [word.value for word in call.keywords if word.arg == name]
            passed = named or ([call.args[place]] if place is not None and place < len(call.args) else [])
            if not all(self.safe(one, caller) for one in passed):
                return False
        return bool(calls)

    def _own(self, name: str, where: ast.FunctionDef, found: list) -> list:
        """Of (.., function) those in the module of `where`, if the name is a module's own by its underscore."""
        module = self.module_of.get(id(where))
        return [one for one in found if self.module_of.get(id(one[1])) == module] if name.startswith("_") else found

    def _called(self, node: ast.Call, where: ast.FunctionDef) -> bool:
        name = _name(node.func)
        if name in ESCAPE or name in COUNTS:
            return True
        if name == "map":
            return _name(node.args[0]) in ESCAPE | COUNTS
        if name == "format" and isinstance(node.func, ast.Name):
            return ast.unparse(node.args[1]).strip("'")[-1:] in tuple("fgedn%")
        if name == "join" or name in KEEPS:
            of = node.func.value if isinstance(node.func, ast.Attribute) else None
            return all(self.safe(one, where) for one in (of, *node.args))
        if name in ITERATED:
            own = [node.func.value] if isinstance(node.func, ast.Attribute) else []
            return all(self.safe(one, where) for one in (*own, *node.args) if not isinstance(one, ast.Constant))
        if name == "get" and isinstance(node.func, ast.Attribute):
            return all(self.safe(one, where) for one in (node.func.value, *node.args[1:]))
        known = [
            one for one, _ in self._own(name, where, [(f, f) for f in self.functions.get(PASSED.get(name, name), [])])
        ]
        returned = [(one.value, function) for function in known for one in _own_nodes(function, ast.Return)]
        return bool(returned) and all(self.safe(value, function) for value, function in returned)


def _functions(tree: ast.AST) -> Iterator[ast.FunctionDef]:
    """Every function of a module, the module itself as one; each knows the one that it stands in."""
    top = ast.FunctionDef("<module>", ast.arguments([], [], None, [], [], None, []), getattr(tree, "body", []), [])
    yield top
    stack: list[tuple[ast.AST, ast.FunctionDef]] = [(top, top)]
    while stack:
        node, outer = stack.pop()
        for child in ast.iter_child_nodes(node):
            inside = outer
            if isinstance(child, ast.FunctionDef):
                child.outer = outer  # type: ignore[attr-defined]
                yield child
                inside = child
            stack.append((child, inside))


def _own_nodes(function: ast.FunctionDef, kind: type) -> Iterator:
    """Nodes of a function that stand in no further function inside it."""
    stack: list[ast.AST] = list(function.body)
    while stack:
        node = stack.pop()
        if isinstance(node, kind):
            yield node
        if not isinstance(node, ast.FunctionDef):
            stack += ast.iter_child_nodes(node)


def _bound(function: ast.FunctionDef, name: str) -> Iterator[ast.AST]:
    """The expressions that a local name is bound to, or that are added to the list that it is."""
    for node in _own_nodes(function, ast.AST):
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign | ast.NamedExpr):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                yield from _matched(target, node.value, name)
        elif isinstance(node, ast.For | ast.comprehension):
            yield from _matched(node.target, node.iter, name)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and _name(node.func.value) == name:
            if node.func.attr in ("append", "extend", "insert"):
                yield from node.args


def _matched(target: ast.AST, value: ast.AST | None, name: str) -> Iterator[ast.AST]:
    if isinstance(target, ast.Name) and target.id == name and value is not None:
        yield value
    elif isinstance(target, ast.Tuple | ast.List):
        parts = value.elts if isinstance(value, ast.Tuple) and len(value.elts) == len(target.elts) else None
        for at, inner in enumerate(target.elts):
            yield from _matched(inner, parts[at] if parts else value, name)


def _markdown(call: ast.Call) -> Iterator[ast.AST]:
    shared = _name(call.func) == "shared"
    at = OPTIONS.get(_name(call.args[0] if shared and call.args else call.func))
    if at is not None and "format_func" not in {word.arg for word in call.keywords}:
        yield from call.args[at + shared : at + shared + 1]
    if not isinstance(call.func, ast.Attribute) or call.func.attr not in READ_AS_MARKDOWN:
        return
    for place in READ_AS_MARKDOWN[call.func.attr]:
        if isinstance(place, int) and place < len(call.args):
            yield call.args[place]
        yield from (word.value for word in call.keywords if word.arg == place)


def _name(node: ast.AST) -> str:
    return str(getattr(node, "attr", getattr(node, "id", "")))
