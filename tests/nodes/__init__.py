# SPDX-License-Identifier: Apache-2.0
"""Several nodes on one store: who writes what, and what must never be seen again."""
