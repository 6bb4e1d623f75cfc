#!/usr/bin/env python3
"""A second verifier of Merestone evidence, written from the documents (README.md says what was not).

    verify.py bundle|receipt FILE --trust TRUST.TOML [--at RFC3339]

It shares nothing with merestone-verify: another language, other libraries for CBOR (cbor2), CDDL
(pycddl) and signatures (cryptography), and the algorithms of RFC 9162 as that text has them. Its
exit codes are 0 pass, 1 untrusted, 2 failed, 3 indeterminate, 4 usage. It is there to disagree: it
checks what the documents say and explains little. Do not use it where merestone-verify can run.

Laxer than it should be: pycddl does not look for unknown keys in maps that stand in arrays.
"""
import argparse
import datetime
import pathlib
import sys

import authority
import dark
import gpu
import incidents
import nv
import place
import receipts
import tlog
from cryptography.exceptions import InvalidSignature
from forms import Stop, decode
from policy import Usage, instant, read_trust
from structures import attestation_key, event_log, extended, ima_entries, quote_of, sha256
from tree import consistent, included, leaf_hash, node, peaks_root

UNTRUSTED, FAILED, INDETERMINATE = 1, 2, 3


class Tally:
    def __init__(self):
        self.faults = []

    def note(self, grade, check, why):
        self.faults.append((grade, check, why))

    def stop(self, grade, check, why):
        self.note(grade, check, why)
        raise Stop

    def need(self, condition, check, why, grade=UNTRUSTED):
        if not condition:
            self.stop(grade, check, why)

    def exit(self):
        grades = {grade for grade, _, _ in self.faults}
        return next((grade for grade in (UNTRUSTED, FAILED, INDETERMINATE) if grade in grades), 0)


def check_quote(quote, statement, verify, at, tally):
    attest, signature, shown = quote[0], quote[1], quote[2]
    try:
        verify(signature, attest)
    except (InvalidSignature, ValueError) as error:
        tally.stop(UNTRUSTED, "quote.signature", f"{at}: {error}")
    try:
        said = quote_of(attest)
    except ValueError as error:
        tally.stop(UNTRUSTED, "quote.form", f"{at}: {error}")
    said["statement"] = sha256(statement)
    tally.need(said["extra"] == said["statement"], "quote.binding", at)
    tally.need([pcr[0] for pcr in shown] == said["selected"], "quote.selection", at)
    tally.need(sha256(b"".join(pcr[1] for pcr in shown)) == said["digest"], "quote.pcrs", at)
    said["pcrs"] = {pcr[0]: pcr[1] for pcr in shown}
    return said


# Boot: firmware's event log and the kernel's list, against the registers quoted.

def measured(pcrs):
    if any(not any(pcrs.get(register, bytes(32))[:31]) for register in (0, 4)):
        raise ValueError("nothing measured this boot")


def explained(log, session):
    start, values = event_log(log)
    pcrs = session["said"]["pcrs"]
    for register, quoted in pcrs.items():
        judged = register <= 7 or register in (8, 9, 14) and register in values
        if judged and register != session["statement"][15] and values.get(register, start[register]) != quoted:
            raise ValueError(f"register {register}")
    measured(pcrs)
    for epoch in session["epochs"]:
        if any(epoch["said"]["pcrs"].get(r, pcrs[r]) != pcrs[r] for r in range(8) if r in pcrs):
            raise ValueError("a firmware register moved")


def check_boot(sessions, require, tally):
    logs = {}
    for session in sessions:
        boot = session["said"]["resets"]
        logs[boot] = session["boot_log"] or logs.get(boot)
        try:
            if logs[boot] is not None:
                explained(logs[boot], session)
            elif require["boot_log"]:
                measured(session["said"]["pcrs"])
                tally.note(INDETERMINATE, "boot.log", "absent")
        except (ValueError, KeyError) as error:
            tally.stop(UNTRUSTED, "boot.log", str(error))
    for session in sessions:
        quoted = session["said"]["pcrs"].get(10)
        covered = 0
        if session["ima_log"] is not None and quoted is not None:
            try:
                covered = ima_entries(session["ima_log"], quoted)
            except ValueError as error:
                tally.stop(UNTRUSTED, "boot.ima", str(error))
        if not covered and require["ima"]:
            tally.note(INDETERMINATE, "boot.ima", "absent")


