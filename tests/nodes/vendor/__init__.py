# SPDX-License-Identifier: Apache-2.0
"""Simulated repositories of the vendor: signed, with stub packages of NVIDIA's true names, versions and relations."""
