# SPDX-License-Identifier: Apache-2.0
"""The command ``vlmc``: volumes and snapshots of a running instance.

One module here is one command; `cli` lists them.
"""
