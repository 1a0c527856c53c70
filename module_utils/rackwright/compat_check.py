# SPDX-License-Identifier: Apache-2.0
"""Hold a locked stack against the tables and a node: every gate again, and every derived value made again. Pure.

People edit locks. Whatever can be made from the versions in a stack is made from them and compared; the rest are gates.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from .compat_cuda import (
    Problem,
    Runtime,
    cuda_minimum,
    runtime_of,
    tensorflow_problems,
    toolkit_problems,
    torch_problems,
)
from .compat_framework import SYSTEM_PYTHON, Framework, Python, label
from .compat_gpu import driver_problem, version_problem
from .compat_match import node_of, other_node, unknown_models
from .compat_packages import (
    PAGES_64K,
    container_toolkit_part,
    driver_part,
    fabric_manager_part,
    os_part,
)
from .compat_parts import framework_part, libraries_part, serving_part
from .compat_platform import Platform, find_platform
from .compat_rules import TablesLike, at_least, find
from .compat_toolkit import toolkit_part, toolkit_platform, toolkit_release
from .compat_vllm import glibc_minimum, vllm_problems
from .stack_node import StackNode
from .torch_build import version_key, wheel_problem

SIGNINGS = (None, "none", "mok", "prebuilt")


def check_stack(node: StackNode | None, stack: dict[str, Any], tables: TablesLike) -> list[str]:
    """Return what is wrong with a stack; an empty list means that it is consistent and fits the node.

    Args:
        node: the node it is for, or None to look at the stack alone.
        stack: as ``solve`` made it, maybe edited since.
        tables: the tables, with the site's own rows.
    """
    try:
        return list(dict.fromkeys(_problems(node, stack, tables)))
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        # the shape is the lock schema's business; whoever calls without it still gets an answer
        return [f"the stack has not the layout of a stack: {type(error).__name__} {error}"]


def _problems(node: StackNode | None, stack: dict[str, Any], tables: TablesLike) -> Iterator[str]:
    described = node_of(stack, tables)
    if node is not None:
        yield from other_node(node, described, stack)
        described = replace(
            described,
            os_name=node.os_name,
            kernel=node.kernel,
            secure_boot=node.secure_boot,
            nvswitch=node.nvswitch,
            wsl=node.wsl,
            container=node.container,
            installed_driver=node.installed_driver,
            pythons=node.pythons,
        )
    yield from unknown_models(stack, tables)
    platform, problem = find_platform(tables, described)
    if platform is None:
        yield str(problem)
        return
    runtime = runtime_of(described, tables, (stack["driver"] or {}).get("version"))
    yield from _driver(node is not None, described, stack, tables, platform)
    yield from _fabric_manager(node, stack, platform)
    yield from _framework(stack, tables, described, runtime)
    yield from _toolkit(stack, tables, described, platform, runtime)
    yield from _os(described, stack, platform)
    yield from _unequal("container_toolkit", container_toolkit_part(platform), stack["container_toolkit"])
    yield from _minimum(stack, tables)


def _unequal(item: str, wanted: Any, found: Any) -> Iterator[str]:
    """Name each value that is not what the versions of the stack make it."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        for key in sorted(wanted.keys() | found.keys()):
            yield from _unequal(f"{item}.{key}", wanted.get(key), found.get(key))
    elif wanted != found:
        yield f"{item} is {_shown(found)} and has to be {_shown(wanted)}"


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_shown(part) for part in value) + "]"
    if isinstance(value, dict):
        return " ".join(str(part) for part in value.values() if part is not None)
    return "null" if value is None else str(value)


def _driver(
    known_node: bool, node: StackNode, stack: dict[str, Any], tables: TablesLike, platform: Platform
) -> Iterator[str]:
    driver = stack["driver"]
    if driver is None:
        if node.gpus and not node.wsl:
            yield "the node has GPUs and the stack has no driver"
        return
    if not node.gpus or node.wsl:
        yield "the stack has a driver for a node that gets none"
        return
    row = find(tables.drivers["branches"], "branch", driver["branch"])
    if row is None:
        yield f"driver branch {driver['branch']} is not in the table"
        return
    if driver["source"] not in ("nvidia", "distribution") or not platform.has_source(driver["source"]):
        yield f"driver source {driver['source']} is not known for {platform.id}"
        return
    if driver["flavour"] not in ("open", "proprietary"):
        yield f"driver flavour {driver['flavour']} is neither open nor proprietary"
        return
    version = _version_problem(row, driver)
    if version:
        yield version
    found = driver_problem(tables, row, driver["flavour"], node, platform, driver["source"])
    if found:
        yield found[1]
    wanted = driver_part(
        platform,
        source=driver["source"],
        row=row,
        version=driver["version"],
        flavour=driver["flavour"],
        minimum=driver["minimum"],
        secure_boot=node.secure_boot,
        gpus=stack["gpus"],
    )
    if not known_node and driver["signing"] in SIGNINGS:
        wanted["signing"] = driver["signing"]
    yield from _unequal("driver", wanted, driver)


