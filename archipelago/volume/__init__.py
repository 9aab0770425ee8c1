# SPDX-License-Identifier: Apache-2.0
"""What can be done with volumes, one capability per module.

They run in the control half of mapperd (see
`archipelago.control`), over `Store` (stored objects), `Headers` (names), `Maps` (the
native half) and `Leases`.
"""
