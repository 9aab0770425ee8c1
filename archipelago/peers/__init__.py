# SPDX-License-Identifier: Apache-2.0
"""Peer processes: ``python -m archipelago.peers ROLE...`` runs some roles in one."""
