"""YAML as keys and plain values. What makes YAML dangerous is refused before anything is built from it."""

import re
from typing import Any

import yaml

__all__ = ["load_plain"]


class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """The safe loader, in C where PyYAML was built with it: every stage reads every suite."""


# PyYAML takes 1e-05 for text, which is a number in YAML 1.2, and which DVC writes for 0.00001.
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)

DEEPEST = 50  # levels of nesting; a suite has 5, and the parser in C dies of 100,000
MOST_VALUES = 1_000_000  # with every alias written out; a suite has 2,000


def load_plain(text: str) -> Any:
    """What a YAML text says.

    Raises:
        ValueError: it is no YAML, has a key twice, is nested too deeply, contains itself, or grows too large
            when its aliases are written out.
    """
    try:
        _check_depth(text)
        node = yaml.compose(text, Loader)
        if node is None:
            return None
        _check_node(node, {})
        loader = Loader("")
        try:
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except RefusedError as mistake:
        raise ValueError(str(mistake)) from None
    except Exception as problem:  # of yaml's kinds, and of those that values with a tag raise: `!!int x`
        raise ValueError(f"not YAML: {' '.join(str(problem).split())[:300]}") from None


class RefusedError(Exception):
    """Valid YAML that is not read."""


def _check_depth(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > DEEPEST:
            raise RefusedError(f"it is nested deeper than {DEEPEST} levels")


def _check_node(node: yaml.Node, sizes: dict[yaml.Node, int]) -> int:
    """The number of values in a node, with every alias written out.

    Args:
        sizes: of the nodes so far; those that are still being counted have 0.
    """
    if node in sizes:
        if sizes[node] == 0:
            raise RefusedError(f"the anchor on line {node.start_mark.line + 1} contains itself")
        return sizes[node]
    sizes[node] = 0
    children: list[yaml.Node] = []
    if isinstance(node, yaml.SequenceNode):
        children = node.value
    elif isinstance(node, yaml.MappingNode):
        _check_keys(node)
        for pair in node.value:
            children += pair
    size = 1
    for child in children:
        size += _check_node(child, sizes)
    if size > MOST_VALUES:
        raise RefusedError(f"aliases make it larger than {MOST_VALUES:,} values")
    sizes[node] = size
    return size


def _check_keys(node: yaml.MappingNode) -> None:
    """YAML forbids a key that stands twice; the loader would silently take the second."""
    lines: dict[tuple[str, str], int] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            continue
        line = key.start_mark.line + 1
        name = (key.tag, key.value)
        if name in lines:
            raise RefusedError(f"the key {key.value[:40]!r} stands twice: on lines {lines[name]} and {line}")
        lines[name] = line
