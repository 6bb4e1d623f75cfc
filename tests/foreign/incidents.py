"""What the log tells of enforcement, judged for verify.py as docs/formats/checks.md has it."""
import ipaddress

FAILED, INDETERMINATE = 2, 3
PERMITS = {"tamper", "break_glass", "break_glass_unsigned", "grants"}
STALE_MS = 300_000


class Scene:
    """Entries of the span as (session, when its epoch opened, time, body number, body)."""

    def __init__(self, bundle, sessions, require, decode):
        self.sessions = sessions
        start, leaves = (bundle[7][0], bundle[7][2]) if 7 in bundle else (0, [])
        self.whole = 7 in bundle and start == 0
        self.leeway = 1000 * require["max_clock_step_s"]
        places = [(number, epoch["statement"]) for number, session in enumerate(sessions)
                  for epoch in session["epochs"]]
        self.entries = []
        for index, leaf in enumerate(leaves, start):
            entry = decode(leaf)
            number, own = next(place for place in places if index < place[1][8])
            self.entries.append((number, own[5], entry[1], *entry[3]))


def end_of(session, otherwise):
    return session["epochs"][-1]["statement"][6] if session["epochs"] else otherwise


def unproven(scene):
    """Stretches in which enforcement is not shown."""
    stretches, installed = [], None
    for number, opened, time, kind, body in scene.entries:
        session = scene.sessions[number]
        started = session["statement"][4]
        if kind == 5 and body[3]:
            installed = (number, time)
        if kind == 10 and not body[1] and body[2] == "watch":
            since = opened
            if body[0] == "boundary":
                since = installed[1] if installed and installed[0] == number else started
            stretches.append((since, time if body.get(6) else max(time, end_of(session, time))))
        if kind == 14 and not body[1] and body[0] not in ("boot", "agent_gap", "agent_end"):
            before = scene.sessions[number - 1] if number else None
            stretches.append((end_of(before, started) if before else started, time))
    return stretches


def openings(scene, tally):
    """Break-glass as [token, from or None, until, closed or None]."""
    found, is_open, closed = [], False, set()
    for _, _, time, kind, body in scene.entries:
        if kind != 13:
            continue
        token, state, until = body[0], body[1], body[3]
        if state == "opened":
            if is_open and found[-1][0] == token and time <= found[-1][2]:
                found[-1][2] = max(found[-1][2], until)
                continue
            if is_open:
                found[-1][3] = min(time, found[-1][2])
                closed.add(found[-1][0])
            if any(token) and token in closed:
                tally.note(FAILED, "break_glass", "a token twice")
            found.append([token, time, until, None])
            is_open = True
        elif state == "closed":
            closed.add(token)
            if is_open and found[-1][0] == token:
                found[-1][3] = min(time, found[-1][2])
            else:
                if scene.whole:
                    tally.note(FAILED, "break_glass", "closed and never opened")
                found.append([token, None, until, time])
            is_open = False
        elif state != "refused":
            tally.note(FAILED, "break_glass", f"state {state!r}")
    return found


def check_tamper(scene, glass, gaps, permit, tally):
    if gaps and "tamper" not in permit:
        tally.note(FAILED, "tamper", "not kept")
    for number, _, time, kind, body in scene.entries:
        if kind == 14 and body[0] == "boot" and number:
            before, own = scene.sessions[number - 1], scene.sessions[number]
            if before["said"]["resets"] == own["said"]["resets"]:
                tally.note(FAILED, "tamper", "started anew without its tpm")
        if kind == 10 and not body[1] and body[2] != "watch":
            lasts = [((since or 0) - scene.leeway, (until if end is None else end) + scene.leeway)
                     for _, since, until, end in glass]
            if not any(since <= time <= end for since, end in lasts):
                tally.note(FAILED if scene.whole else INDETERMINATE, "tamper", "let through")


def check_glass(glass, permit, tally):
    for word, of in (("break_glass", any), ("break_glass_unsigned", lambda token: not any(token))):
        if word not in permit and any(of(one[0]) for one in glass):
            tally.note(FAILED, "break_glass", word)


