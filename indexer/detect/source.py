"""Reads files of rules and samples: YAML, several documents to a file, and nothing of YAML that could hurt.

Anchors and aliases are refused (nine lines of them can stand for a billion values), so are files beyond :data:`BYTES_MAX`,
nesting beyond what Python can read, and keys that stand twice. A problem raises :class:`RuleError` naming file and place.
"""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any, Final

import yaml

from auditship.errors import ConfigurationError

BYTES_MAX: Final = 64 * 1024
DOCUMENTS_MAX: Final = 50
SAMPLES_SUFFIX: Final = ".samples.yml"


class RuleError(ConfigurationError):
    """A rule or its file cannot be used; names the file, the rule and the remedy."""


class _Loader(yaml.SafeLoader):
    """Plain values alone."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise yaml.MarkedYAMLError(problem="anchors and aliases are not taken", problem_mark=event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key) for key, _ in node.value]
        for at, key in enumerate(keys):
            if key in keys[:at]:
                raise yaml.MarkedYAMLError(problem=f"the key {key!r} stands twice", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


def documents(path: Path) -> list[dict[str, Any]]:
    """The documents of a file.

    Raises:
        RuleError: it cannot be read, or is not what is expected.
    """
    try:
        with path.open("rb") as file:
            data = file.read(BYTES_MAX + 1)
    except OSError as error:
        raise RuleError(f"{path}: {error.strerror}") from None
    if len(data) > BYTES_MAX:
        raise RuleError(f"{path}: larger than {BYTES_MAX} bytes", "Split it: a file holds one detection and its parts.")
    try:
        found = [each for each in yaml.load_all(data, _Loader) if each is not None]
    except (yaml.YAMLError, RecursionError, ValueError, TypeError) as error:
        problem = getattr(error, "problem", None) or ("nested too deeply" if isinstance(error, RecursionError) else str(error))
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise RuleError(f"{path}{where}: not YAML as it is taken here: {problem}", "Write plain values, out in full.") from None
    if len(found) > DOCUMENTS_MAX:
        raise RuleError(f"{path}: more than {DOCUMENTS_MAX} documents", "Split it.")
    for at, each in enumerate(found, 1):
        if not isinstance(each, dict) or not all(isinstance(key, str) for key in each):
            raise RuleError(f"{path}: document {at} is not a mapping of names", "A rule begins with `title:`.")
    return found


def files(directory: Path, *, samples: bool = False) -> list[Path]:
    """The rule files of a folder, or its files of samples, by name.

    Raises:
        RuleError: the folder cannot be read.
    """
    try:
        names = sorted(each for each in directory.iterdir() if each.suffix in (".yml", ".yaml") and each.is_file())
    except OSError as error:
        raise RuleError(f"{directory}: {error.strerror}", "Name a folder of rule files under [detections] rules.") from None
    return [each for each in names if each.name.endswith(SAMPLES_SUFFIX) == samples]
