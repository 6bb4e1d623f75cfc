"""CBOR for verify.py: one deterministic item of the type that docs/formats/evidence.cddl gives it."""
import pathlib
import re

import cbor2
import pycddl

CDDL = pathlib.Path(__file__).parents[2] / "docs/formats/evidence.cddl"
HIDDEN = re.compile(r" \.cbor [a-z-]+")  # what is inside is decoded after its signature, not before
UNTRUSTED = 1


class Stop(Exception):
    """Nothing after this makes sense."""


def schema(root):
    text = HIDDEN.sub("", CDDL.read_text())
    return pycddl.Schema(f"root = {root}\n{text}")


SCHEMAS = {root: schema(root) for root in ("bundle", "session-statement", "epoch-statement", "entry")}
LIMITS = {"bundle": (512 << 20, 10), "session-statement": (256 << 10, 6), "epoch-statement": (256 << 10, 6),
          "entry": (64 << 10, 8)}


def depth(item):
    """Levels of nesting; refuses what is not used here, also where a CDDL tool would let it through."""
    if isinstance(item, (dict, list)):
        return 1 + max(map(depth, item.values() if isinstance(item, dict) else item), default=0)
    if isinstance(item, (bool, str, bytes)) or isinstance(item, int) and -1 << 64 <= item < 1 << 64:
        return 0
    raise ValueError(f"a {type(item).__name__} is not used here")


def decode(root, data, tally, check):
    size, deepest = LIMITS[root]
    tally.need(len(data) <= size, check, f"{root}: too long")
    try:
        item = cbor2.loads(data)
        tally.need(depth(item) <= deepest, check, f"{root}: too deep")
        tally.need(cbor2.dumps(item, canonical=True) == data, check, f"{root}: not deterministic")
        SCHEMAS[root].validate_cbor(data)
    except Stop:
        raise
    except RecursionError:
        tally.stop(UNTRUSTED, check, f"{root}: too deep")
    except Exception as error:  # whatever a foreign library raises on foreign bytes
        tally.stop(UNTRUSTED, check, f"{root}: {type(error).__name__}: {str(error)[:200]}")
    return item
