"""Write the parts of these pages that come from the code: `python docs/generate.py`. A test refuses stale ones."""

import ast
import functools
import importlib
import inspect
import re
import textwrap
import tomllib
from collections.abc import Callable, Iterator
from html import escape
from pathlib import Path
from typing import Any

import docstring_parser
import grimp

from medst.evaluate.benchmarks import BENCHMARKS

DOCS = Path(__file__).parent
ROOT = DOCS.parent
PHANTOM = "medst_phantom"
API: dict[str, tuple[str, ...]] = {
    "medst": ("load", "Model", "Picture", "Study"),
    "medst.use": ("ImageEmbeddings", "TextEmbeddings", "Grounding", "HeatMap", "Progression", "Timeline"),
    "medst.cohort.prepare": ("prepare",),
    "medst.cohort.store": ("open_cohort", "Cohort"),
    "medst.pretrain": ("pretrain",),
    "medst.evaluate.runner": ("evaluate",),
    "medst.evaluate.task": ("Question", "Outcome", "Score"),
    "medst.embed": ("embed",),
    "medst.weights": ("convert", "export"),
    "medst.errors": ("MedstError",),
}
"""What the API page lists: module -> names."""
Rooms = dict[str, set[str]]


def generated() -> dict[Path, str]:
    """Path -> content of everything that is generated."""
    rooms = imports_of_rooms()
    code, evaluate = DOCS / "code.md", DOCS / "evaluate.md"
    return {
        DOCS / "pictures" / "rooms.svg": rooms_picture(rooms),
        code: _with_part(code.read_text(), "rooms", rooms_table(rooms)),
        evaluate: _with_part(evaluate.read_text(), "benchmarks", benchmark_table()),
        DOCS / "api.md": api_page(),
    }


def _with_part(page: str, name: str, content: str) -> str:
    start, end = f"<!-- {name}: docs/generate.py -->\n", f"<!-- end of {name} -->"
    before, _, rest = page.partition(start)
    return before + start + "\n" + content + "\n" + end + rest.partition(end)[2]


# ------------------------------------------------------------------------------------------------------------ the rooms


def imports_of_rooms() -> Rooms:
    """For each room (a module or package directly under `medst`, or the phantom), the rooms that it imports."""
    graph = grimp.build_graph("medst", PHANTOM)
    rooms: Rooms = {}
    for module in sorted(graph.modules):
        room = _room(module)
        if room in ("medst", "__main__"):  # the package's own namespace, and `python -m medst`
            continue
        found = rooms.setdefault(room, set())
        found |= {_room(other) for other in graph.find_modules_directly_imported_by(module)} - {room, "medst"}
    return rooms


def _room(module: str) -> str:
    first, *rest = module.split(".")
    return rest[0] if first == "medst" and rest else first


def purpose(room: str) -> str:
    """The first sentence of a room's docstring, without importing it."""
    place = ROOT / "src" / ("" if room == PHANTOM else "medst") / room
    file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    said = ast.get_docstring(ast.parse(file.read_text())) or ""
    return " ".join(said.partition("\n\n")[0].split())


