# SPDX-License-Identifier: Apache-2.0
"""Benchmarks: Archipelago beside what one would use instead, in one run."""
