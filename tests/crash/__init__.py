# SPDX-License-Identifier: Apache-2.0
"""Power cuts, replayed: see docs/design/0002-crash-replay.md."""