def layers() -> list[list[str]]:
    """The layers of the contract in pyproject.toml, top to bottom."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    found = next(contract["layers"] for contract in contracts if contract["id"] == "layers")
    return [[room for room in re.split(r"\W+", layer) if room != "__main__"] for layer in found if layer != "__main__"]


def rooms_table(rooms: Rooms) -> str:
    """Markdown: what each room is for, and what it imports; from the top layer to the bottom one."""
    order = [room for layer in layers() for room in layer] + [PHANTOM]
    lines = ["| room | what it is for | imports |", "| --- | --- | --- |"]
    for room in order:
        imported = ", ".join(f"`{other}`" for other in order if other in rooms[room]) or "nothing"
        lines.append(f"| `{room}` | {purpose(room)} | {imported} |")
    return "\n".join(lines)


def rooms_picture(rooms: Rooms) -> str:
    """SVG: each room above all that it imports.

    Imports that another path implies are not drawn, nor are those of the rooms that import nothing: these share the last
    row.
    """
    rank = functools.cache(lambda room: 1 + max((rank(other) for other in rooms[room]), default=-1))
    below = functools.cache(lambda room: rooms[room].union(*(below(other) for other in rooms[room])))
    arrows = [
        (room, other)
        for room in sorted(rooms)
        for other in sorted(rooms[room])
        if rooms[other] and not any(other in below(middle) for middle in rooms[room])
    ]
    rows = [sorted(room for room in rooms if rank(room) == level) for level in range(max(map(rank, rooms)), -1, -1)]
    box, gap, tall, step = 112, 34, 30, 62
    across = 20 + (max(map(len, rows)) + 1) * (box + gap)
    place: dict[str, tuple[float, float]] = {}  # middle of the upper edge
    for number, row in enumerate(rows):
        above = {room: [place[upper][0] for upper, lower in arrows if lower == room] or [across / 2] for room in row}
        row.sort(key=lambda room: (sum(above[room]) / len(above[room]), room))
        for column, room in enumerate(row):
            middle = across / 2 + (0 if number in (0, len(rows) - 1) else (-1) ** number * (box + gap) / 4)  # staggered
            place[room] = (middle + (column - (len(row) - 1) / 2) * (box + gap), 20 + number * step)
    bottom = len(rows) * step + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {across} {bottom}" width="{across}" height="{bottom}">',
        f'<rect width="{across}" height="{bottom}" rx="6" fill="#ffffff"/>',
        f'<rect x="8" y="{bottom - step}" width="{across - 16}" height="{step - 8}" rx="6" fill="#e6f0e8"/>',
        '<g fill="none" stroke="#8a97a8">',
    ]
    for upper, lower in arrows:
        (x1, y1), (x2, y2) = place[upper], place[lower]
        middle = (y1 + tall + y2) / 2
        parts.append(f'<path d="M{x1:g} {y1 + tall} C{x1:g} {middle:g} {x2:g} {middle:g} {x2:g} {y2}"/>')
    parts.append('</g>\n<g font-family="monospace" font-size="13" text-anchor="middle" fill="#1c2733">')
    for room, (x, y) in place.items():
        size = f'x="{x - box / 2:g}" y="{y}" width="{box}" height="{tall}" rx="5"'
        parts.append(
            f'<rect {size} fill="#eef2f7" stroke="#5b6b80"/>\n<text x="{x:g}" y="{y + 19}">{escape(room)}</text>'
        )
    return "\n".join([*parts, "</g>\n</svg>\n"])


# ------------------------------------------------------------------------------------------------------- the benchmarks


def benchmark_table() -> str:
    """Markdown: the registry of benchmarks."""
    lines = ["| benchmark | cohort | question | headline metric | chance |", "| --- | --- | --- | --- | --- |"]
    for name, one in BENCHMARKS.items():
        lines.append(f"| `{name}` | {one.needs} | {one.asks} | {one.headline} | {one.chance} |")
    return "\n".join(lines)


# -------------------------------------------------------------------------------------------------------------- the API


def api_page() -> str:
    """The API page, from signatures and docstrings."""
    parts = [
        "# Python API\n",
        "Written by `docs/generate.py` from the docstrings. [Use a model](use.md) shows these in use; every verb of the "
        "command\nline calls one of these functions.\n",
    ]
    for module_name, names in API.items():
        module = importlib.import_module(module_name)
        parts.append(f"## {module_name}\n")
        for name in names:
            parts += _entry(name, getattr(module, name), level=3)
    return "\n".join(parts)


def _entry(name: str, member: Any, level: int) -> Iterator[str]:
    yield f"{'#' * level} `{name}`\n"
    if not inspect.isclass(member) or "__init__" in vars(member):
        yield f"```text\n{name.rpartition('.')[2]}{_signature(member)}\n```\n"
    yield from _documentation(member)
    if inspect.isclass(member) and not issubclass(member, Exception):
        for attribute, value in vars(member).items():
            if attribute.startswith("_") or not getattr(value, "__doc__", None):
                continue
            if inspect.isfunction(value) or isinstance(value, classmethod | staticmethod):
                yield from _entry(f"{name}.{attribute}", inspect.unwrap(getattr(member, attribute)), level + 1)
            elif isinstance(value, property | functools.cached_property):
                yield f"{'#' * (level + 1)} `{name}.{attribute}`\n"
                yield from _documentation(value)


def _signature(member: Callable[..., Any]) -> str:
    """Parameters and defaults; the types are in the descriptions, where they help."""
    signature = inspect.signature(member)
    parameters = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in signature.parameters.values()
        if parameter.name not in ("self", "cls")
    ]
    text = str(signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty))
    lines = textwrap.wrap(text.replace("'", '"'), 110, subsequent_indent="    ", break_long_words=False)
    return "\n".join(lines)


def _documentation(member: Any) -> Iterator[str]:
    style = docstring_parser.DocstringStyle.GOOGLE
    if inspect.isclass(member):  # with the docstrings below its fields
        doc = docstring_parser.parse_from_object(member, style)
    else:
        doc = docstring_parser.parse(inspect.getdoc(member) or "", style)
    for paragraph in (doc.short_description, doc.long_description):
        if paragraph:
            yield _code_fenced(paragraph) + "\n"
    for title, entries in (
        ("Parameters", [entry for entry in doc.params if entry.args[0] == "param"]),
        ("Attributes", [entry for entry in doc.params if entry.args[0] == "attribute"]),
    ):
        if entries:
            yield f"**{title}**\n"
            yield "\n".join(_item(f"- `{entry.arg_name}`:", entry.description, "  ") for entry in entries) + "\n"
    if doc.returns and doc.returns.description:
        yield _item("**Returns**", doc.returns.description) + "\n"
    for error in doc.raises:
        yield _item(f"**Raises** `{error.type_name}`:", error.description) + "\n"


def _item(label: str, text: str | None, indent: str = "") -> str:
    """A line of a list, or a paragraph, wrapped as the pages are."""
    return textwrap.fill(
        f"{label} {' '.join((text or '').split())}", 120, subsequent_indent=indent, break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip


def _code_fenced(text: str) -> str:
    """Fence indented lines and doctests."""
    lines, inside = [], False
    for line in text.splitlines():
        code = line.startswith(("    ", ">>>", "..."))
        if code != inside and line.strip():
            lines.append("```text" if code else "```")
            inside = code
        lines.append(line.removeprefix("    ") if code else line)
    return "\n".join([*lines, "```"] if inside else lines)


if __name__ == "__main__":
    for file, content in generated().items():
        file.write_text(content)