def check_grants(scene, require, permit, tally):
    grants, beyond = {}, lambda why: tally.note(FAILED, "grants", why)
    for _, _, time, kind, body in scene.entries:
        if kind != 12 or body[2] == "refused":
            continue
        digest, state, count = body[1], body[2], body[3]
        if state not in ("accepted", "used", "spent", "expired", "revoked"):
            beyond(f"state {state!r}")
            continue
        is_new = digest not in grants
        grant = grants.setdefault(digest, {"bytes": 0, "terms": None, "state": ""})
        if state == "accepted" and not is_new:
            beyond("accepted twice")
        if state != "accepted" and is_new and scene.whole:
            beyond("never accepted")
        if 5 in body and grant["terms"] not in (None, body[5]):
            beyond("other terms")
        grant["terms"] = grant["terms"] or body.get(5)
        terms, more = grant["terms"], count > grant["bytes"]
        if count < grant["bytes"] or more and grant["state"] in ("expired", "revoked"):
            beyond("counted back, or used after its end")
        if terms:
            late = state in ("used", "spent") and more and time > terms[7] + scene.leeway
            if count > terms[5] or late or more and time + scene.leeway < terms[6]:
                beyond("beyond its terms")
        grant["bytes"], grant["state"] = max(count, grant["bytes"]), state
    to, most = require["grant_to"], require["max_grant_bytes"]
    if grants and to is None and most is None and "grants" not in permit:
        beyond("not permitted")
    if to is not None and any(grant["terms"] and not lies_in(grant["terms"][2], to) for grant in grants.values()):
        beyond("to somewhere else")
    if most is not None and sum(grant["bytes"] for grant in grants.values()) > most:
        beyond("too many bytes")
    if any(grant["terms"] is None for grant in grants.values()):
        tally.note(INDETERMINATE, "grants", "terms are not told")


def lies_in(network, accepted):
    try:
        own = ipaddress.ip_network(network)
    except ValueError:
        return False
    wide = [ipaddress.ip_network(one) for one in accepted]
    # ::/0 holds IPv4 too: it is ::ffff:0:0/96 there.
    return any(own.version == one.version and own.subnet_of(one) or
               own.version == 4 and one.version == 6 and
               ipaddress.ip_network(f"::ffff:{own.network_address}/{96 + own.prefixlen}").subnet_of(one)
               for one in wide)


def check_deputies(scene, require, tally):
    reached = {body[4].split(" of ")[0] for _, _, _, kind, body in scene.entries if kind == 15 and not body[0]}
    accepted = {"any": reached, "none": set(), "listed": set(require["deputy"] or [])}[require["deputies"]]
    if reached - accepted:
        tally.note(FAILED, "deputies", f"{sorted(reached - accepted)}")


def check_canary(scene, require, tally):
    wrong = lambda why: tally.note(FAILED, "canary", why)
    told, absent, held = 0, 0, 0
    for session in scene.sessions:
        names, last = [], None
        for own in (epoch["statement"] for epoch in session["epochs"]):
            canary = own.get(21)
            if canary is None:
                absent += 1
                continue
            told, last = told + 1, canary
            runs, tried = canary[1], canary.get(5)
            if canary[3] or canary[6]:
                wrong("escaped")
            if runs != canary[2] + canary[3] + canary[4] + canary[7] or (tried is None) == (runs > 0):
                wrong("numbers")
            if len(set(canary[6])) != len(canary[6]) or len(canary[6]) > canary[3] or set(names) - set(canary[6]):
                wrong("names")
            if tried is not None and tried > own[6] + scene.leeway:
                wrong("a try of the future")
            names = canary[6]
            since = session["statement"][4] if tried is None else tried
            asleep = own[6] - since > STALE_MS
            if require["canary"] and (asleep or runs > 0 and not canary[8]):
                wrong("asleep, or not guarded")
        held += last[2] if last else 0
    if any(kind == 11 and body[2] == "escaped" for _, _, _, kind, body in scene.entries):
        wrong("escaped, by an entry")
    if require["canary"] and (absent or not told or not held):
        tally.note(INDETERMINATE, "canary", "absent, or nothing held")


def check(scene, period, require, tally):
    """Returns the stretches in which enforcement is not shown."""
    permit = set(require["permit"] or [])
    check_canary(scene, require, tally)
    if not period:
        return []
    glass, gaps = openings(scene, tally), unproven(scene)
    check_tamper(scene, glass, gaps, permit, tally)
    check_glass(glass, permit, tally)
    check_grants(scene, require, permit, tally)
    check_deputies(scene, require, tally)
    return gaps


def losses(scene):
    """Losses of each session by reason: as its last epoch counts them or as its entries tell, the greater."""
    total = 0
    for number, session in enumerate(scene.sessions):
        counted, told = {}, {}
        if not session["epochs"]:
            continue
        for reason, count in ((loss[0], loss[1]) for loss in session["epochs"][-1]["statement"][13]):
            counted[reason] = counted.get(reason, 0) + count
        for where, _, _, kind, body in scene.entries:
            if kind == 7 and where == number:
                told[body[0]] = told.get(body[0], 0) + body[1]
        total += sum(max(counted.get(reason, 0), told.get(reason, 0)) for reason in {*counted, *told})
    return total
