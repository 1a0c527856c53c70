# SPDX-License-Identifier: Apache-2.0
"""The host half of the simulated NVML: node profiles, their validation, the flat scenario and the PCI tree."""

from __future__ import annotations
