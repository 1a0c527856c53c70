# SPDX-License-Identifier: Apache-2.0
"""The lock: what was solved for every node, as a document that people review and commit.

Control node only. Nodes of one kind share one stack: a thousand nodes of ten kinds are ten stacks and a thousand lines.
The same solutions give the same bytes: no date, no order of discovery, no host name goes into a stack.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

import yaml

from .errors import InvalidInputError

SCHEMA = 1
HEADER = (
    "# What every node gets, and why. Written by playbooks/plan-stack.yml: review it and commit it.\n"
    "# To change it, change the intent (the stack_* variables of the inventory) and plan again.\n"
)
#: A change below one of these keys is only in force once the new kernel module is loaded.
_NEEDS_REBOOT = ("driver.version", "driver.flavour", "driver.branch", "fabric_manager.version")
_NOT_COMPARED = ("why", "intent")
_CONFLICT = re.compile(r"^(?:<{7}|>{7})(?: |$)", re.MULTILINE)
_AWAY = "Take it back from version control, or move it away and plan again with playbooks/plan-stack.yml"


class _Dumper(yaml.SafeDumper):
    """Indents lists below their key, as yamllint wants them, and never writes aliases."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        return True


def canonical(value: Any) -> str:
    """Return the one JSON text of a value: sorted keys, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(value: Any) -> str:
    """Return ``sha256:`` and the digest of a value's canonical JSON."""
    return "sha256:" + hashlib.sha256(canonical(value).encode("utf-8")).hexdigest()


def build(contents: Mapping[str, Mapping[str, Any]], tables: str) -> dict[str, Any]:
    """Return the lock of a fleet.

    Args:
        contents: node name to ``{"intent": {...}, "why": {...}, **stack}``, one for every node that may be touched.
        tables: digest of the tables the solutions were made from.

    Returns:
        Document with ``schema``, ``digests``, ``stacks`` (name to content) and ``nodes`` (name to stack name).
    """
    distinct = {canonical(content): content for content in contents.values()}
    names: dict[str, str] = {}
    for text in sorted(distinct, key=lambda text: (_base_name(distinct[text]), text)):
        base = _base_name(distinct[text])
        taken = sum(1 for name in names.values() if name == base or name.rsplit("--", 1)[0] == base)
        names[text] = base if not taken else f"{base}--{taken + 1}"
    intents = {node: contents[node]["intent"] for node in sorted(contents)}
    return {
        "schema": SCHEMA,
        "digests": {"tables": tables, "intent": digest(intents)},
        "stacks": {names[text]: _plain(distinct[text]) for text in sorted(distinct, key=lambda text: names[text])},
        "nodes": {node: names[canonical(contents[node])] for node in sorted(contents)},
    }


def kept_contents(old: Mapping[str, Any] | None, replaced: set[str]) -> dict[str, Mapping[str, Any]]:
    """Return what an earlier lock has for the nodes that are not replaced."""
    found = {node: content_of(old, node) for node in (old or {}).get("nodes", {}) if node not in replaced}
    return {node: content for node, content in found.items() if content is not None}


def _plain(content: Mapping[str, Any]) -> dict[str, Any]:
    copied: dict[str, Any] = json.loads(json.dumps(content))
    return copied


def _base_name(content: Mapping[str, Any]) -> str:
    """``debian12-8x-h100-sxm5-80gb``: what kind of node this is, for people."""
    platform = content["platform"]
    parts = [platform["os"]]
    if platform["arch"] != "x86_64":
        parts.append(platform["arch"])
    parts += [f"{gpu['count']}x-{gpu['id'] or _slug(gpu['name'])}" for gpu in content["gpus"]] or ["cpu"]
    if content.get("simulated"):
        parts.append("simulated")
    return "-".join(parts)


def _slug(text: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in str(text).lower()).split()) or "gpu"


def to_text(lock: Mapping[str, Any]) -> str:
    """Return the lock as YAML, the same bytes for the same document."""
    body = yaml.dump(
        dict(lock), Dumper=_Dumper, sort_keys=False, default_flow_style=False, width=110, allow_unicode=True
    )
    return f"{HEADER}---\n{body}"


def from_text(text: str, path: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """Read a lock; whatever is not one is refused in one sentence.

    Args:
        text: content of the file.
        path: its name, for messages.
        schema: JSON schema of the document.

    Raises:
        InvalidInputError: no YAML, another schema version, a missing or mistyped value, a reference to nothing, a key
            that stands there twice, conflict markers of a merge.
    """
    conflict = _CONFLICT.search(text)
    if conflict:
        line = text.count("\n", 0, conflict.start()) + 1
        raise _refuse(path, f"it holds an unresolved merge (line {line})")
    document = _document(text, path)
    version = document.get("schema") if isinstance(document, dict) else None
    if version != SCHEMA:
        cause = f"it has schema {version!r} and this release reads {SCHEMA}" if document else "it is empty"
        raise _refuse(path, cause, SCHEMA, version)
    problem = _shape_problem(document, schema) or _reference_problem(document)
    if problem:
        raise _refuse(path, problem)
    return dict(document)


def _document(text: str, path: str) -> Any:
    """Parse what `to_text` may have written: of two equal keys one would silently win, and references to other places,
    which a lock never has, can make a small file huge."""
    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text)
        node = loader.get_single_node()
        problem = _graph_problem(node) if node else None
        document = None if node is None or problem else loader.construct_document(node)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise _refuse(path, f"it is not YAML{where}: {getattr(error, 'problem', error)}") from error
    if problem:
        raise _refuse(path, problem)
    return document


