# SPDX-License-Identifier: Apache-2.0
"""Rules of the host: settings, memory, file systems, clock, services. Pure: a view in, checks out.

A setting (swap, governor, huge pages, NUMA balancing, IOMMU) is held against what the site declares in ``expected``:
they are a matter of policy, and without a declaration they do not apply.
"""

from __future__ import annotations

from .health_record import ISOLATE, MONITOR, Check, finding, not_applicable, not_measured, ok
from .health_view import View, listed

_NODE = "node"
#: checks of what a container shares with its host
OF_THE_KERNEL = (
    *("host.swap", "host.governor", "host.thp", "host.numa_balancing", "host.iommu", "host.memory"),
    *("host.disk", "host.readonly", "host.raid", "host.time"),
)


def host_checks(view: View) -> list[Check]:
    """Return every check of the host itself."""
    own = [units(view), leftovers(view), environment(view)]
    why = view.of_its_host
    if why:
        return [*(not_applicable(name, _NODE, why) for name in OF_THE_KERNEL), *own]
    return [
        swap(view),
        governor(view),
        setting(view, "host.thp", "thp"),
        setting(view, "host.numa_balancing", "numa_balancing"),
        setting(view, "host.iommu", "iommu"),
        memory(view),
        disk(view),
        read_only(view),
        arrays(view),
        clock(view),
        *own,
    ]


def _undeclared(name: str, key: str) -> Check:
    return not_applicable(name, _NODE, f"nothing is declared (expected.{key})")


def swap(view: View) -> Check:
    name, devices, wanted = "host.swap", view.of_host("swap"), view.declared("swap")
    if wanted is None:
        return _undeclared(name, "swap")
    if wanted == "any":
        return not_applicable(name, _NODE, "swap is declared as allowed")
    if not devices.known:
        return devices.without(name, _NODE)
    names = [entry["name"] for entry in devices.value]
    if names:
        reason = f"swap is on ({listed(names)}): programs that use GPUs stall when their memory is swapped out"
        return finding(name, _NODE, MONITOR, reason, observed=names, expected="none")
    return ok(name, _NODE, "none", "none")


def governor(view: View) -> Check:
    name, found, wanted = "host.governor", view.of_host("governors"), view.declared("governor")
    if wanted is None:
        return _undeclared(name, "governor")
    if not found.known:
        return found.without(name, _NODE)
    if not found.value:
        return not_applicable(name, _NODE, "the kernel does not scale the frequency of these processors")
    other = {key: number for key, number in found.value.items() if key != wanted}
    if other:
        reason = f"{sum(other.values())} processor(s) have the governor {listed(other)}, declared is {wanted}"
        return finding(name, _NODE, MONITOR, reason, observed=found.value, expected=wanted)
    return ok(name, _NODE, wanted, wanted)


def setting(view: View, name: str, key: str) -> Check:
    wanted, found = view.declared(key), view.of_host(key)
    if wanted is None:
        return _undeclared(name, key)
    if not found.known:
        return found.without(name, _NODE)
    if str(found.value) != str(wanted):
        reason = f"{key.replace('_', ' ')} is {found.value}, declared is {wanted}"
        return finding(name, _NODE, MONITOR, reason, observed=found.value, expected=wanted)
    return ok(name, _NODE, found.value, wanted)


def memory(view: View) -> Check:
    """The kernel keeps some memory for itself, so a little less than what is plugged in is right."""
    name, total = "host.memory", view.of_host("memory_total_bytes")
    declared, before = view.declared("memory_gib"), view.baseline.get("memory_total_bytes")
    wanted = float(declared) * (1 << 30) if declared else before
    if not total.known:
        return total.without(name, _NODE)
    if not wanted:
        return not_applicable(name, _NODE, "nothing is declared (expected.memory_gib), and there was no earlier check")
    least = wanted * (1 - view.limits["memory_tolerance"])
    observed, expected = f"{total.value / (1 << 30):.1f} GiB", f">= {least / (1 << 30):.1f} GiB"
    if total.value < least:
        word = "declared are" if declared else "it had"
        reason = f"the node has {observed} of memory, {word} {wanted / (1 << 30):.1f} GiB"
        return finding(name, _NODE, MONITOR, reason, observed=observed, expected=expected)
    return ok(name, _NODE, observed, expected)