# Order: clocks, chain and tree sizes.

def check_clock(sessions, require, tally):
    last = None
    for session in sessions:
        own = session["said"]
        if last is not None:
            tally.need(own["resets"] >= last["resets"], "clock.counters", "resets")
            same = own["resets"] == last["resets"]
            tally.need(not same or own["restarts"] >= last["restarts"], "clock.counters", "restarts")
            tally.need(not (same or own["safe"]) or own["clock"] >= last["clock"], "clock.counters", "clock")
        last = own
        for epoch in session["epochs"]:
            now = epoch["said"]
            tally.need(now["resets"] == last["resets"] and now["restarts"] == last["restarts"]
                       and now["clock"] >= last["clock"], "clock.counters", "inside a session")
            last = now
            wall = epoch["statement"][6] - session["statement"][4]
            if abs(wall - (now["clock"] - own["clock"])) > 1000 * require["max_clock_step_s"]:
                tally.note(FAILED, "clock.wall", "the clocks part")


def check_chain(sessions, period, require, tally):
    step, last_ms, known, before = 1000 * require["max_clock_step_s"], 0, False, None
    back, whole = False, True
    ids = [session["statement"][2] for session in sessions]
    tally.need(len(set(ids)) == len(ids), "chain.order", "two sessions of one id")
    for session in sessions:
        statement = session["statement"]
        whole &= not known or statement.get(3) == before
        tally.need(whole or not period, "chain.order", "a session is missing")
        known, before = True, statement.get(3)
        back |= statement[4] < max(0, last_ms - step)
        last_ms, previous = statement[4], session["said"]["statement"]
        number = 0
        for epoch in session["epochs"]:
            own = epoch["statement"]
            left_out = not period and own[3] > number
            whole &= not left_out
            tally.need(left_out or (own[3], own[4]) == (number, previous), "chain.order", "an epoch is missing")
            number = own[3] + 1
            back |= own[5] < max(0, last_ms - step) or own[6] < own[5]
            last_ms, previous = own[6], epoch["said"]["statement"]
            before = previous
    if back:
        tally.note(FAILED, "chain.order", "time goes back")
    left = None
    for session in sessions if whole else ():
        register, boot = session["statement"][15], session["said"]["resets"]
        value = session["said"]["pcrs"][register]
        foreign = left is not None and left[:2] == (boot, register) and left[2] != value
        for epoch in session["epochs"]:
            now = epoch["said"]["pcrs"][register]
            foreign |= now != extended(value, epoch["said"]["statement"])
            value = now
        left = (boot, register, value)
        if foreign:
            tally.note(FAILED, "chain.replay", "a foreign extend")


def check_sizes(sessions, period, tally):
    roots, before = {}, None

    def follows(got, want):
        return got == want or not period and got > want

    def sealed(size, root):
        want = roots.get(size, sha256(b"") if size == 0 else root)
        tally.need(root == want, "log.sizes", f"two roots of {size}")
        roots[size] = root

    for session in sessions:
        size = session["statement"][17]
        tally.need(before is None or follows(size, before), "log.sizes", "not contiguous")
        sealed(size, session["statement"][18])
        counts = {}
        for epoch in session["epochs"]:
            own = epoch["statement"]
            tally.need(follows(own[7], size) and own[8] >= own[7], "log.sizes", "not contiguous")
            size = own[8]
            sealed(size, own[9])
            now = {}
            tries = [(("canary", key), count) for key, count in own.get(21, {}).items() if key in (1, 2, 3, 4, 7)]
            tries += list(zip(("R1", "R2"), own.get(24, ())))
            for key, count in [((c[0], c[1], c[2]), c[3]) for c in own[12]] + [((l[0],), l[1]) for l in own[13]] + tries:
                now[key] = now.get(key, 0) + count
            shrank = any(now.get(key, 0) < count for key, count in counts.items())
            tally.need(not shrank, "log.sizes", "a count went back")
            counts = now
        before = size
    return roots


# Log.

