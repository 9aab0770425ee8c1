# SPDX-License-Identifier: Apache-2.0
"""The supervisor: the one process that owns an instance's segment and its peers.

Modules, in the order of a life: `launch` daemonises it, `lock` makes it the only one,
`ground` prepares directories, segment and listening sockets, `process` keeps one peer
process alive, `core` commands them all, `server` and `client` are the two ends of its
control socket, `status` says how things are, with or without a supervisor.
"""
