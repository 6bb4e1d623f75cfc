"""What the log tells of enforcement itself, for verify.py: tamper, break-glass, grants, deputies, canary.

From docs/formats/checks.md, "What the log tells of enforcement". Each function notes faults; the
first also returns the time in which enforcement is not shown, which is a gap in the coverage.
"""
import ipaddress

FAILED, INDETERMINATE = 2, 3
BOUNDARY, TAMPER, CANARY, GRANT, GLASS, FOUND, DEPUTY = 5, 10, 11, 12, 13, 14, 15
UNSIGNED = bytes(32)


def placed(sessions, start, entries):
    """Entries with session and epoch: (session, opened, time, kind, body)."""
    epochs = [(session, epoch["statement"]) for session in sessions for epoch in session["epochs"]]
    out, at = [], 0
    for index, entry in enumerate(entries, start):
        while at < len(epochs) and epochs[at][1][8] <= index:
            at += 1
        if at < len(epochs):
            out.append((epochs[at][0], epochs[at][1][5], entry[1], *entry[3]))
    return out


def glass(scene, whole, tally):
    """Openings: [token, from, until, closed]."""
    openings, is_open, spent = [], False, set()

    def fault(why):
        tally.note(FAILED, "break_glass", why)

    for _, _, time, kind, body in scene:
        if kind != GLASS or body[1] == "refused":
            continue
        token, state, until = body[0], body[1], body[3]
        last = openings[-1] if openings and is_open else None
        if state == "opened":
            if last and last["token"] == token and time <= last["until"]:
                last["until"] = max(last["until"], until)
                continue
            if last:
                last["closed"] = min(time, last["until"])
                spent.add(last["token"])
            if token != UNSIGNED and token in spent:
                fault("a token opened twice")
            is_open = True
            openings.append({"token": token, "from": time, "until": until, "closed": None})
        elif state == "closed":
            spent.add(token)
            if last and last["token"] == token:
                last["closed"], is_open = min(time, last["until"]), False
                continue
            if whole:
                fault("closed and never opened")
            is_open = False
            openings.append({"token": token, "from": None, "until": until, "closed": time})
        else:
            fault(f"state {state}")
    return openings


def tampering(sessions, scene, whole, openings, require, tally):
    leeway, installed, unkept, unexplained = 1000 * require["max_clock_step_s"], None, [], 0

    def is_open(time):
        return any((one["from"] or 0) - leeway <= time <= (one["until"] if one["closed"] is None else one["closed"])
                   + leeway for one in openings)

    for session, opened, time, kind, body in scene:
        number = sessions.index(session)
        before = sessions[number - 1] if number else None
        if kind == BOUNDARY and body[3]:
            installed = (number, time)
        elif kind == FOUND:
            if before and body[0] == "boot" and before["said"]["resets"] == session["said"]["resets"]:
                tally.note(FAILED, "tamper", "started anew without its tpm")
            if not body[1] and body[0] not in ("boot", "agent_gap", "agent_end"):
                ended = before["epochs"][-1]["statement"][6] if before and before["epochs"] else None
                unkept.append((session["statement"][4] if ended is None else ended, time))
        elif kind == TAMPER and not body[1] and body[2] == "watch":
            start = opened
            if body[0] == "boundary":
                start = installed[1] if installed and installed[0] == number else session["statement"][4]
            end = time if body.get(6) is True else max(time, session["epochs"][-1]["statement"][6])
            unkept.append((start, end))
        elif kind == TAMPER and not body[1] and not is_open(time):
            unexplained += 1
    if unexplained and whole:
        tally.note(FAILED, "tamper", "let through, with no opening shown")
    if unkept and "tamper" not in require["permit"]:
        tally.note(FAILED, "tamper", f"not kept: {unkept[:3]}")
    elif unexplained and not whole:
        tally.note(INDETERMINATE, "tamper", "let through; an opening may stand before the first leaf")
    return unkept


