"""Count the house: `python -m tests.house [CHECKOUT]`; `--json` for programs, `--places` for single words.

Read from the source alone, with the definitions below; nothing of it is imported.

room        a module or folder directly below `orchestrator/`, with all that is in it; `tasks` and `beat` are one each
import      a module of one room that imports a module of another, once however many names it takes
door        a module of a room that another room imports; a folder's `__init__` is one
floor       a room stands one above the highest that it imports
circle      rooms that import each other, or modules of one room that do
doubled     a class name that two modules define
long        a function of more than 40 lines, decorators and docstring counted; a module of more than 300
"""

from __future__ import annotations

import argparse
import ast
import json
import sys
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

HOUSE = ("orchestrator", "tasks", "beat")
LONG_FUNCTION = 40
LONG_MODULE = 300

LIMITS = {"rooms": 30, "floors": 8, "circles": 0, "doubled": 0, "imports": 330}
"""What the whole house may have at the most."""
DOORS = {"merge_close": 3, "status": 2, "poll": 2, "publish": 2, "session": 2, "settings": 2}
"""Through how many modules other rooms may come into a room."""

WORDS = {
    "the branch prefix": ("orch/",),
    "a status of an issue": ("open", "in_progress", "blocked", "needs_review", "closed"),
    "a state of a session": ("claimed", "running", "ended"),
    "a queue": ("sessions", "poll", "publish", "merge_close"),
}
"""Words that should stand in one place, as text of their own."""


@dataclass(frozen=True)
class House:
    """The modules of a checkout, by their dotted names, with the paths of their files below it."""

    checkout: Path
    modules: Mapping[str, Path]

    @cached_property
    def texts(self) -> Mapping[str, str]:
        """Each module's source."""
        return {name: (self.checkout / path).read_text("utf-8") for name, path in self.modules.items()}

    @cached_property
    def trees(self) -> Mapping[str, ast.Module]:
        """Each module, parsed."""
        return {name: ast.parse(text) for name, text in self.texts.items()}

    @cached_property
    def nodes(self) -> Mapping[str, list[ast.AST]]:
        """All that is in each module."""
        return {name: list(ast.walk(tree)) for name, tree in self.trees.items()}

    @cached_property
    def imports(self) -> frozenset[tuple[str, str]]:
        """Which module imports which, within the house."""
        named = ((name, target) for name, nodes in self.nodes.items() for target in self._imported(nodes))
        return frozenset((name, target) for name, target in named if target in self.modules and target != name)

    @cached_property
    def across(self) -> list[tuple[str, str]]:
        """The imports from one room to another."""
        return sorted((a, b) for a, b in self.imports if room_of(a) != room_of(b))

    @cached_property
    def rooms(self) -> Mapping[str, set[str]]:
        """Each room that defines something, with the rooms that it imports."""
        found = {room_of(name): set[str]() for name, tree in self.trees.items() if room_of(name) and _defines(tree)}
        for a, b in self.across:
            found[room_of(a)].add(room_of(b))
        return found

    @cached_property
    def doors(self) -> Mapping[str, Mapping[str, int]]:
        """Each room's doors, with how many modules come in through them."""
        found: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        for _, target in self.across:
            found[room_of(target)][target] += 1
        return found

    @cached_property
    def classes(self) -> Mapping[str, list[str]]:
        """Where each class name is defined."""
        found = defaultdict(list)
        for name, nodes in self.nodes.items():
            for node in nodes:
                if isinstance(node, ast.ClassDef):
                    found[node.name].append(f"{self.modules[name]}:{node.lineno}")
        return found

    def circles(self) -> list[list[str]]:
        """Rooms, or modules of one room, that import each other."""
        within: dict[str, set[str]] = defaultdict(set)
        for a, b in self.imports:
            # A folder's own `__init__` hands on what is in it; whoever imports that comes from outside.
            if room_of(a) == room_of(b) and not a.startswith(f"{b}.") and not b.startswith(f"{a}."):
                within[a].add(b)
        return sorted([*knots(self.rooms), *knots(within)])

    def floors(self) -> list[list[str]]:
        """The rooms floor by floor, from the ground up; those of a circle stand on one floor."""
        left, floors, below = dict(self.rooms), list[list[str]](), set[str]()
        while left:
            floor = sorted(room for room, above in left.items() if above & left.keys() <= {room}) or sorted(left)
            floors.append(floor)
            below |= set(floor)
            left = {room: above for room, above in left.items() if room not in below}
        return floors

    def long_functions(self) -> list[str]:
        """Functions that do not fit in the eye."""
        return [
            f"{self.modules[name]}:{node.lineno} {node.name} ({_lines(node)} lines)"
            for name, nodes in self.nodes.items()
            for node in nodes
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and _lines(node) > LONG_FUNCTION
        ]

    def long_modules(self) -> list[str]:
        """Modules that do not fit in the head."""
        lengths = {name: len(text.splitlines()) for name, text in self.texts.items()}
        return [f"{self.modules[name]} ({lines} lines)" for name, lines in lengths.items() if lines > LONG_MODULE]

    def protocols(self) -> int:
        """How many Protocols there are."""
        bases = (b for nodes in self.nodes.values() for n in nodes if isinstance(n, ast.ClassDef) for b in n.bases)
        return sum("Protocol" in ast.unparse(base) for base in bases)

    def places(self, words: Collection[str]) -> list[str]:
        """Where one of these words stands in code as a text of its own, or begins one with a `/` in it."""
        return [
            f"{self.modules[name]}:{node.lineno} {node.value!r}"
            for name, nodes in self.nodes.items()
            for node in _texts(nodes)
            if (text := str(node.value)) in words or any(word in text for word in words if word.endswith("/"))
        ]

    def _imported(self, nodes: Iterable[ast.AST]) -> Iterator[str]:
        for node in nodes:
            if isinstance(node, ast.ImportFrom) and node.module:
                below = (f"{node.module}.{alias.name}" for alias in node.names)
                yield from (name if name in self.modules else node.module for name in below)
            elif isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)


