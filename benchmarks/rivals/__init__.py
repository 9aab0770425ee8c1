# SPDX-License-Identifier: Apache-2.0
"""One file per rival: how to serve an image with it."""
