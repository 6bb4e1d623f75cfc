"""Counters in the TPM's memory for verify.py: nv.certified and log.tail of docs/formats/checks.md."""
from cryptography.exceptions import InvalidSignature
from structures import Wire, sha256

UNTRUSTED, FAILED, INDETERMINATE = 1, 2, 3
OTHER_WRITERS, CLEAR_STCLEAR, ORDERLY = 0b1011, 1 << 27, 1 << 26
AUTHWRITE, WRITTEN = 1 << 2, 1 << 29


def public_of(data):
    """TPMS_NV_PUBLIC (TPM 2.0 Library, Part 2, 13.5): handle, attributes, policy, size."""
    wire = Wire(data)
    index = wire.number(4)
    if wire.number(2) != 0x000B:
        raise ValueError("name algorithm")
    attributes, policy, size = wire.number(4), wire.sized(64), wire.number(2)
    wire.end()
    return index, attributes, policy, size


def certification_of(data):
    """TPMS_ATTEST of TPM2_NV_Certify (10.12)."""
    wire = Wire(data)
    if wire.number(4) != 0xFF544347 or wire.number(2) != 0x8014:
        raise ValueError("magic or type")
    wire.sized(66)
    extra, clock, resets = wire.sized(66), wire.number(8), wire.number(4)
    wire.number(4)
    if wire.number(1) > 1:
        raise ValueError("safe")
    wire.number(8)
    name, offset, contents = wire.sized(66), wire.number(2), wire.sized(2048)
    wire.end()
    return extra, clock, resets, name, offset, contents


def declared(statement, enrolled):
    """Name to role and size of each index of a session; ValueError for one that is unfit or not as enrolled."""
    counters, found, indices = statement.get(21, {}), {}, set()
    held = [("epochs", counters.get(0, {}).get(0)), ("sessions", counters.get(1, {}).get(0)),
            ("geotag", statement.get(23))]
    for role, one in held:
        if one is None:
            continue
        index, attributes, policy, size = public_of(one[1])
        if role != "geotag":
            refused = OTHER_WRITERS | CLEAR_STCLEAR | (ORDERLY if role == "sessions" else 0)
            wanted = AUTHWRITE | WRITTEN
            if attributes & (wanted | refused) != wanted or attributes >> 4 & 15 != 1 or policy or size != 8:
                raise ValueError(f"not a counter: {attributes:#010x}")
        if index in indices:
            raise ValueError("the same index twice")
        indices.add(index)
        name = b"\x00\x0b" + sha256(one[1])
        if enrolled.get(index, {name}) != {name}:
            raise ValueError("another index than the enrolled one")
        found[name] = role, size
    return found


def held_in(certifications, indices, verify, want, said):
    """Role to value, of a geotag to its bytes."""
    found = {}
    for one in certifications or ():
        try:
            verify(one[1], one[0])
        except InvalidSignature as error:
            raise ValueError("signature") from error
        extra, clock, resets, name, offset, contents = certification_of(one[0])
        if extra != want or name not in indices:
            raise ValueError("for something else, or of another index")
        role, size = indices[name]
        if offset != 0 or len(contents) != size or role in found:
            raise ValueError("a part, or twice")
        if (resets, clock if resets == said["resets"] else 0) < (said["resets"], said["clock"] if resets == said["resets"] else 0):
            raise ValueError("older than its quote")
        found[role] = contents
    return {role: held if role == "geotag" else int.from_bytes(held) for role, held in found.items()}


def certified(bundle, sessions, vouched, verify, tally):
    enrolled = {}
    for claims, _ in vouched:
        for one in claims[9]:
            enrolled.setdefault(one[0], set()).add(one[1])
    try:
        for sealed, session in zip(bundle[6], sessions):
            indices = declared(session["statement"], enrolled)
            said = session["said"]
            session["nv_start"] = held_in(sealed.get(5), indices, verify, said["statement"], said)
            for one, epoch in zip(sealed[4], session["epochs"]):
                said = epoch["said"]
                epoch["nv"] = held_in(one.get(2), indices, verify, said["statement"], said)
            end = sha256(b"merestone/session-end/v1" + said["statement"])
            session["nv_end"] = held_in(sealed[6], indices, verify, end, said) if 6 in sealed else None
    except ValueError as error:
        tally.stop(UNTRUSTED, "nv.certified", str(error))


def tail(bundle, sessions, require, tally):
    faults, known, crashes, uncounted = [], None, [], False

    def within(what, got, low, high):
        if got < low:
            faults.append((UNTRUSTED, f"{what}: {got} after {low}"))
        elif got > high:
            faults.append((FAILED, f"{what}: {got}, shown {high}"))

    for session in sessions:
        counters = session["statement"].get(21, {})
        if 0 not in counters or 1 not in counters:
            uncounted = True
            continue
        epochs, count = counters[0][1], counters[1][1]
        if known is not None:
            within("sessions", count, *known["sessions"])
            low, high = known["epochs"]
            jump = not known["ended"] and epochs & 255 == 255
            crashed = session["said"]["resets"] > known["resets"] and (jump or not session["said"]["safe"])
            ahead = epochs - high
            orderly = public_of(counters[0][0][1])[1] & ORDERLY
            if 0 < ahead <= 255 and crashed and orderly:
                crashes.append(ahead)
            else:
                within("epochs", epochs, low, high)
        start = session["nv_start"]
        known = {"epochs": (epochs, epochs), "sessions": (count, count + 1)}
        if "sessions" in start and "epochs" in start:
            within("sessions", start["sessions"], count + 1, count + 1)
            within("epochs", start["epochs"], epochs, epochs)
            known["sessions"] = (start["sessions"],) * 2
        elif session["epochs"]:
            faults.append((FAILED, "no certification at the start"))
        for epoch in session["epochs"]:
            own = epoch["statement"].get(23)
            if own is None:
                faults.append((FAILED, "an epoch was not counted"))
                continue
            within("epochs", own, known["epochs"][1] + 1, known["epochs"][1] + 1)
            value = epoch["nv"].get("epochs")
            if value is not None:
                within("epochs", value, own, own)
            known["epochs"] = (own - 1, own) if value is None else (value, value)
        end = (session["nv_end"] or {}).get("sessions")
        if end is not None:
            within("sessions", end, known["sessions"][1] + 1, known["sessions"][1] + 1)
            known["sessions"] = (end, end)
        known["ended"] = end is not None
        known["resets"] = (session["epochs"] or [session])[-1]["said"]["resets"]
    for grade, why in faults:
        tally.note(grade, "log.tail", why)
    if sum(crashes) > require["max_crash_epochs"]:
        tally.note(FAILED, "log.tail", f"{sum(crashes)} epochs may be missing")
    last = sessions[-1]
    open_end = bool(last["epochs"]) and "epochs" in last["epochs"][-1]["nv"] and last["epochs"][-1]["statement"][6] >= bundle[3]
    if not faults and require["counters"] and (uncounted or "sessions" not in (last["nv_end"] or {}) and not open_end):
        tally.note(INDETERMINATE, "log.tail", "not counted, or no certified end")