def _version_problem(row: dict[str, Any], driver: dict[str, Any]) -> str | None:
    version = str(driver["version"])
    if not all(part.isdigit() for part in version.split(".")) or version.count(".") not in (1, 2):
        return f"driver version {version} is not a version"
    return version_problem(row, version)


def _os(node: StackNode, stack: dict[str, Any], platform: Platform) -> Iterator[str]:
    version = stack["driver"]["version"] if stack["driver"] else None
    kernels = [node.kernel] if node.kernel else [None, PAGES_64K]
    wanted = [os_part(platform, version, kernel) for kernel in kernels]
    if stack["os"] not in wanted:
        yield from _unequal("os", wanted[0], stack["os"])


def _fabric_manager(node: StackNode | None, stack: dict[str, Any], platform: Platform) -> Iterator[str]:
    found, driver = stack["fabric_manager"], stack["driver"]
    if stack["simulated"]:
        if found is not None:
            yield "the GPUs are simulated and the stack has a fabric manager"
        return
    if driver is None:
        if found is not None:
            yield "the stack has a fabric manager and no driver"
        return
    nvswitch = node.nvswitch and not node.container if node is not None else found is not None
    wanted = fabric_manager_part(
        platform,
        source=driver["source"],
        branch=driver["branch"],
        version=driver["version"],
        gpus=stack["gpus"],
        nvswitch=nvswitch,
    )
    yield from _unequal("fabric_manager", wanted, found)


def _framework(stack: dict[str, Any], tables: TablesLike, node: StackNode, runtime: Runtime) -> Iterator[str]:
    said, serving, python = stack["framework"], stack["serving"], stack["python"]
    yield from _python(stack, node)
    if said is None:
        yield from _unequal("libraries", libraries_part(None), stack["libraries"])
        if serving is not None:
            yield "the stack has a serving engine and no framework"
        return
    release, problem = _release(tables, said)
    if release is None:
        yield str(problem)
        return
    cuda = _cuda(said, release)
    engine = _engine(tables, serving, said)
    if isinstance(engine, str):
        yield engine
        return
    interpreter = Python(str(python["version"]), python["interpreter"], python["source"])
    framework = Framework(said["name"], release, said["version"], said["build"], cuda, interpreter, engine)
    yield from _unequal("framework", framework_part(tables, framework), said)
    yield from _unequal("libraries", libraries_part(framework), stack["libraries"])
    yield from _unequal("serving", serving_part(framework), serving)
    yield from (text for _gate, text in _gates(tables, framework, runtime))
    rows = [(label(said["name"]), release)]
    if engine:
        rows.append(("vLLM", {**engine, "glibc_min": glibc_minimum(tables, engine)}))
    for name, row in rows:
        wheel = wheel_problem(row, interpreter.version, node.glibc)
        if wheel:
            yield f"{name} {row['version']}: {wheel}"


def _gates(tables: TablesLike, framework: Framework, runtime: Runtime) -> list[Problem]:
    found: list[Problem] = []
    if framework.serving:
        found += vllm_problems(tables, framework.serving, runtime)
        default = framework.release["pypi_default_build"]
        if framework.build != default:
            text = f"vLLM's wheel is made for build {default} of PyTorch and the stack has {framework.build}"
            found.append(("wheel-gpu", text))
    if framework.cuda is None:
        if runtime.gpus:
            found.append(("wheel-gpu", f"the node has GPUs and the stack has a {label(framework.name)} without CUDA"))
        return found
    if not runtime.gpus:
        found.append(("wheel-gpu", f"no GPU of the node runs kernels and the stack has build {framework.build}"))
    if framework.name == "tensorflow":
        return found + tensorflow_problems(tables, framework.release, runtime)
    return found + torch_problems(tables, framework.release, str(framework.build), runtime)