def disk(view: View) -> Check:
    name, mounts, limit = "host.disk", view.of_host("mounts"), view.limits["disk_used"]
    if not mounts.known:
        return mounts.without(name, _NODE)
    used = {
        f"{mount['path']}{suffix}": mount[key]
        for mount in mounts.value
        for key, suffix in (("used_percent", ""), ("inodes_percent", " (inodes)"))
        if mount.get(key) is not None
    }
    full = {path: part for path, part in used.items() if part > limit}
    expected = f"<= {limit:g} %"
    if full:
        reason = f"file systems are full: {listed(f'{path} {part:g} %' for path, part in full.items())}"
        return finding(name, _NODE, MONITOR, reason, observed=full, expected=expected)
    if not used:
        return not_measured(name, _NODE, "no local file system tells its use")
    return ok(name, _NODE, {"fullest": max(used, key=lambda path: used[path]), "percent": max(used.values())}, expected)


def read_only(view: View) -> Check:
    name, mounts = "host.readonly", view.of_host("mounts")
    if not mounts.known:
        return mounts.without(name, _NODE)
    found = [mount["path"] for mount in mounts.value if mount.get("read_only")]
    if found:
        reason = (
            f"mounted read-only, which /etc/fstab does not ask for: {listed(found)}; the kernel does that after errors"
        )
        return finding(name, _NODE, ISOLATE, reason, observed=found, expected=[])
    return ok(name, _NODE, [], [])


def arrays(view: View) -> Check:
    name, found = "host.raid", view.of_host("arrays")
    if not found.known:
        return found.without(name, _NODE)
    if not found.value:
        return not_applicable(name, _NODE, "the node has no software array")
    bad = [
        entry["name"]
        for entry in found.value
        if "_" in (entry.get("members") or "") or entry.get("failed") or entry.get("state") != "active"
    ]
    if bad:
        reason = f"arrays with a failed or missing device: {listed(bad)}"
        return finding(name, _NODE, MONITOR, reason, observed=bad, expected=[])
    return ok(name, _NODE, [entry["name"] for entry in found.value])


def clock(view: View) -> Check:
    name, found = "host.time", view.of_host("clock")
    if not found.known:
        return found.without(name, _NODE)
    if not found.value["synchronised"]:
        reason = "the kernel's clock is not synchronised: logs of nodes cannot be compared, and certificates may fail"
        return finding(name, _NODE, MONITOR, reason, observed=found.value, expected="synchronised")
    return ok(name, _NODE, found.value, "synchronised")


def units(view: View) -> Check:
    name, found = "host.failed_units", view.of_host("failed_units")
    if not found.known and view.of_its_host:
        return not_applicable(name, _NODE, f"no systemd runs in this container ({found.reason})")
    if not found.known:
        return found.without(name, _NODE)
    if found.value:
        reason = f"{len(found.value)} unit(s) have failed: {listed(found.value)}"
        return finding(name, _NODE, MONITOR, reason, observed=found.value[:32], expected=[])
    return ok(name, _NODE, [], [])


def leftovers(view: View) -> Check:
    name, found = "host.leftovers", view.of_host("leftovers")
    if not found.known:
        return found.without(name, _NODE)
    old = [entry for entry in found.value if entry["age_s"] > view.limits["leftover_age"]]
    if len(old) > view.limits["leftovers"]:
        reason = f"{len(old)} processes of Ansible or sg_inq were left behind: {listed(entry['pid'] for entry in old)}"
        return finding(name, _NODE, MONITOR, reason, observed=len(old), expected=f"<= {view.limits['leftovers']:g}")
    return ok(name, _NODE, len(old), f"<= {view.limits['leftovers']:g}")


def environment(view: View) -> Check:
    name, found = "env.blockers", view.of_host("environment")
    if not found.known:
        return found.without(name, _NODE)
    if found.value:
        told = [f"{entry['name']} in {entry['file']}" for entry in found.value]
        reason = f"set for everybody: {listed(told)}"
        return finding(name, _NODE, MONITOR, reason, observed=told, expected=[])
    return ok(name, _NODE, [], [])
