# SPDX-License-Identifier: Apache-2.0
"""A disk's life, led by Ganeti's own code; run by the system's Python.

Usage: python3 ganeti_driver.py PROVIDERS LOGS DISK

Ganeti's modules are found through PYTHONPATH.  Prints what was seen, as JSON.
"""

import json
import os
import sys

from ganeti.storage import extstorage

from ganeti import pathutils

providers, logs, name = sys.argv[1:]
pathutils.ES_SEARCH_PATH = [providers]
pathutils.LOG_ES_DIR = logs

unique_id = ("archipelago", name)
params = {"origin": "golden"}
known = {"name": "root", "uuid": "a-uuid"}
seen: dict[str, object] = {}

valid, provider = extstorage.ExtStorageFromDisk("archipelago")
seen["valid"] = valid
disk = extstorage.ExtStorageDevice.Create(
    unique_id, [], 64, None, params, False, {}, **known
)
seen["attached"] = disk.attached
seen["device"] = disk.dev_path
disk.Open()
disk.SetInfo("originstname+web1")
with open(disk.dev_path, "r+b", buffering=0) as device:
    seen["begins"] = device.read(6).decode()
    device.seek(0)
    device.write(b"ganeti" + bytes(4090))
disk.Grow(64, False, True, False)
disk.size = 128  # as the master does
seen["uri"] = disk.GetUserspaceAccessUri("kvm")
driver, snapshot = disk.Snapshot()
seen["snapshot"] = snapshot
disk.Close()
disk.Shutdown()
seen["gone"] = not os.path.exists(str(seen["device"]))
again = extstorage.ExtStorageDevice(unique_id, [], 128, params, {}, **known)
with open(again.dev_path, "rb") as device:
    seen["kept"] = device.read(6).decode()
    seen["size"] = device.seek(0, os.SEEK_END)
again.Remove()
print(json.dumps(seen))
