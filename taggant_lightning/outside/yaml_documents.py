"""YAML from outside, read within bounds: no class is built, no name comes twice, and aliases do not multiply what is there."""

from typing import Any

from taggant_lightning.outside.documents import CONTAINERS, DEPTH, DIGITS

BYTES = 2**20  # the parser takes seconds for a megabyte
NODES = 20_000  # as they are written
_MANY, _DEEP = "it holds too many values", f"it is nested more than {DEPTH} deep"


def parse_yaml(content: bytes | str) -> Any:
    """Return what a YAML text holds.

    Args:
        content: The text, UTF-8 where it is bytes.

    Raises:
        ValueError: If it is no YAML, holds a name twice, or too many values (each alias counts as what it stands for), too deep
            ones or too long numbers.
    """
    import yaml

    try:
        return yaml.load(content.decode() if isinstance(content, bytes) else content, _loader())  # noqa: S506  # a SafeLoader
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except (TypeError, OverflowError, AttributeError, KeyError, IndexError) as error:  # of PyYAML, for tags that do not fit
        raise ValueError(f"a value does not fit its tag: {error}") from None


def _loader() -> Any:
    import yaml

    class Bounded(yaml.SafeLoader):
        """Refuses a name that comes twice, of which YAML would keep the last, and what would take too much work."""

        depth = nodes = 0

        def compose_document(self) -> Any:
            node = super().compose_document()
            _refuse_size(node)
            return node

        def compose_node(self, parent: Any, index: Any) -> Any:
            self.nodes, self.depth = self.nodes + 1, self.depth + 1
            if self.nodes > NODES or self.depth > DEPTH:
                raise ValueError(_MANY if self.nodes > NODES else _DEEP)
            node = super().compose_node(parent, index)
            self.depth -= 1
            return node

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen = set()
            for key in (key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge" and isinstance(key.value, str)):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(problem=f"{key.value!r} comes twice", problem_mark=node.start_mark)
                seen.add(key.value)
            return super().construct_mapping(node, deep)

    return Bounded


def _refuse_size(root: Any) -> None:
    """Refuse a tree of nodes that is too large or too deep, an alias counted each time that it stands for something."""
    import yaml

    sizes: dict[int, tuple[int, int]] = {}  # values and depth below each node, by its identity
    open_nodes: set[int] = set()
    stack = [root]
    while stack:
        node = stack[-1]
        parts = [part for pair in node.value for part in (pair if isinstance(pair, tuple) else (pair,))]
        parts = parts if not isinstance(node, yaml.ScalarNode) else []
        if id(node) in sizes:
            stack.pop()
            continue
        waiting = [part for part in parts if id(part) not in sizes]
        if waiting and id(node) in open_nodes:
            raise ValueError("an alias stands for what it is part of")
        if waiting:
            open_nodes.add(id(node))
            stack += waiting
            continue
        if isinstance(node, yaml.ScalarNode) and node.tag.endswith((":int", ":float")) and len(node.value) > DIGITS:
            raise ValueError(f"the number {node.value[:10]}… has {len(node.value):,} digits")
        size = 1 + sum(sizes[id(part)][0] for part in parts)
        depth = 1 + max((sizes[id(part)][1] for part in parts), default=0)
        if size > CONTAINERS:
            raise ValueError(_MANY)
        if depth > DEPTH:
            raise ValueError(_DEEP)
        sizes[id(node)] = size, depth
        open_nodes.discard(id(node))
        stack.pop()
