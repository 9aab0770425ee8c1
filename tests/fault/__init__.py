# SPDX-License-Identifier: Apache-2.0
"""Storage that fails: every call once, a full disk, damaged bytes."""
