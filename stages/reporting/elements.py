"""Elements of HTML as text: all text is escaped, and nothing points out of the page."""

import re
from html import escape
from urllib.parse import quote

import yaml

__all__ = ["folded", "inline", "link", "links", "scrolling", "section", "settings_text", "tag"]

MANY = 14  # columns: with more, a table is too wide for a sheet of paper in letters of the usual size


def tag(name: str, content: str, /, **attributes: str) -> str:
    """An element.

    Args:
        content: HTML.
        attributes: text, which is escaped; those that are empty are left out, and `class_` is `class`.
    """
    pairs = ""
    for key, value in attributes.items():
        if value:
            attribute = key.rstrip("_").replace("_", "-")
            pairs += f' {attribute}="{escape(value)}"'
    return f"<{name}{pairs}>{content}</{name}>"


def section(key: str, heading: str, level: str, *parts: str) -> str:
    present = [part for part in parts if part]
    return tag("section", "\n".join([tag(level, escape(heading)), *present]), id=key) + "\n"


def scrolling(label: str, *parts: str, columns: int = 0) -> str:
    """A table, which scrolls by itself where the screen is narrower.

    Args:
        columns: their number, by which a table is printed small.
    """
    table = tag("table", "\n".join(parts), class_="many" if columns > MANY else "")
    return tag("div", table, class_="scroll", role="region", tabindex="0", aria_label=label)


def folded(summary: str, *parts: str) -> str:
    """Parts behind a line to open."""
    return tag("details", tag("summary", inline(summary)) + "\n".join(parts))


def links(targets: dict[str, str]) -> str:
    """A list of links, by id."""
    items = [tag("li", link(target, escape(text))) for target, text in targets.items()]
    return tag("ul", "".join(items), class_="links")


def link(target: str, content: str, /, **attributes: str) -> str:
    """`content` as a link to an id."""
    return tag("a", content, href=f"#{quote(target)}", **attributes)


def inline(text: str) -> str:
    """Text with code in backticks."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text.strip()))


def settings_text(values: dict) -> str:
    """Settings as YAML."""
    text = yaml.dump(values, Dumper=Plain, sort_keys=False, allow_unicode=True)
    return tag("pre", escape(text), tabindex="0")


class Plain(yaml.SafeDumper):
    """YAML as in suites/: lists in a line."""


def _list_in_a_line(dumper: Plain, values: list) -> yaml.Node:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=True)


Plain.add_representer(list, _list_in_a_line)
