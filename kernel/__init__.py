# SPDX-License-Identifier: Apache-2.0
"""Everything that meets the kernel's block layer: probe, FUSE mounts, loop devices.

These modules know paths and devices, not volumes, and import nothing of the project.
"""
