"""What auditship installs in Elasticsearch: plain JSON, one file per resource, named like the resource.

========================  ====================================
``component_templates/``  ``PUT /_component_template/NAME``
``lifecycle_policies/``   ``PUT /_ilm/policy/NAME``
``index_templates/``      ``PUT /_index_template/NAME``
``roles/``                ``PUT /_security/role/NAME``
``api_keys/``             ``POST /_security/api_key``
========================  ====================================

The files speak of the retention class ``30d``; :func:`load` says the same of another class. ``auditship setup`` installs
them; a person can PUT them by hand, in the order of the table.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any, Final

CLASS: Final = "30d"
"""The retention class that the files speak of."""


def load(kind: str, *, retention: str = CLASS) -> Mapping[str, dict[str, Any]]:
    """The resources of a kind (a folder's name), by their own names.

    Args:
        kind: ``component_templates``, ``lifecycle_policies``, ``index_templates``, ``roles`` or ``api_keys``.
        retention: the class, such as ``365d``, that names, patterns and ages speak of.
    """
    found = {}
    for file in sorted((files(__name__) / kind).iterdir(), key=lambda each: each.name):
        if file.name.endswith(".json"):
            name = file.name.removesuffix(".json").replace(CLASS, retention)
            found[name] = _of_class(json.loads(file.read_text(encoding="utf-8")), retention)
    return found


def _of_class(value: Any, retention: str) -> Any:
    """The value with every mention of the class replaced."""
    if isinstance(value, dict):
        return {key: _of_class(each, retention) for key, each in value.items()}
    if isinstance(value, list):
        return [_of_class(each, retention) for each in value]
    return value.replace(CLASS, retention) if isinstance(value, str) else value
