# SPDX-License-Identifier: Apache-2.0
"""Cython declarations of libarchipelago."""