def check_leaves(bundle, period, epochs, roots, tally):
    start, end = 0, 0
    if 7 in bundle:
        start, hashed, leaves = bundle[7][0], bundle[7][1], bundle[7][2]
        end = start + len(leaves)
        bits = [1 << bit for bit in range(start.bit_length() - 1, -1, -1) if start >> bit & 1]
        tally.need(len(bits) == len(hashed), "log.leaves", "peaks")
        peaks, size = list(zip(bits, hashed)), start
        tally.need(roots.get(start) == peaks_root(peaks), "log.leaves", "the span's start")
        for leaf in leaves:
            peaks.append((1, leaf_hash(leaf)))
            while len(peaks) > 1 and peaks[-1][0] == peaks[-2][0]:
                (wide, right), (_, left) = peaks.pop(), peaks.pop()
                peaks.append((2 * wide, node(left, right)))
            size += 1
            if size in roots:
                tally.need(roots[size] == peaks_root(peaks), "log.leaves", f"root of {size}")
        tally.need(size in roots, "log.leaves", "the span's end")
    for own in epochs if period else ():
        inside = own[6] >= bundle[2] and own[5] <= bundle[3] and own[7] != own[8]
        if inside and not (start <= own[7] and own[8] <= end):
            tally.note(FAILED, "log.leaves", "leaves of the period are not shown")
    return start, end


def check_log(bundle, period, sessions, require, tally):
    leeway = 1000 * require["max_clock_step_s"]
    roots = check_sizes(sessions, period, tally)
    start, end = check_leaves(bundle, period, [e["statement"] for s in sessions for e in s["epochs"]], roots, tally)
    proofs = {(proof[0], proof[1]): proof[2] for proof in bundle[8]}
    for session in sessions:
        first = session["statement"][18]
        for own in (epoch["statement"] for epoch in session["epochs"]):
            sizes = (own[7], own[8])
            if sizes in proofs:
                good = consistent(*sizes, proofs.pop(sizes), first, own[9])
                tally.need(good, "log.consistency", str(sizes))
            elif own[7] != 0 and own[7] != own[8] and not (start <= own[7] and own[8] <= end) and period:
                tally.note(INDETERMINATE, "log.consistency", f"no proof of {sizes}")
            first = own[9]
    tally.need(12 in bundle or not proofs, "log.consistency", "a proof of no epoch")
    for proof in bundle[9]:
        root = roots.get(proof[1])
        good = root is not None and included(proof[0], proof[1], leaf_hash(proof[2]), proof[3], root)
        tally.need(good, "log.inclusion", f"leaf {proof[0]}")
    for proof in bundle[9]:
        decode("entry", proof[2], tally, "log.entries")
    if 7 in bundle:
        entries = [decode("entry", leaf, tally, "log.entries") for leaf in bundle[7][2]]
        epochs = [epoch["statement"] for session in sessions for epoch in session["epochs"]]
        closed = [next(own[6] for own in epochs if at < own[8]) for at in range(start, start + len(entries))]
        if any(entry[1] > ms + leeway for entry, ms in zip(entries, closed)):
            tally.note(FAILED, "log.entries", "an entry of a time after its epoch")
    tlog.check_witness(bundle, period, sessions, roots, proofs, require, tally)
    return (start, entries) if 7 in bundle else None


# Policy.

def longest_gap(start, end, epochs, unkept):
    """The longest stretch of the period without evidence; stretches that touch are one."""
    at, run, most = start, 0, 0
    for own in epochs:
        opened, closed = (min(max(ms, at), end) for ms in (own[5], own[6]))
        run += opened - at
        at = opened
        for low, high in sorted((max(low, opened), min(high, closed)) for low, high in unkept):
            if low < high and high > at:
                most, run = max(most, run), run if low <= at else 0
                run, at = run + high - max(low, at), high
        most = max(most, run)
        if closed > at:
            run, at = 0, closed
    return max(most, run + end - at)


def hidden(sessions):
    """Most time between two sessions that the TPM's clock has and the wall clock has not, beyond 2 s and 15 %."""
    most = 0
    for before, after in zip(sessions, sessions[1:]):
        # What a crash left is quoted by the next start, long after it was closed.
        epochs = [e for at, e in enumerate(before["epochs"], 1) if at < len(before["epochs"]) or e["statement"][19] == 3]
        last = epochs[-1] if epochs else None
        was, own = (last or before)["said"], after["said"]
        if own["clock"] < was["clock"] or own["resets"] != was["resets"] and not own["safe"]:
            continue
        tpm = own["clock"] - was["clock"]
        wall = after["statement"][4] - (last["statement"][6] if last else before["statement"][4])
        if tpm - wall > 2000 + max(tpm, wall) * 15 // 100:
            most = max(most, tpm - wall)
    return most