def _graph_problem(root: yaml.Node) -> str | None:
    seen: set[int] = set()
    left = [root]
    while left:
        node = left.pop()
        if id(node) in seen:
            return f"it repeats a part by an alias (line {node.start_mark.line + 1})"
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            keys: set[str] = set()
            for key, value in node.value:
                if str(key.value) in keys:
                    return f"the key {key.value} stands twice in one place (line {key.start_mark.line + 1})"
                keys.add(str(key.value))
                left += [key, value]
        elif isinstance(node, yaml.SequenceNode):
            left += node.value
    return None


def _shape_problem(document: Mapping[str, Any], schema: Mapping[str, Any]) -> str | None:
    import jsonschema  # a tenth of a second that only readers of a lock pay

    errors = sorted(jsonschema.Draft202012Validator(schema).iter_errors(document), key=lambda e: list(map(str, e.path)))
    if not errors:
        return None
    return f"{'.'.join(map(str, errors[0].absolute_path)) or 'the document'}: {errors[0].message}"


def _reference_problem(document: Mapping[str, Any]) -> str | None:
    stacks, nodes = document["stacks"], document["nodes"]
    for node, name in nodes.items():
        if name not in stacks:
            return f"node {node} has the stack {name}, which is not in it"
    unused = sorted(set(stacks) - set(nodes.values()))
    if unused:
        return f"no node has the stack {unused[0]}"
    intents = digest({node: stacks[nodes[node]]["intent"] for node in sorted(nodes)})
    if document["digests"]["intent"] != intents:
        return "the intents in it are not those it was planned from (digests.intent)"
    return None


def _refuse(path: str, cause: str, expected: Any = None, found: Any = None) -> InvalidInputError:
    return InvalidInputError(
        "use the lock",
        path,
        cause,
        _AWAY,
        expected=expected,
        found=found,
    )


def content_of(lock: Mapping[str, Any] | None, node: str) -> dict[str, Any] | None:
    """Return what a node gets, with ``intent`` and ``why``, or None when the lock does not have it."""
    name = (lock or {}).get("nodes", {}).get(node)
    return None if lock is None or name is None else dict(lock["stacks"][name])


def stack_of(lock: Mapping[str, Any] | None, node: str) -> dict[str, Any] | None:
    """Return the stack alone: what roles read."""
    content = content_of(lock, node)
    return None if content is None else stack_in(content)


def stack_in(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the stack out of what the lock holds of a node."""
    return {key: value for key, value in content.items() if key not in _NOT_COMPARED}


def promises(lock: Mapping[str, Any] | None, node: str) -> dict[str, Any]:
    """Return what a proof has to find, where the lock has it: ``torch_version`` and the ``stack`` as far as it is held
    against the node (``driver`` with version, flavour and holds, ``fabric_manager``)."""
    stack = stack_of(lock, node)
    if stack is None:
        return {}
    driver, framework = stack.get("driver"), stack.get("framework") or {}
    kept = {key: driver.get(key) for key in ("version", "flavour", "holds")} if driver else None
    found = {"stack": {"driver": kept, "fabric_manager": stack.get("fabric_manager")}}
    version = framework.get("version") if framework.get("name") == "pytorch" else None
    return {**found, "torch_version": version} if version else found


def difference(old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Return what changes from one stack to another, as ``item``, ``from``, ``to``, ``why``."""
    before, after = leaves(old or {}), leaves(new or {})
    why = (new or {}).get("why") or {}
    changes = []
    for item in sorted(before.keys() | after.keys()):
        if before.get(item) != after.get(item):
            changes.append({"item": item, "from": before.get(item), "to": after.get(item), "why": why.get(item)})
    return changes


def needs_reboot(changes: list[dict[str, Any]]) -> bool:
    """Whether a change is in force only after the node was rebooted; a driver that goes away needs none."""
    return any(change["item"] in _NEEDS_REBOOT and change["to"] is not None for change in changes)


def leaves(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return dotted path to value of every leaf that is compared; a list is one value, null is no value."""
    found: dict[str, Any] = {}
    for key, value in content.items():
        if not prefix and key in _NOT_COMPARED:
            continue
        if isinstance(value, Mapping):
            found.update(leaves(value, f"{prefix}{key}."))
        elif value is not None:
            found[f"{prefix}{key}"] = value
    return found