@dataclass(frozen=True)
class Figures:
    """The house in numbers, and what is behind them."""

    rooms: int
    floors: int
    arrows: int
    imports: int
    circles: list[list[str]]
    doors: dict[str, list[str]]
    doubled: dict[str, list[str]]
    protocols: int
    long_functions: list[str]
    long_modules: list[str]
    plan: list[list[str]] = field(default_factory=list)


def house_of(checkout: Path) -> House:
    """The house in this checkout."""
    files = [path.relative_to(checkout) for top in HOUSE for path in sorted((checkout / top).rglob("*.py"))]
    return House(checkout, {".".join(path.with_suffix("").parts).removesuffix(".__init__"): path for path in files})


def room_of(module: str) -> str:
    """The room of a module; empty for the house's own `__init__`."""
    top, _, rest = module.partition(".")
    return top if top != HOUSE[0] else rest.partition(".")[0]


def figures_of(house: House) -> Figures:
    """Count."""
    return Figures(
        rooms=len(house.rooms),
        floors=len(house.floors()),
        arrows=sum(map(len, house.rooms.values())),
        imports=len(house.across),
        circles=house.circles(),
        doors={room: sorted(doors) for room, doors in sorted(house.doors.items()) if len(doors) > 1},
        doubled={name: places for name, places in sorted(house.classes.items()) if len(places) > 1},
        protocols=house.protocols(),
        long_functions=house.long_functions(),
        long_modules=house.long_modules(),
        plan=house.floors()[::-1],
    )


def over(figures: Figures) -> list[str]:
    """What is more than the limits allow, a line each."""
    counts = {name: it if isinstance(it := getattr(figures, name), int) else len(it) for name in LIMITS}
    doors = {room: len(figures.doors.get(room, [""])) for room in DOORS}
    return [
        *(f"{name}: {counts[name]}, at most {most}" for name, most in LIMITS.items() if counts[name] > most),
        *(f"doors of {room}: {doors[room]}, at most {most}" for room, most in DOORS.items() if doors[room] > most),
    ]


def knots(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """The parts of a graph whose members all reach each other."""
    reach = {start: _reached(graph, start) for start in graph}
    tied = {tuple(sorted(b for b in reach[a] if a in reach.get(b, ()))) for a in graph if a in reach[a]}
    return [list(knot) for knot in sorted(tied)]


def _reached(graph: Mapping[str, set[str]], start: str) -> set[str]:
    seen, todo = set[str](), list(graph[start])
    while todo:
        if (name := todo.pop()) not in seen:
            seen.add(name)
            todo += graph.get(name, ())
    return seen


def _defines(tree: ast.Module) -> bool:
    return any(not isinstance(node, ast.Expr) for node in tree.body)


def _lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    return (node.end_lineno or node.lineno) - first + 1


def _texts(nodes: Collection[ast.AST]) -> Iterator[ast.Constant]:
    said = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in said:
            yield node


def _page(figures: Figures) -> Iterator[str]:
    yield f"rooms {figures.rooms}, floors {figures.floors}, arrows {figures.arrows}, circles {len(figures.circles)}"
    yield f"imports across rooms {figures.imports}, Protocols {figures.protocols}, doubled names {len(figures.doubled)}"
    yield from (f"  circle: {' <-> '.join(circle)}" for circle in figures.circles)
    yield from (f"  {name}: {', '.join(places)}" for name, places in figures.doubled.items())
    yield from (f"floor {len(figures.plan) - n}: {', '.join(floor)}" for n, floor in enumerate(figures.plan))
    yield "doors, where there are several"
    yield from (f"  {room} {len(doors)}: {', '.join(doors)}" for room, doors in figures.doors.items())
    yield f"functions over {LONG_FUNCTION} lines {len(figures.long_functions)}"
    yield from (f"  {line}" for line in figures.long_functions)
    yield f"modules over {LONG_MODULE} lines {len(figures.long_modules)}"
    yield from (f"  {line}" for line in figures.long_modules)


def main() -> None:
    """Print the figures; exit code 1 when one is over its limit."""
    parser = argparse.ArgumentParser(prog="python -m tests.house", description=main.__doc__)
    parser.add_argument("checkout", type=Path, nargs="?", default=Path(__file__).resolve().parents[1])
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("--check", action="store_true", help="only what is over its limit")
    parser.add_argument("--places", action="store_true", help="where the words stand that should stand once")
    options = parser.parse_args()
    house = house_of(options.checkout)
    if options.places:
        for what, words in WORDS.items():
            print(what, *(f"  {place}" for place in house.places(words)), sep="\n")
        return
    figures = figures_of(house)
    if options.json:
        print(json.dumps(asdict(figures), indent=2))
    elif not options.check:
        print(*_page(figures), sep="\n")
    sys.exit("\n".join(over(figures)) or 0)


if __name__ == "__main__":
    main()