def check_time(bundle, period, sessions, epochs, unkept, require, now, tally):
    start, end = bundle[2], bundle[3]
    if period:
        short = require["from"] is not None and start > require["from"]
        if short or require["to"] is not None and end < require["to"] or end < start:
            tally.note(FAILED, "policy.period", "too short")
        longest = max([longest_gap(start, max(start, end), epochs, unkept)] + [own[6] - own[5] for own in epochs]
                      + [hidden(sessions)])
        nothing = longest_gap(start, max(start, end), epochs, unkept) == max(0, end - start)
        if nothing or longest > 1000 * require["max_gap_s"]:
            tally.note(FAILED, "policy.coverage", "a gap or an epoch is too long")
    last = max([session["statement"][4] for session in sessions] + [own[6] for own in epochs])
    old = require["max_age_s"] is not None and last < max(0, now - 1000 * require["max_age_s"])
    if last > now + 300_000 or old:
        tally.note(FAILED, "policy.age", "too old or of the future")


def lost_in(session, span):
    """Losses by reason: as the last epoch counts them or as the entries tell, whichever is more."""
    counted, told = {}, {}
    if session["epochs"]:
        last = session["epochs"][-1]["statement"]
        for reason, count in ((loss[0], loss[1]) for loss in last[13]):
            counted[reason] = counted.get(reason, 0) + count
        for index, entry in enumerate(span[1], span[0]) if span else ():
            kind, body = entry[3]
            if kind == 7 and session["statement"][17] <= index < last[8]:
                told[body[0]] = told.get(body[0], 0) + body[1]
    return sum(max(counted.get(reason, 0), told.get(reason, 0)) for reason in {*counted, *told})


def check_policy(bundle, period, sessions, span, require, now, tally):
    epochs = [epoch["statement"] for session in sessions for epoch in session["epochs"]]
    unkept = incidents.check(sessions, span, period, require, tally)
    check_time(bundle, period, sessions, epochs, unkept, require, now, tally)
    own = [session["statement"] for session in sessions]
    boundaries = [one[7] for one in own] + [one[10] for one in epochs]
    for what, found in (("boundary", [one[1] for one in boundaries]),
                        ("object", [one[8] for one in own] + [one[11] for one in epochs]),
                        ("agent", [one[6][1] for one in own])):
        if require[what] is not None and any(digest.hex() not in require[what] for digest in found):
            tally.note(FAILED, f"policy.{what}", "not an accepted one")
    tiers = [{tier[0] for tier in one[10] if tier[1]} for one in own] + [set(one[14]) for one in epochs]
    lasts = [session["epochs"][-1]["statement"] for session in sessions if session["epochs"]]
    audited = sum(counter[3] for last in lasts for counter in last[12] if counter[1] == 3)
    lost = sum(lost_in(session, span) for session in sessions)
    for check, good in (
        ("policy.mode", require["audit"] or all(one[2] == 0 for one in boundaries)),
        ("policy.tiers", all(set(require["tiers"]) <= tier for tier in tiers)),
        ("policy.uncovered", require["uncovered"] or not any([one[11] for one in own] + [one[15] for one in epochs])),
        ("policy.egress", require["audit"] or audited == 0),
        ("policy.lost", lost <= require["max_lost"]),
        ("policy.tpm", require["software_tpm"] or not any(one[13][2] for one in own)),
        ("policy.gpu", require["test_gpu_library"] or not any(one[12][4] for one in own)),
    ):
        if not good:
            tally.note(FAILED, check, "against the policy")
    for said in [s["said"] for s in sessions] + [e["said"] for s in sessions for e in s["epochs"]]:
        for register, accepted in require["pcr"].items():
            value = said["pcrs"].get(int(register))
            if value is None:
                tally.note(INDETERMINATE, "policy.pcrs", f"register {register} is not quoted")
            elif value.hex() not in accepted:
                tally.note(FAILED, "policy.pcrs", f"register {register}")


