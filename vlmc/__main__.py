# SPDX-License-Identifier: Apache-2.0
"""``python -m vlmc`` is ``vlmc``."""

from __future__ import annotations

from vlmc.cli import main

if __name__ == "__main__":
    main()
