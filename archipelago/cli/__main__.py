# SPDX-License-Identifier: Apache-2.0
"""``python -m archipelago.cli`` is ``archipelago``."""

from __future__ import annotations

from archipelago.cli import main

if __name__ == "__main__":
    main()
