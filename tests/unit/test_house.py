"""The house is counted as its definitions say. `make check` holds its limits."""

from __future__ import annotations

import textwrap
from pathlib import Path

from tests.house import House, figures_of, house_of, over


def built(folder: Path, **files: str) -> House:
    """A house of these modules; `poll__claim` is `orchestrator/poll/claim.py`."""
    for name, text in files.items():
        path = folder / "orchestrator" / f"{name.replace('__', '/', 1)}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    return house_of(folder)


def test_rooms_floors_and_imports(tmp_path: Path) -> None:
    """A folder is one room; an import counts once, however many names it takes, and those within a room do not."""
    figures = figures_of(
        built(
            tmp_path,
            models="A = B = 1",
            poll__claim="from orchestrator.models import A, B\nfrom orchestrator.poll.rescue import C",
            poll__rescue="from orchestrator.models import A\nC = A",
            cli__status="from orchestrator import models\nfrom orchestrator.poll.claim import A",
        )
    )

    assert (3, 3, 3, 4) == (figures.rooms, figures.floors, figures.arrows, figures.imports)
    assert [["cli"], ["poll"], ["models"]] == figures.plan


def test_doors_are_what_others_come_in_by(tmp_path: Path) -> None:
    """A module of a room that only the room itself imports is no door."""
    house = built(
        tmp_path,
        poll____init__="from orchestrator.poll.claim import A",
        poll__claim="from orchestrator.poll.rescue import A",
        poll__rescue="A = 1",
        cli__enqueue="from orchestrator.poll import A",
        cli__status="from orchestrator.poll.rescue import A",
        web="from orchestrator import poll",
    )

    assert {"orchestrator.poll": 2, "orchestrator.poll.rescue": 1} == house.doors["poll"]


def test_circles_are_found_between_rooms_and_within_one(tmp_path: Path) -> None:
    """Those of a circle stand on one floor."""
    house = built(
        tmp_path,
        gateway="from orchestrator import issue",
        issue="from orchestrator.gateway import X",
        cli__a="from orchestrator.cli import b",
        cli__b="from orchestrator.cli.a import X",
        text="A = 1",
    )

    assert [["gateway", "issue"], ["orchestrator.cli.a", "orchestrator.cli.b"]] == house.circles()


def test_names_that_two_modules_define(tmp_path: Path) -> None:
    """Also a class within a function or another class."""
    house = built(tmp_path, a="class Run:\n    class Step: ...", b="def f():\n    class Step: ...")

    assert ["Step"] == list(figures_of(house).doubled)


def test_what_is_long(tmp_path: Path) -> None:
    """Forty lines are not over forty."""
    short, long = (f"def {name}():\n" + "    x = 1\n" * lines for name, lines in (("short", 39), ("long", 40)))
    figures = figures_of(built(tmp_path, a=short + long, b="x = 1\n" * 301))

    assert ["orchestrator/a.py:41 long (41 lines)"] == figures.long_functions
    assert ["orchestrator/b.py (301 lines)"] == figures.long_modules


def test_where_a_word_stands(tmp_path: Path) -> None:
    """As a text of its own, or in one that has the prefix; not in a docstring."""
    house = built(tmp_path, a='"""open"""\nx = "open"\ny = f"orch/{x}"\nz = "opened"')

    assert ["orchestrator/a.py:2 'open'"] == house.places(("open",))
    assert ["orchestrator/a.py:3 'orch/'"] == house.places(("orch/",))


def test_what_is_over_its_limit_is_said(tmp_path: Path) -> None:
    """A circle is one too many."""
    assert ["circles: 1, at most 0"] == over(
        figures_of(built(tmp_path, a="import orchestrator.b", b="import orchestrator.a"))
    )