def check_key(bundle, nodes, vouched, tally):
    tally.need(bundle[4] in nodes or vouched, "trust.node", "no key is pinned")
    name = b"\x00\x0b" + sha256(bundle[5])
    tally.need(nodes.get(bundle[4], name) == name, "ak.name", "another key")
    try:
        attributes, verify = attestation_key(bundle[5])
    except ValueError as error:
        tally.stop(INDETERMINATE, "ak.attributes", str(error))
    wanted = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 16 | 1 << 18
    tally.need(attributes & (wanted | 1 << 17) == wanted, "ak.attributes", hex(attributes))
    return b"\x00\x0b" + sha256(b"\x40\x00\x00\x0b" + name), verify


def check_sessions(bundle, verify, tally):
    sealed = [(check_quote(session[1], session[0], verify, "session", tally),
               [check_quote(epoch[1], epoch[0], verify, "epoch", tally) for epoch in session[4]])
              for session in bundle[6]]
    sessions = []
    for session, (said, quotes) in zip(bundle[6], sealed):
        own = decode("session-statement", session[0], tally, "statements")
        epochs = [{"said": quote, "raw": epoch[0], "statement": decode("epoch-statement", epoch[0], tally, "statements")}
                  for epoch, quote in zip(session[4], quotes)]
        tally.need(own[1] == bundle[4], "statements", "another node")
        for epoch in epochs:
            same = (epoch["statement"][1], epoch["statement"][2]) == (own[1], own[2])
            tally.need(same, "statements", "another node or session")
        for quote in [said] + quotes:
            tally.need(quote["selected"] == own[14], "statements", "not the declared registers")
            tally.need(own[15] < 16 and own[15] in own[14], "chain.register", str(own[15]))
        sessions.append({"said": said, "statement": own, "epochs": epochs, "boot_log": session.get(2),
                         "ima_log": session.get(3)})
    return sessions


def verify_file(data, command, trust, now, tally):
    nodes, require = trust
    bundle = decode("bundle", data, tally, "frame")
    period = command == "bundle"
    single = 7 not in bundle and bool(bundle[9])
    tally.need(bundle[6] and (not single if period else single), "frame", "of another use")
    vouched = authority.vouch(bundle, bundle[4] in nodes, require["authority"], tally)
    primary, verify = check_key(bundle, nodes, vouched, tally)
    sessions = check_sessions(bundle, verify, tally)
    said = [s["said"] for s in sessions] + [e["said"] for s in sessions for e in s["epochs"]]
    if any(quote["signer"] != primary for quote in said):
        tally.note(FAILED, "ak.hierarchy", "not an endorsement primary")
    nv.certified(bundle, sessions, vouched, verify, tally)
    check_boot(sessions, require, tally)
    check_clock(sessions, require, tally)
    check_chain(sessions, period, require, tally)
    span = check_log(bundle, period, sessions, require, tally)
    if period:
        nv.tail(bundle, sessions, require, tally)
    receipts.check(bundle, sessions, span, 1000 * require["max_clock_step_s"], decode, tally)
    gpu.check(bundle, sessions, require["gpu"], tally)
    place.check(bundle, sessions, vouched, require, tally)
    authority.judge(vouched, sessions, require["authority"], now, tally)
    if period:
        dark.check(sessions, span, require, tally)
    check_policy(bundle, period, sessions, span, require, now, tally)


def judge(path, command, trust, now):
    tally = Tally()
    try:
        verify_file(pathlib.Path(path).read_bytes(), command, trust, now, tally)
    except Stop:
        pass
    return tally


def main():
    call = argparse.ArgumentParser()
    call.add_argument("command", choices=("bundle", "receipt"))
    call.add_argument("file")
    call.add_argument("--trust", required=True)
    call.add_argument("--at", default=None)
    call = call.parse_args()
    now = call.at or datetime.datetime.now(datetime.timezone.utc).isoformat()
    try:
        tally = judge(call.file, call.command, read_trust(call.trust), instant(now))
    except (OSError, ValueError, KeyError, Usage) as error:
        print(f"error: {error!r}", file=sys.stderr)
        return 4
    for fault in tally.faults:
        print(*fault)
    print("verdict:", ["pass", "untrusted", "failed", "indeterminate"][tally.exit()])
    return tally.exit()


if __name__ == "__main__":
    sys.exit(main())
