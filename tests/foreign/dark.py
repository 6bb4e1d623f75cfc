"""Energy that GPUs used between two sessions, for verify.py: policy.dark (docs/formats/checks.md)."""
FAILED, INDETERMINATE = 2, 3


def energies(statement):
    return {one[0]: one[1] for one in statement[17] if 1 in one}


def idle(sessions):
    """The least power of each GPU over an epoch, in milliwatts."""
    least = {}
    for session in sessions:
        statements = [epoch["statement"] for epoch in session["epochs"]]
        for before, own in zip(statements, statements[1:]):
            ms, was = own[6] - before[6], energies(before)
            for uuid, now in energies(own).items():
                if ms >= 1000 and was.get(uuid, now + 1) <= now:
                    least[uuid] = min(least.get(uuid, 1 << 64), (now - was[uuid]) * 1000 // ms)
    return least


def starts(span):
    """What each agent read first of its GPUs: time, and energy by GPU."""
    found, unread = [], False
    for entry in span[1] if span else ():
        kind, body = entry[3]
        if kind == 0:
            unread = True
        elif kind == 6 and unread:
            read = {one[0]: one[4] for one in body[1] if 4 in one}
            if read:
                found.append((entry[1], read))
                unread = False
    return found


def first(session, readings, uuid):
    start = session["statement"][4]
    end = max([start] + [epoch["statement"][6] for epoch in session["epochs"]])
    told = [(at, read[uuid]) for at, read in readings if start <= at <= end and uuid in read][:1]
    sealed = [epoch["statement"] for epoch in session["epochs"]]
    told += [(own[6], energies(own)[uuid]) for own in sealed if uuid in energies(own)]
    return min(told, default=None)


def check(sessions, span, require, tally):
    limit, most, unknown = require["max_dark_joules"], None, False
    if limit is None or len(sessions) < 2:
        return
    readings, measured = starts(span), idle(sessions)
    for before, after in zip(sessions, sessions[1:]):
        if not before["epochs"]:
            continue
        last = before["epochs"][-1]
        anew = last["said"]["resets"] != after["said"]["resets"] \
            or before["statement"][16][1] != after["statement"][16][1] \
            or before["statement"][12].get(1) != after["statement"][12].get(1)
        for one in last["statement"][17]:
            now = first(after, readings, one[0])
            if 1 not in one or now is None or anew or now[1] < one[1]:
                unknown = True
                continue
            watts = require["idle_watts"]
            milliwatts = measured.get(one[0], 0) if watts is None else int(1000 * watts)
            used = -(-(now[1] - one[1]) // 1000)
            most = max(most or 0, used - milliwatts * max(0, now[0] - last["statement"][6]) // 1_000_000)
    if most is not None and most > limit:
        tally.note(FAILED, "policy.dark", f"{most} J")
    elif unknown or most is None:
        tally.note(INDETERMINATE, "policy.dark", "the counters do not tell")
