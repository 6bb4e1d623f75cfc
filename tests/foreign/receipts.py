"""Receipts, as docs/formats/receipt.cddl and docs/records.md have them; part of verify.py."""
import pathlib

import cose
import pycddl
from structures import sha256
from tree import leaf_hash

UNTRUSTED, FAILED, INDETERMINATE = 1, 2, 3
CDDL = (pathlib.Path(__file__).parents[2] / "docs/formats/receipt.cddl").read_text()
CLAIMS = pycddl.Schema("root = claims\n" + CDDL.replace(" .cbor protected", "").replace(" .cbor claims", ""))


def opened(message, sessions):
    """The claims of a receipt, after its signature held, and the place of the session that signed."""
    place, payload = cose.opened(message, "receipt", [session["statement"][5] for session in sessions])
    return cose.claims_of(payload, CLAIMS), place


def receipt_id(record, hashed):
    if record[1] == 1 and record[19]:
        return sha256(b"merestone/amendment/v1" + record[0] + hashed)[:16]
    return record[0]


def sealer(index, sessions):
    for place, session in enumerate(sessions):
        for epoch in session["epochs"]:
            if epoch["statement"][7] <= index < epoch["statement"][8]:
                return place, epoch["statement"]
    return None


def graded(record):
    """What is wrong with a record's grade."""
    bound, told = 20 in record, record[13] == "told"
    if record[1] == 2:
        return not bound or (21 in record) == told
    return bound or 21 in record or told


def untimely(record):
    """Whether counts or readings are not of the time of a record, or of a GPU that it does not name."""
    apart = lambda start, end, reaches: start > record[2] + 60_000 or end + 60_000 < reaches
    sent, used = record.get(18), record.get(23, ())
    return (sent is not None and apart(sent[0], sent[1], record[4])
            or any(apart(one[1], one[2], record[2]) or one[0] >= len(record[17]) for one in used))


def fits(records, tally):
    turns = {}
    for record in records:
        if untimely(record):
            tally.note(FAILED, "receipts", "counts of another time, or of a GPU that is not named")
        if graded(record):
            tally.note(FAILED, "receipts", "a record is not of its grade")
        if (onward := record.get(22)) is not None:
            if 21 not in record:
                tally.note(FAILED, "receipts", "passed on, and the kernel saw nobody ask")
            where = (record[7], onward[6], onward[7], onward[8])
            turns.setdefault(onward[0], []).append((onward[9], True, where))
        turn = record[0] if record[1] == 1 else record.get(21)
        if turn is not None and record[13] in ("http/1", "http/2 stream"):
            where = (record[7], record[9], record[10], record[11])
            turns.setdefault(turn, []).append((record[19], record[1] == 2, where))
    for entries in turns.values():
        firsts = sum(not amends for amends, _, _ in entries)
        bound = sum(is_bound for _, is_bound, _ in entries)
        where = {where for _, _, where in entries}
        if firsts > 1 or bound > 1 or len(where) > 1:
            tally.note(FAILED, "receipts", "entries of one turn contradict each other")


def held(claims, leaf, entry, name, session, tally):
    record = entry[3][1][0] if entry[3][0] == 16 else None
    tally.need(record is not None, "receipts", "not a record")
    bound = record.get(20, {})
    wanted = {6: entry[1] // 1000, 7: receipt_id(record, leaf_hash(leaf)), -65537: session["statement"][2],
              256: b"\x01" + sha256(b"merestone/ueid/v1" + name), 265: "urn:merestone:receipt:v1",
              -65538: claims[-65538], -65539: leaf_hash(leaf), -65540: record[1],
              **{key: bound[at] for at, key in enumerate((-65541, -65542, -65543, -65544)) if at in bound}}
    wanted |= {10: claims[10]} if 10 in claims else {}
    tally.need(claims == wanted, "receipts", "it says something else than its leaf")


def check(bundle, sessions, span, leeway, decode, tally):
    leaves = {proof[0]: proof[2] for proof in bundle[9]}
    if span is not None:
        leaves |= dict(enumerate(bundle[7][2], span[0]))
    entries = {at: decode("entry", leaf, tally, "log.entries") for at, leaf in leaves.items()}
    fits([entry[3][1][0] for entry in entries.values() if entry[3][0] == 16], tally)
    ids, seen = set(), set()
    for message in bundle.get(13, ()):
        try:
            claims, place = opened(message, sessions)
        except ValueError as error:
            tally.stop(UNTRUSTED, "receipts", str(error))
        index, session = claims[-65538], sessions[place]
        tally.need(claims[-65537] == session["statement"][2], "receipts", "another session")
        tally.need(claims[7] not in ids and index not in seen, "receipts", "twice")
        ids.add(claims[7])
        seen.add(index)
        found = sealer(index, sessions)
        if found is None or index not in leaves:
            tally.note(INDETERMINATE, "receipts", f"leaf {index} is not sealed or not shown")
            continue
        held(claims, leaves[index], entries[index], b"\x00\x0b" + sha256(bundle[5]), session, tally)
        own, epoch = found
        tally.need(own == place or own > place and epoch[3] == 0, "receipts", "sealed by another session")
        opens = epoch[5] if own == place else session["statement"][4]
        inside = max(0, opens - leeway) <= entries[index][1] <= epoch[6] + leeway
        tally.need(inside, "receipts", "issued outside its epoch")
