# SPDX-License-Identifier: Apache-2.0
"""Test nodes: systemd containers that behave like bare GPU servers with simulated GPUs."""
