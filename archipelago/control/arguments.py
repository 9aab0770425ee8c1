# SPDX-License-Identifier: Apache-2.0
"""Arguments of control requests: JSON from another process, checked."""

from __future__ import annotations

import json
from typing import Any

from archipelago.errors import UsageError
from archipelago.ids import parse_uuid

#: Most arguments of one request [bytes].
ARGUMENTS_MAX_BYTES = 4 << 20


class Arguments:
    """The JSON object of one request.

    Args:
        raw: its UTF-8 text; empty means no arguments.

    Raises:
        UsageError: it is no JSON object.
    """

    def __init__(self, raw: bytes) -> None:
        try:
            members = json.loads(raw) if raw else {}
        except (ValueError, RecursionError) as error:
            raise UsageError(f"the arguments are not JSON: {error}") from None
        if not isinstance(members, dict):
            raise UsageError("the arguments are not a JSON object")
        self._members: dict[str, Any] = members

    def text(self, key: str, default: str | None = None) -> str:
        """A string; required without a default."""
        value = self._get(key, "text", default)
        if not isinstance(value, str):
            raise _wrong(key, "text", value)
        return value

    def number(self, key: str, default: int | None = None) -> int:
        """A whole number; required without a default."""
        value = self._get(key, "a whole number", default)
        if not isinstance(value, int) or isinstance(value, bool):
            raise _wrong(key, "a whole number", value)
        return value

    def optional_number(self, key: str) -> int | None:
        """A whole number, or None if it is absent or null."""
        return None if self._members.get(key) is None else self.number(key)

    def flag(self, key: str, default: bool = False) -> bool:
        """True or false."""
        value = self._get(key, "true or false", default)
        if not isinstance(value, bool):
            raise _wrong(key, "true or false", value)
        return value

    def wants(self, key: str) -> bool:
        """Whether a flag is set; what is no flag is refused later."""
        return self._members.get(key) is True

    def optional_uuid(self, key: str) -> bytes | None:
        """A uuid of 36 characters, or None if it is absent or null."""
        return None if self._members.get(key) is None else parse_uuid(self.text(key))

    def texts(self, key: str) -> list[str]:
        """A list of strings."""
        value = self._members.get(key)
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
            raise UsageError(f'the argument "{key}" is a list of texts')
        return value

    def _get(self, key: str, what: str, default: Any) -> Any:
        value = self._members.get(key)
        if value is not None:
            return value
        if default is None:
            raise UsageError(f'the argument "{key}" is missing: give {what}')
        return default


def _wrong(key: str, what: str, value: object) -> UsageError:
    return UsageError(f'the argument "{key}" is {what}, not {value!r}')
