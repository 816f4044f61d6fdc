"""How tables come from each other: read from the registry and the SQL itself, and drawn as a graph.

The reading is the one that finds a missing depends_on (`run.dependency_check`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from lib.config.jobs import Job, Registry
from lib.transform.references import references
from lib.transform.statements import created_by, statements

LAYERS = ("source", "bronze", "silver", "gold")
#: sizes in the drawing, in pixels
BOX_WIDTH, BOX_HEIGHT, GAP_X, GAP_Y = 176, 26, 44, 10
#: characters of a name that fit into a box
FITTING = 25
#: how often the boxes of each column are put in order by what they are joined to
SWEEPS = 6


@dataclass(frozen=True)
class Node:
    """A source table, a table or a view."""

    #: such as silver.products, or the id of the source table
    name: str
    #: source, bronze, silver or gold
    layer: str
    #: the job that makes it, and the scripts that do
    job: str = ""
    scripts: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()

    @property
    def address(self) -> str:
        """The address of its description in the page."""
        return f"{'source' if self.layer == 'source' else 'table'}-{self.name}"


@dataclass
class _Made:
    job: str
    scripts: list[str] = field(default_factory=list)
    reads: set[str] = field(default_factory=set)


def read_lineage(registry: Registry, relations: Collection[str]) -> dict[str, Node]:
    """Every table and view that the jobs make, by name, and the source tables that they load.

    relations: the tables and views that exist. Scripts also name functions, which are left out.
    """
    made: dict[str, _Made] = {}
    sources: dict[str, Node] = {}
    for job in registry.jobs.values():
        if job.load:
            source = job.load.extract.table
            sources[source] = Node(source, "source", job.name)
            made.setdefault(job.load.table, _Made(job.name)).reads.add(source)
        _read_scripts(job, made, relations)
    nodes = dict(sources)
    for name, found in sorted(made.items()):
        reads = tuple(sorted(read for read in found.reads if read != name and (read in made or read in sources)))
        nodes[name] = Node(name, name.partition(".")[0], found.job, tuple(found.scripts), reads)
    return nodes


def _read_scripts(job: Job, made: dict[str, _Made], relations: Collection[str]) -> None:
    for script in job.transform:
        found = references(script.text)
        named = {".".join(name) for name in found.all}
        targets = {
            ".".join(name) for name in found.published | found.changed if name[0] in ("bronze", "silver", "gold")
        }
        created = {each.name for each in map(created_by, statements(script.text)) if each}
        if script.layer in ("bronze", "gold") or not targets and script.relation in relations:
            targets = {script.relation}
        for target in targets:
            entry = made.setdefault(target, _Made(job.name))
            entry.scripts.append(script.path)
            entry.reads |= (named - targets - created) & {*relations}


def read_by(nodes: Mapping[str, Node]) -> dict[str, list[str]]:
    """What reads each node."""
    readers: dict[str, list[str]] = {name: [] for name in nodes}
    for node in nodes.values():
        for name in node.reads:
            readers[name].append(node.name)
    return readers


@dataclass(frozen=True)
class Box:
    """A node at its place in the drawing."""

    node: Node
    x: int
    y: int

    @property
    def label(self) -> str:
        """The name without its schema, cut to the width of the box."""
        name = self.node.name.rpartition(".")[2] if self.node.layer == "source" else self.node.name.partition(".")[2]
        return name if len(name) <= FITTING else name[: FITTING - 1] + "…"


@dataclass(frozen=True)
class Graph:
    """The drawing: boxes in columns from left to right, and an SVG path for each arrow."""

    boxes: tuple[Box, ...]
    #: the names at both ends, and the path
    arrows: tuple[tuple[str, str, str], ...]
    width: int
    height: int


def lay_out(nodes: Mapping[str, Node]) -> Graph:
    """Put the nodes into columns, so that each stands to the right of everything that it reads."""
    columns = _columns(nodes)
    _put_in_order(columns, nodes)
    tallest = max((len(column) for column in columns), default=0)
    height = tallest * (BOX_HEIGHT + GAP_Y)
    boxes: dict[str, Box] = {}
    for number, column in enumerate(columns):
        step = min(3 * (BOX_HEIGHT + GAP_Y), height // max(1, len(column)))
        top = (height - len(column) * step + step - BOX_HEIGHT) // 2
        for place, name in enumerate(column):
            y = top + place * step
            boxes[name] = Box(nodes[name], 1 + number * (BOX_WIDTH + GAP_X), y + 1)
    arrows = tuple(
        (read, node.name, _arrow(boxes[read], boxes[node.name])) for node in nodes.values() for read in node.reads
    )
    width = len(columns) * (BOX_WIDTH + GAP_X) - GAP_X + 2
    return Graph(tuple(boxes.values()), arrows, max(width, 1), height + 2)


def _columns(nodes: Mapping[str, Node]) -> list[list[str]]:
    """The names of each column. The columns of a layer stand together, so that gold is on the right."""
    depths: dict[str, int] = {}

    def depth(name: str, above: Collection[str]) -> int:
        """How many nodes of the same layer are in a row before it."""
        if name not in depths:
            # two tables may read each other: what is being looked at already does not count
            same = [read for read in nodes[name].reads if nodes[read].layer == nodes[name].layer and read not in above]
            depths[name] = 1 + max((depth(read, {*above, name}) for read in same), default=-1)
        return depths[name]

    for name in nodes:
        depth(name, {name})
    places = sorted({(LAYERS.index(nodes[name].layer), depths[name]) for name in nodes})
    columns: list[list[str]] = [[] for _ in places]
    for name in nodes:
        columns[places.index((LAYERS.index(nodes[name].layer), depths[name]))].append(name)
    return columns


def _put_in_order(columns: Sequence[list[str]], nodes: Mapping[str, Node]) -> None:
    """Sort each column by the mean place of what its nodes are joined to, from left to right and back."""
    readers = read_by(nodes)
    for sweep in range(SWEEPS):
        forward = sweep % 2 == 0
        places = {name: place / max(1, len(column)) for column in columns for place, name in enumerate(column)}
        for column in columns if forward else reversed(columns):

            def mean(name: str, forward: bool = forward, places: dict[str, float] = places) -> float:
                joined = nodes[name].reads if forward else readers[name]
                return sum(places[other] for other in joined) / len(joined) if joined else places[name]

            column.sort(key=mean)
            places |= {name: place / max(1, len(column)) for place, name in enumerate(column)}


def _arrow(start: Box, end: Box) -> str:
    """A curve from the right side of one box to the left side of another."""
    x1, y1 = start.x + BOX_WIDTH, start.y + BOX_HEIGHT // 2
    x2, y2 = end.x, end.y + BOX_HEIGHT // 2
    bend = max(GAP_X // 2, (x2 - x1) // 2)
    return f"M{x1} {y1}C{x1 + bend} {y1} {x2 - bend} {y2} {x2} {y2}"
