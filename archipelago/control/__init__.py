# SPDX-License-Identifier: Apache-2.0
"""The control half of mapperd: a service that owns headers, names and leases.

`ControlService` runs in threads of the mapperd process and answers the requests of
``docs/format/control.md``.
"""

from archipelago.control.service import ControlService

__all__ = ["ControlService"]
