# SPDX-License-Identifier: Apache-2.0
"""Which GPU models exist and how to recognise them.

Generated from roles/gpu_stack/files/tables/gpus.yml by tests/support/make_tables.py: edit the table, not this file.
None means that no source is known, as in the table.
"""

from __future__ import annotations

from typing import Any

# fmt: off
# ruff: noqa: E501
GPUS: list[dict[str, Any]] = [
    {'id': 'p40', 'nvml_names': ['Tesla P40'], 'pci_device_ids': ['1b38'], 'memory_gb': 24, 'memory_type': 'GDDR5', 'architecture': 'Pascal', 'chip': 'GP102', 'compute_capability': '6.1'},
    {'id': 'p100-pcie-12gb', 'nvml_names': ['Tesla P100-PCIE-12GB'], 'pci_device_ids': ['15f7'], 'memory_gb': 12, 'memory_type': 'HBM2', 'architecture': 'Pascal', 'chip': 'GP100', 'compute_capability': '6.0'},
    {'id': 'p100-pcie-16gb', 'nvml_names': ['Tesla P100-PCIE-16GB'], 'pci_device_ids': ['15f8'], 'memory_gb': 16, 'memory_type': 'HBM2', 'architecture': 'Pascal', 'chip': 'GP100', 'compute_capability': '6.0'},
    {'id': 'p100-sxm2-16gb', 'nvml_names': ['Tesla P100-SXM2-16GB'], 'pci_device_ids': ['15f9'], 'memory_gb': 16, 'memory_type': 'HBM2', 'architecture': 'Pascal', 'chip': 'GP100', 'compute_capability': '6.0'},
    {'id': 'v100-pcie-16gb', 'nvml_names': ['Tesla V100-PCIE-16GB'], 'pci_device_ids': ['1db4'], 'memory_gb': 16, 'memory_type': 'HBM2', 'architecture': 'Volta', 'chip': 'GV100', 'compute_capability': '7.0'},
    {'id': 'v100-pcie-32gb', 'nvml_names': ['Tesla V100-PCIE-32GB'], 'pci_device_ids': ['1db6'], 'memory_gb': 32, 'memory_type': 'HBM2', 'architecture': 'Volta', 'chip': 'GV100', 'compute_capability': '7.0'},
    {'id': 'v100-sxm2-16gb', 'nvml_names': ['Tesla V100-SXM2-16GB'], 'pci_device_ids': ['1db1', '1df5'], 'memory_gb': 16, 'memory_type': 'HBM2', 'architecture': 'Volta', 'chip': 'GV100', 'compute_capability': '7.0'},
    {'id': 'v100-sxm2-32gb', 'nvml_names': ['Tesla V100-SXM2-32GB'], 'pci_device_ids': ['1db5'], 'memory_gb': 32, 'memory_type': 'HBM2', 'architecture': 'Volta', 'chip': 'GV100', 'compute_capability': '7.0'},
    {'id': 't4', 'nvml_names': ['Tesla T4'], 'pci_device_ids': ['1eb8'], 'memory_gb': 16, 'memory_type': 'GDDR6', 'architecture': 'Turing', 'chip': 'TU104', 'compute_capability': '7.5'},
    {'id': 'rtx-2080-ti', 'nvml_names': ['NVIDIA GeForce RTX 2080 Ti'], 'pci_device_ids': ['1e04', '1e07'], 'memory_gb': 11, 'memory_type': 'GDDR6', 'architecture': 'Turing', 'chip': 'TU102', 'compute_capability': '7.5'},
    {'id': 'rtx-3060', 'nvml_names': ['NVIDIA GeForce RTX 3060'], 'pci_device_ids': ['2503', '2504', '2544', '2487'], 'memory_gb': 12, 'memory_type': 'GDDR6', 'architecture': 'Ampere', 'chip': 'GA106', 'compute_capability': '8.6'},
    {'id': 'rtx-3090', 'nvml_names': ['NVIDIA GeForce RTX 3090'], 'pci_device_ids': ['2204'], 'memory_gb': 24, 'memory_type': 'GDDR6X', 'architecture': 'Ampere', 'chip': 'GA102', 'compute_capability': '8.6'},
    {'id': 'rtx-3090-ti', 'nvml_names': ['NVIDIA GeForce RTX 3090 Ti'], 'pci_device_ids': ['2203'], 'memory_gb': 24, 'memory_type': 'GDDR6X', 'architecture': 'Ampere', 'chip': 'GA102', 'compute_capability': '8.6'},
    {'id': 'rtx-a4000', 'nvml_names': ['NVIDIA RTX A4000'], 'pci_device_ids': ['24b0'], 'memory_gb': 16, 'memory_type': 'GDDR6', 'architecture': 'Ampere', 'chip': 'GA104', 'compute_capability': '8.6'},
    {'id': 'rtx-a5000', 'nvml_names': ['NVIDIA RTX A5000'], 'pci_device_ids': ['2231'], 'memory_gb': 24, 'memory_type': 'GDDR6', 'architecture': 'Ampere', 'chip': 'GA102', 'compute_capability': '8.6'},
    {'id': 'rtx-a6000', 'nvml_names': ['NVIDIA RTX A6000'], 'pci_device_ids': ['2230'], 'memory_gb': 48, 'memory_type': 'GDDR6', 'architecture': 'Ampere', 'chip': 'GA102', 'compute_capability': '8.6'},
    {'id': 'a2', 'nvml_names': ['NVIDIA A2'], 'pci_device_ids': ['25b6'], 'memory_gb': 16, 'memory_type': 'GDDR6', 'architecture': 'Ampere', 'chip': 'GA107', 'compute_capability': '8.6'},
    {'id': 'a10', 'nvml_names': ['NVIDIA A10'], 'pci_device_ids': ['2236'], 'memory_gb': 24, 'memory_type': 'GDDR6', 'architecture': 'Ampere', 'chip': 'GA102', 'compute_capability': '8.6'},
    {'id': 'a10g', 'nvml_names': ['NVIDIA A10G'], 'pci_device_ids': ['2237'], 'memory_gb': 24, 'memory_type': 'GDDR6', 'architecture': 'Ampere', 'chip': 'GA102', 'compute_capability': '8.6'},
    {'id': 'a16', 'nvml_names': ['NVIDIA A16'], 'pci_device_ids': ['25b6'], 'memory_gb': 16, 'memory_type': 'GDDR6', 'architecture': 'Ampere', 'chip': 'GA107', 'compute_capability': '8.6'},
    {'id': 'a30', 'nvml_names': ['NVIDIA A30'], 'pci_device_ids': ['20b7'], 'memory_gb': 24, 'memory_type': 'HBM2e', 'architecture': 'Ampere', 'chip': 'GA100', 'compute_capability': '8.0'},
    {'id': 'a40', 'nvml_names': ['NVIDIA A40'], 'pci_device_ids': ['2235'], 'memory_gb': 48, 'memory_type': 'GDDR6', 'architecture': 'Ampere', 'chip': 'GA102', 'compute_capability': '8.6'},
    {'id': 'a100-pcie-40gb', 'nvml_names': ['NVIDIA A100-PCIE-40GB'], 'pci_device_ids': ['20f1'], 'memory_gb': 40, 'memory_type': 'HBM2', 'architecture': 'Ampere', 'chip': 'GA100', 'compute_capability': '8.0'},
    {'id': 'a100-pcie-80gb', 'nvml_names': ['NVIDIA A100 80GB PCIe'], 'pci_device_ids': ['20b5'], 'memory_gb': 80, 'memory_type': 'HBM2e', 'architecture': 'Ampere', 'chip': 'GA100', 'compute_capability': '8.0'},
    {'id': 'a100-sxm4-40gb', 'nvml_names': ['NVIDIA A100-SXM4-40GB'], 'pci_device_ids': ['20b0'], 'memory_gb': 40, 'memory_type': 'HBM2', 'architecture': 'Ampere', 'chip': 'GA100', 'compute_capability': '8.0'},
    {'id': 'a100-sxm4-80gb', 'nvml_names': ['NVIDIA A100-SXM4-80GB'], 'pci_device_ids': ['20b2'], 'memory_gb': 80, 'memory_type': 'HBM2e', 'architecture': 'Ampere', 'chip': 'GA100', 'compute_capability': '8.0'},
    {'id': 'rtx-4060-ti-16gb', 'nvml_names': ['NVIDIA GeForce RTX 4060 Ti'], 'pci_device_ids': ['2805', '2803', '2788'], 'memory_gb': 16, 'memory_type': 'GDDR6', 'architecture': 'Ada Lovelace', 'chip': 'AD106', 'compute_capability': '8.9'},
    {'id': 'rtx-4080', 'nvml_names': ['NVIDIA GeForce RTX 4080'], 'pci_device_ids': ['2704'], 'memory_gb': 16, 'memory_type': 'GDDR6X', 'architecture': 'Ada Lovelace', 'chip': 'AD103', 'compute_capability': '8.9'},
    {'id': 'rtx-4090', 'nvml_names': ['NVIDIA GeForce RTX 4090'], 'pci_device_ids': ['2684'], 'memory_gb': 24, 'memory_type': 'GDDR6X', 'architecture': 'Ada Lovelace', 'chip': 'AD102', 'compute_capability': '8.9'},
    {'id': 'rtx-5000-ada', 'nvml_names': ['NVIDIA RTX 5000 Ada Generation'], 'pci_device_ids': ['26b2'], 'memory_gb': 32, 'memory_type': 'GDDR6', 'architecture': 'Ada Lovelace', 'chip': 'AD102', 'compute_capability': '8.9'},
    {'id': 'rtx-6000-ada', 'nvml_names': ['NVIDIA RTX 6000 Ada Generation'], 'pci_device_ids': ['26b1'], 'memory_gb': 48, 'memory_type': 'GDDR6', 'architecture': 'Ada Lovelace', 'chip': 'AD102', 'compute_capability': '8.9'},
    {'id': 'l4', 'nvml_names': ['NVIDIA L4'], 'pci_device_ids': ['27b8'], 'memory_gb': 24, 'memory_type': 'GDDR6', 'architecture': 'Ada Lovelace', 'chip': 'AD104', 'compute_capability': '8.9'},
    {'id': 'l20', 'nvml_names': ['NVIDIA L20'], 'pci_device_ids': ['26ba'], 'memory_gb': 48, 'memory_type': 'GDDR6', 'architecture': 'Ada Lovelace', 'chip': 'AD102', 'compute_capability': '8.9'},
    {'id': 'l40', 'nvml_names': ['NVIDIA L40'], 'pci_device_ids': ['26b5'], 'memory_gb': 48, 'memory_type': 'GDDR6', 'architecture': 'Ada Lovelace', 'chip': 'AD102', 'compute_capability': '8.9'},
    {'id': 'l40s', 'nvml_names': ['NVIDIA L40S'], 'pci_device_ids': ['26b9'], 'memory_gb': 48, 'memory_type': 'GDDR6', 'architecture': 'Ada Lovelace', 'chip': 'AD102', 'compute_capability': '8.9'},
    {'id': 'h100-pcie-80gb', 'nvml_names': ['NVIDIA H100 PCIe'], 'pci_device_ids': ['2331'], 'memory_gb': 80, 'memory_type': 'HBM2e', 'architecture': 'Hopper', 'chip': 'GH100', 'compute_capability': '9.0'},
    {'id': 'h100-sxm5-80gb', 'nvml_names': ['NVIDIA H100 80GB HBM3'], 'pci_device_ids': ['2330'], 'memory_gb': 80, 'memory_type': 'HBM3', 'architecture': 'Hopper', 'chip': 'GH100', 'compute_capability': '9.0'},
    {'id': 'h100-nvl-94gb', 'nvml_names': ['NVIDIA H100 NVL'], 'pci_device_ids': ['2321'], 'memory_gb': 94, 'memory_type': 'HBM3', 'architecture': 'Hopper', 'chip': 'GH100', 'compute_capability': '9.0'},
    {'id': 'h20-96gb', 'nvml_names': ['NVIDIA H20'], 'pci_device_ids': ['2329'], 'memory_gb': 96, 'memory_type': 'HBM3', 'architecture': 'Hopper', 'chip': 'GH100', 'compute_capability': '9.0'},
    {'id': 'h200-sxm-141gb', 'nvml_names': ['NVIDIA H200'], 'pci_device_ids': ['2335'], 'memory_gb': 141, 'memory_type': 'HBM3e', 'architecture': 'Hopper', 'chip': 'GH100', 'compute_capability': '9.0'},
    {'id': 'h200-nvl-141gb', 'nvml_names': ['NVIDIA H200 NVL'], 'pci_device_ids': ['233b'], 'memory_gb': 141, 'memory_type': 'HBM3e', 'architecture': 'Hopper', 'chip': 'GH100', 'compute_capability': '9.0'},
    {'id': 'gh200-96gb', 'nvml_names': ['NVIDIA GH200 480GB', 'NVIDIA GH200 120GB'], 'pci_device_ids': ['2342'], 'memory_gb': 96, 'memory_type': 'HBM3', 'architecture': 'Hopper', 'chip': 'GH100', 'compute_capability': '9.0'},
    {'id': 'gh200-144gb', 'nvml_names': ['NVIDIA GH200 144G HBM3e'], 'pci_device_ids': ['2348'], 'memory_gb': 144, 'memory_type': 'HBM3e', 'architecture': 'Hopper', 'chip': 'GH100', 'compute_capability': '9.0'},
    {'id': 'b200-sxm', 'nvml_names': ['NVIDIA B200'], 'pci_device_ids': ['2901'], 'memory_gb': 180, 'memory_type': 'HBM3e', 'architecture': 'Blackwell', 'chip': 'GB100', 'compute_capability': '10.0'},
    {'id': 'gb200', 'nvml_names': ['NVIDIA GB200'], 'pci_device_ids': ['2941'], 'memory_gb': 186, 'memory_type': 'HBM3e', 'architecture': 'Blackwell', 'chip': 'GB100', 'compute_capability': '10.0'},
    {'id': 'b300-sxm', 'nvml_names': ['NVIDIA B300 SXM6 AC'], 'pci_device_ids': ['3182'], 'memory_gb': 288, 'memory_type': 'HBM3e', 'architecture': 'Blackwell', 'chip': 'GB110', 'compute_capability': '10.3'},
    {'id': 'gb300', 'nvml_names': ['NVIDIA GB300'], 'pci_device_ids': ['31c2'], 'memory_gb': 288, 'memory_type': 'HBM3e', 'architecture': 'Blackwell', 'chip': 'GB110', 'compute_capability': '10.3'},
    {'id': 'rtx-5070-ti', 'nvml_names': ['NVIDIA GeForce RTX 5070 Ti'], 'pci_device_ids': ['2c05'], 'memory_gb': 16, 'memory_type': 'GDDR7', 'architecture': 'Blackwell', 'chip': 'GB203', 'compute_capability': '12.0'},
    {'id': 'rtx-5080', 'nvml_names': ['NVIDIA GeForce RTX 5080'], 'pci_device_ids': ['2c02'], 'memory_gb': 16, 'memory_type': 'GDDR7', 'architecture': 'Blackwell', 'chip': 'GB203', 'compute_capability': '12.0'},
    {'id': 'rtx-5090', 'nvml_names': ['NVIDIA GeForce RTX 5090'], 'pci_device_ids': ['2b85'], 'memory_gb': 32, 'memory_type': 'GDDR7', 'architecture': 'Blackwell', 'chip': 'GB202', 'compute_capability': '12.0'},
    {'id': 'rtx-pro-5000-blackwell', 'nvml_names': ['NVIDIA RTX PRO 5000 Blackwell', 'NVIDIA RTX PRO 5000 72GB Blackwell'], 'pci_device_ids': ['2bb3'], 'memory_gb': 48, 'memory_type': 'GDDR7', 'architecture': 'Blackwell', 'chip': 'GB202', 'compute_capability': '12.0'},
    {'id': 'rtx-pro-6000-blackwell-ws', 'nvml_names': ['NVIDIA RTX PRO 6000 Blackwell Workstation Edition'], 'pci_device_ids': ['2bb1'], 'memory_gb': 96, 'memory_type': 'GDDR7', 'architecture': 'Blackwell', 'chip': 'GB202', 'compute_capability': '12.0'},
    {'id': 'rtx-pro-6000-blackwell-maxq', 'nvml_names': ['NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition'], 'pci_device_ids': ['2bb4'], 'memory_gb': 96, 'memory_type': 'GDDR7', 'architecture': 'Blackwell', 'chip': 'GB202', 'compute_capability': '12.0'},
    {'id': 'rtx-pro-6000-blackwell-server', 'nvml_names': ['NVIDIA RTX PRO 6000 Blackwell Server Edition'], 'pci_device_ids': ['2bb5'], 'memory_gb': 96, 'memory_type': 'GDDR7', 'architecture': 'Blackwell', 'chip': 'GB202', 'compute_capability': '12.0'},
    {'id': 'gb10-dgx-spark', 'nvml_names': ['NVIDIA GB10'], 'pci_device_ids': ['2e12'], 'memory_gb': None, 'memory_type': 'LPDDR5X', 'architecture': 'Blackwell', 'chip': 'GB10', 'compute_capability': '12.1'},
]
