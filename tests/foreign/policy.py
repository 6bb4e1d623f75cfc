"""trust.toml for verify.py: whose key is believed and what evidence must show."""
import datetime
import pathlib
import tomllib

import authority
import gpu
import place
import tlog

REQUIRE = {"boundary", "object", "agent", "tiers", "boot_log", "ima", "software_tpm", "test_gpu_library",
           "audit", "uncovered", "max_gap_s", "max_lost", "max_clock_step_s", "max_age_s", "from", "to",
           "country", "region", "location_level", "pcr", "permit", "grant_to", "max_grant_bytes", "deputies",
           "deputy", "canary", "counters", "max_crash_epochs", "max_dark_joules", "idle_watts"}


class Usage(Exception):
    """The call or the trust policy has a fault."""


def instant(text):
    at = datetime.datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError("no time zone")
    return round(at.timestamp() * 1000)


def read_trust(path):
    many = lambda value: value if value is None or isinstance(value, list) else [value]
    policy = tomllib.loads(pathlib.Path(path).read_text())
    given = policy.get("require", {})
    unknown = set(policy) - {"version", "node", "require", "log", "authority", "gpu", "location", "landmark", "cloud"} | set(given) - REQUIRE
    if unknown or policy.get("version") != 1:
        raise Usage(f"unknown key or version: {sorted(unknown)}")
    require = {"tiers": [], "boot_log": False, "ima": False, "software_tpm": False, "test_gpu_library": False,
               "audit": False, "uncovered": True, "max_gap_s": 120, "max_lost": 0, "max_clock_step_s": 60,
               "max_age_s": None, "location_level": "L0", "max_grant_bytes": None, "deputies": "any", "canary": False,
               "counters": False, "max_crash_epochs": 1 << 64, "max_dark_joules": None, "idle_watts": None, **given}
    for key in ("boundary", "object", "agent", "country", "region", "permit", "grant_to", "deputy"):
        require[key] = many(given.get(key))
    for key in ("boundary", "object", "agent"):
        require[key] = require[key] and [digest.lower() for digest in require[key]]
    require["permit"] = require["permit"] or []
    require["pcr"] = {register: many(value) for register, value in given.get("pcr", {}).items()}
    for key in ("from", "to"):
        require[key] = instant(given[key]) if key in given else None
    folder = pathlib.Path(path).parent
    require["authority"] = authority.read(policy["authority"], folder, Usage) if "authority" in policy else None
    require["gpu"] = gpu.read(policy["gpu"], folder, Usage) if "gpu" in policy else None
    require["place"] = place.read(policy, folder, Usage)
    require["log"] = tlog.read_policy(policy["log"], folder, Usage) if "log" in policy else None
    return {one["id"]: bytes.fromhex(one["ak_name"]) for one in policy.get("node", [])}, require
