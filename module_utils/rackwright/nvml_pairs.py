# SPDX-License-Identifier: Apache-2.0
"""Read how the devices of one node are connected to each other."""

from __future__ import annotations

from typing import Any

from . import nvml_names as names
from .nvml_errors import NvmlFailure, UnreadableError
from .nvml_reader import BROKEN_STATES, DeviceReader


def read_pairs(nvml: Any, readers: list[DeviceReader]) -> list[dict[str, Any]]:
    """How each pair of devices is connected: nearest common PCI ancestor, peer access and NVLink access."""
    pairs = []
    for i, first in enumerate(readers):
        for second in readers[i + 1 :]:
            pair: dict[str, Any] = {"a": first.index, "b": second.index}
            _pair(nvml, pair, "level", names.TOPOLOGY_LEVELS, "nvmlDeviceGetTopologyCommonAncestor", first, second)
            for key, capability in (("p2p_read", 0), ("p2p_nvlink", 2)):
                _pair(nvml, pair, key, names.P2P_STATUSES, "nvmlDeviceGetP2PStatus", first, second, capability)
            pairs.append(pair)
    return pairs


def _pair(
    nvml: Any,
    pair: dict[str, Any],
    key: str,
    table: dict[int, str],
    function: str,
    first: DeviceReader,
    second: DeviceReader,
    *args: int,
) -> None:
    pair[key] = None
    try:
        for reader in (first, second):
            if reader.broken is not None:
                raise reader.broken
        pair[key] = names.name_of(table, nvml.call(function, first.handle, second.handle, *args))
    except (NvmlFailure, UnreadableError) as failure:
        pair[f"{key}_reason"] = str(failure)
        if isinstance(failure, NvmlFailure) and failure.value in BROKEN_STATES:
            for reader in (first, second):
                reader.check()  # the answer does not say which of the two it means