def _release(tables: TablesLike, said: dict[str, Any]) -> tuple[dict[str, Any] | None, str | None]:
    name, version, build = said["name"], str(said["version"]), said["build"]
    if name not in ("pytorch", "tensorflow"):
        return None, f"framework {name} is not known"
    rows = tables.frameworks[name]["releases"]
    line = version if name == "pytorch" else ".".join(version.split(".")[:2])
    row = find(rows, "version", line)
    if row is None:
        return None, f"{label(name)} {version} is not in the table of releases"
    known = [*row["builds"], "cpu"] if name == "pytorch" else ["and-cuda", None]
    if build not in known:
        return None, f"{label(name)} {version} has no build {build}"
    return row, None


def _cuda(said: dict[str, Any], release: dict[str, Any]) -> str | None:
    if said["build"] in (None, "cpu"):
        return None
    cuda: str = release["cuda"] if said["name"] == "tensorflow" else release["builds"][said["build"]]["cuda"]
    return cuda


def _engine(tables: TablesLike, serving: dict[str, Any] | None, said: dict[str, Any]) -> dict[str, Any] | str | None:
    """The row of the serving engine, or what is wrong with it."""
    if serving is None:
        return None
    if serving["engine"] != "vllm":
        return f"serving engine {serving['engine']} is not known"
    row: dict[str, Any] | None = find(tables.frameworks["vllm"]["releases"], "version", serving["version"])
    if row is None:
        return f"vLLM {serving['version']} is not in the table of releases"
    if said["name"] != "pytorch" or said["version"] != row["torch"]:
        return f"vLLM {row['version']} pins torch {row['torch']} and the stack has {said['name']} {said['version']}"
    return row


def _python(stack: dict[str, Any], node: StackNode) -> Iterator[str]:
    python = stack["python"]
    if not isinstance(python["version"], str):
        yield f"python.version is {python['version']}"
    elif python["source"] not in ("system", "uv"):
        yield f"python.source {python['source']} is neither system nor uv"
    elif python["source"] == "uv" and python["interpreter"] is not None:
        yield "python.interpreter has to be null where uv brings it"
    elif python["source"] == "system" and not str(python["interpreter"] or "").startswith("/"):
        yield "python.interpreter has to be the path of the system's interpreter"
    elif python["source"] == "system" and python["version"] == node.python:
        if python["interpreter"] != SYSTEM_PYTHON:
            yield f"python.interpreter is {python['interpreter']} and Python {node.python} is {SYSTEM_PYTHON}"
    elif python["source"] == "system" and node.python:
        known = dict(node.pythons)
        if python["interpreter"] == SYSTEM_PYTHON:
            yield f"python.version is {python['version']} and the node's own interpreter is {node.python}"
        elif known and known.get(python["version"]) != python["interpreter"]:
            yield f"the node has no Python {python['version']} at {python['interpreter']}"


def _toolkit(
    stack: dict[str, Any], tables: TablesLike, node: StackNode, platform: Platform, runtime: Runtime
) -> Iterator[str]:
    said = stack["toolkit"]
    if said is None:
        return
    versions = [row["version"] for row in said["releases"]]
    releases = [release for release in (toolkit_release(tables, version) for version in versions) if release]
    unknown = sorted(set(versions) - {release["release"] for release in releases})
    if unknown:
        yield f"CUDA toolkit {', '.join(unknown)} is not in the table"
        return
    source = toolkit_platform(tables, node, platform)
    if source.repository_arch is None:
        yield f"NVIDIA has no known repository for {source.id} on {node.arch}"
        return
    yield from _unequal("toolkit", toolkit_part(source, releases), said)
    yield from (text for release in releases for _gate, text in toolkit_problems(tables, release, runtime))


def _minimum(stack: dict[str, Any], tables: TablesLike) -> Iterator[str]:
    """The least driver follows from the CUDA versions in the stack."""
    driver = stack["driver"]
    if driver is None:
        return
    toolkits = (stack["toolkit"] or {}).get("releases", [])
    cudas = [(stack["framework"] or {}).get("cuda"), *(release["cuda"] for release in toolkits)]
    minimums = [minimum for minimum in (cuda_minimum(tables, cuda)[0] for cuda in cudas if cuda) if minimum]
    least = max(minimums, key=version_key, default=None)
    yield from _unequal("driver.minimum", least, driver["minimum"])
    if least and not at_least(driver["version"], least):
        yield f"the stack needs driver {least} or newer and has {driver['version']}"
