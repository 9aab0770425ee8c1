# SPDX-License-Identifier: Apache-2.0
"""Images in and out of a running instance: this is client-side code."""
