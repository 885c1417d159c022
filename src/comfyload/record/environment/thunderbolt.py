"""Devices connected by Thunderbolt or USB4, from Linux: an external GPU's enclosure, and its link."""

import re
from pathlib import Path

from comfyload.record.model import Environment, Fact

DEVICES = Path("/sys/bus/thunderbolt/devices")

FILES = ("vendor_name", "device_name", "authorized", "generation", "rx_speed", "tx_speed", "rx_lanes", "tx_lanes")


def enclosure_facts(devices: Path = DEVICES) -> Environment:
    """`enclosure.N.vendor` and so on of each connected device; only `enclosure` without one."""
    try:
        names = sorted(path.name for path in devices.iterdir())
    except OSError:
        return {"enclosure": Fact(source="sysfs shows no Thunderbolt or USB4 bus")}
    # A device is DOMAIN-ROUTE; route 0 is the computer's own controller, the rest are ports and retimers.
    connected = [name for name in names if re.fullmatch(r"\d+-[0-9a-f]+", name) and not name.endswith("-0")]
    if not connected:
        return {"enclosure": Fact(value="none", source="sysfs: nothing is connected by Thunderbolt or USB4")}
    facts: Environment = {}
    for number, name in enumerate(connected):
        for file in FILES:
            key = f"enclosure.{number}.{file.removesuffix('_name')}"
            try:
                text = (devices / name / file).read_text(encoding="utf-8", errors="replace").strip()
            except OSError as error:
                facts[key] = Fact(source=f"sysfs: {file}: {error.strerror or error}")
                continue
            facts[key] = Fact(value=text, source="sysfs")
    return facts
