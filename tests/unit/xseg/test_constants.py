# SPDX-License-Identifier: Apache-2.0
"""The Python numbers are the C numbers."""

from __future__ import annotations

from enum import IntEnum, IntFlag

import pytest

from xseg import constants, payload
from xseg._layout import c_values

C = c_values()

ENUMS: dict[type[IntEnum] | type[IntFlag], str] = {
    constants.Op: "XSEG_OP_",
    constants.Flag: "XSEG_F_",
    constants.RequestState: "XSEG_RS_",
    constants.ObjectKind: "XSEG_OBJ_",
    constants.Reference: "XSEG_REF_",
    constants.RunFlag: "XSEG_RUN_",
    constants.VolumeFlag: "XSEG_VOL_",
    constants.UserFlag: "XSEG_USER_",
    constants.LeaseFlag: "XSEG_LEASE_",
}
SIZES = {
    payload.ObjectName: "xseg_object",
    payload.Run: "xseg_run",
    payload.VolumeInfo: "xseg_volume_info",
    payload.Failure: "xseg_failure",
    payload.VolumeUser: "xseg_volume_user",
    payload.ObjectInfo: "xseg_object_info",
    payload.ListEntry: "xseg_list_entry",
    payload.Lease: "xseg_lease",
    payload.Presence: "xseg_presence",
    payload.JournalInfo: "xseg_journal_info",
    payload.MapInfo: "xseg_map_info",
    payload.Versioned: "xseg_versioned",
}


@pytest.mark.parametrize(("enum", "prefix"), ENUMS.items())
def test_an_enum_has_exactly_the_members_of_its_c_enum(
    enum: type[IntEnum] | type[IntFlag], prefix: str
) -> None:
    assert {m.name: int(m) for m in enum} == {
        name.removeprefix(prefix): value
        for name, value in C.items()
        if name.startswith(prefix)
    }


def test_port_states_are_those_of_c() -> None:
    for state in constants.PortState:
        assert C[f"XSEG_PORT_{state.name}"] == state


@pytest.mark.parametrize(
    "name",
    [n for n in dir(constants) if n.startswith("PORT_") or f"XSEG_{n}" in C],
)
def test_a_number_is_that_of_c(name: str) -> None:
    assert C[f"XSEG_{name}"] == getattr(constants, name)


def test_every_port_of_c_is_here() -> None:
    states = {f"XSEG_PORT_{s.name}" for s in constants.PortState}
    for name in C:
        if name.startswith("XSEG_PORT_") and name not in states:
            assert hasattr(constants, name.removeprefix("XSEG_"))


@pytest.mark.parametrize(("record", "struct"), SIZES.items())
def test_a_record_has_the_size_of_its_struct(record: type, struct: str) -> None:
    assert record.LAYOUT.size == C[f"sizeof {struct}"]  # type: ignore[attr-defined]


def test_ops_end_where_c_says() -> None:
    assert max(constants.Op) + 1 == C["XSEG_NR_OPS"]
    assert max(constants.ObjectKind) + 1 == C["XSEG_NR_OBJECT_KINDS"]