def granted(scene, whole, require, tally):
    leeway, grants = 1000 * require["max_clock_step_s"], {}

    def fault(why):
        tally.note(FAILED, "grants", why)

    for _, _, time, kind, body in scene:
        if kind != GRANT or body[2] == "refused":
            continue
        state, total, terms = body[2], body[3], body.get(5)
        if state not in ("accepted", "used", "spent", "expired", "revoked"):
            fault(f"state {state}")
            continue
        is_new = body[1] not in grants
        grant = grants.setdefault(body[1], {"bytes": 0, "terms": None, "state": ""})
        if state == "accepted" and not is_new:
            fault("accepted twice")
        if state != "accepted" and is_new and whole:
            fault("never accepted")
        if terms and grant["terms"] and terms != grant["terms"]:
            fault("other terms")
        grant["terms"] = grant["terms"] or terms
        before, signed = grant["bytes"], grant["terms"]
        if total < before or grant["state"] in ("expired", "revoked") and total > before:
            fault("counted back, or used after its end")
        if signed and total > signed[5]:
            fault("beyond its bytes")
        if signed and total > before and (state in ("used", "spent") and time > signed[7] + leeway
                                          or time + leeway < signed[6]):
            fault("outside its time")
        grant["bytes"], grant["state"] = max(total, before), state
    named = require["grant_to"] is not None or require["max_grant_bytes"] is not None
    if grants and not named and "grants" not in require["permit"]:
        fault("in force and not permitted")
    for grant in grants.values():
        if grant["terms"] is None:
            tally.note(INDETERMINATE, "grants", "terms are not told")
        elif require["grant_to"] is not None and not any(
                holds(network, grant["terms"][2]) for network in require["grant_to"]):
            fault(f"to {grant['terms'][2]}")
    if require["max_grant_bytes"] is not None and sum(g["bytes"] for g in grants.values()) > require["max_grant_bytes"]:
        fault("too many bytes")


def holds(wide, text):
    try:
        wide, narrow = ipaddress.ip_network(wide), ipaddress.ip_network(text)
    except ValueError:
        return False
    mapped = ipaddress.ip_network("::ffff:0:0/96")
    if wide.version == 6 and narrow.version == 4:
        return wide.supernet_of(mapped) or wide == mapped
    return wide.version == narrow.version and wide.supernet_of(narrow)


def asked(scene, require, tally):
    reached = {body[4].split(" of ")[0] for _, _, _, kind, body in scene if kind == DEPUTY and not body[0]}
    allowed = {"any": reached, "none": set(), "listed": set(require["deputy"] or [])}[require["deputies"]]
    if reached - allowed:
        tally.note(FAILED, "deputies", str(reached - allowed))


def tried(sessions, scene, require, tally):
    leeway, without, held, escaped = 1000 * require["max_clock_step_s"], 0, 0, False

    def fault(why):
        tally.note(FAILED, "canary", why)

    for session in sessions:
        names, last = set(), None
        for own in (epoch["statement"] for epoch in session["epochs"]):
            if 21 not in own:
                without += 1
                continue
            last = own[21]
            vectors = set(last[6])
            escaped |= last[3] > 0 or bool(vectors)
            if last[1] != last[2] + last[3] + last[4] + last[7] or (5 in last) != (last[1] > 0):
                fault("numbers do not agree")
            if len(vectors) > last[3] or len(vectors) != len(last[6]) or not names <= vectors:
                fault("names do not agree")
            if last.get(5, 0) > own[6] + leeway:
                fault("a try of the future")
            idle = own[6] - last.get(5, session["statement"][4]) > 300_000
            if require["canary"] and (idle or not last[8] and last[1] > 0):
                fault("asleep or not guarded")
            names = vectors
        held += last[2] if last else 0
    if escaped or any(kind == CANARY and body[2] == "escaped" for _, _, _, kind, body in scene):
        fault("escaped")
    epochs = sum(len(session["epochs"]) for session in sessions)
    if require["canary"] and (without or not epochs or not held):
        tally.note(INDETERMINATE, "canary", "absent, or nothing held")


def check(sessions, span, period, require, tally):
    """Faults of all of it; returns unkept stretches. `span` is (start, entries) or None."""
    start, entries = span or (0, [])
    whole = span is not None and start == 0
    scene = placed(sessions, start, entries)
    quiet = type(tally)()
    openings = glass(scene, whole, tally if period else quiet)
    unkept = tampering(sessions, scene, whole, openings, require, tally if period else quiet)
    if period:
        words = {bool(any(one["token"])) for one in openings}
        for signed, word in ((True, "break_glass"), (False, "break_glass_unsigned")):
            if signed in words and word not in require["permit"]:
                tally.note(FAILED, "break_glass", f"{word} is not permitted")
        granted(scene, whole, require, tally)
        asked(scene, require, tally)
    tried(sessions, scene, require, tally)
    return unkept
