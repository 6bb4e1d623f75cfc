"""C2SP signed notes, checkpoints and cosignatures for verify.py, and its check `log.witness`.

    tlog.py NOTE VKEY...    prints who signed a note, exit 1 where a signature does not hold
"""
import base64
import hashlib
import pathlib
import sys

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from tree import consistent

UNTRUSTED, FAILED, INDETERMINATE = 1, 2, 3
LOG, WITNESS = 1, 4


def strict(text):
    data = base64.b64decode(text, validate=True)
    if base64.b64encode(data).decode() != text:
        raise ValueError("base64 of another spelling")
    return data


def vkey(text, kind):
    name, digits, data = text.split("+", 2)
    data = strict(data)
    want = hashlib.sha256(name.encode() + b"\n" + data).digest()[:4]
    if len(data) != 33 or data[0] != kind or digits != want.hex() or not name:
        raise ValueError(f"no key of type {kind}: {text}")
    return name, want, data[1:]


class Note:
    def __init__(self, data):
        whole = data.decode()
        if any(ord(c) < 32 and c != "\n" for c in whole) or len(data) > 128 << 10:
            raise ValueError("control characters, or too long")
        text, lines = whole.rsplit("\n\n", 1)
        if not lines.endswith("\n"):
            raise ValueError("no newline at the end")
        self.text, self.signatures = text + "\n", []
        for line in lines[:-1].split("\n"):
            dash, name, signature = line.split(" ")
            signature = strict(signature)
            if dash != "\u2014" or not name or "+" in name or len(signature) < 5:
                raise ValueError("a line that is no signature")
            self.signatures.append((name, signature[:4], signature[4:]))
        if len(self.signatures) > 64:
            raise ValueError("too many signatures")

    def signed_by(self, key, kind):
        """None, or the time of the latest signature; ValueError where one does not hold."""
        name, number, public = key
        times = []
        for _, _, signature in (one for one in self.signatures if one[:2] == (name, number)):
            time, message = 0, self.text.encode()
            if kind == WITNESS:
                time, signature = int.from_bytes(signature[:8], "big"), signature[8:]
                message = f"cosignature/v1\ntime {time}\n".encode() + message
            try:
                Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
            except InvalidSignature:
                raise ValueError(f"the signature of {name}") from None
            times.append(time)
        return max(times, default=None)


def checkpoint(text):
    origin, size, root, *more = text[:-1].split("\n")
    if not origin or str(int(size)) != size or len(strict(root)) != 32 or not all(more):
        raise ValueError("no checkpoint")
    named = dict(line.split(" ", 1) for line in more if " " in line)
    sealed = None
    if {"session", "epoch"} <= set(named):
        sealed = bytes.fromhex(named["session"]), bytes.fromhex(named["epoch"])
    return origin, int(size), strict(root), sealed


def read_policy(table, folder, fault):
    try:
        keys = table["key"] if isinstance(table["key"], list) else [table["key"]]
        keys, witnesses = [vkey(key, LOG) for key in keys], [vkey(key, WITNESS) for key in table.get("witnesses", [])]
        notes = [one.encode() if "\n" in one else (folder / one).read_bytes() for one in table.get("checkpoints", [])]
        return keys, witnesses, table.get("quorum", len(witnesses)), table.get("max_unwitnessed_s", 3600), notes
    except (KeyError, ValueError) as error:
        raise fault(f"[log]: {error!r}") from None


def check_witness(bundle, period, sessions, roots, proofs, require, tally):
    policy, carried = require["log"], bundle.get(12)
    try:
        seen = [] if carried is None else [(Note(carried), checkpoint(Note(carried).text))]
        stray = any(not ({seen[0][1][1]} & {*pair} and {*pair} & {*roots}) for pair in proofs) if seen else bool(proofs)
        tally.need(not stray, "log.witness", "a proof of nothing")
        for data in policy[4] if policy else ():
            seen.append((Note(data), checkpoint(Note(data).text)))
        epochs = {hashlib.sha256(e["raw"]).digest(): e["statement"] for s in sessions for e in s["epochs"]}
        shown, last = {s["statement"][2] for s in sessions}, max(roots)
        placed = []
        for note, (origin, size, root, sealed) in seen:
            tally.need(roots.get(size, root) == root, "log.witness", f"two roots of {size}")
            is_placed = size in roots or size == 0
            for (first, second), path in proofs.items():
                ends = (root if first == size else roots.get(first), root if second == size else roots.get(second))
                if size in (first, second) and None not in ends:
                    tally.need(consistent(first, second, path, *ends), "log.witness", "the proof")
                    is_placed = True
            if policy is None:
                continue
            signed = [note.signed_by(key, LOG) for key in policy[0] if key[0] == origin]
            tally.need(any(time is not None for time in signed), "log.witness", "no pinned key signed it")
            times = [note.signed_by(key, WITNESS) for key in policy[1]]
            times = [time for time in times if time is not None]
            if sealed:
                own = epochs.get(sealed[1])
                good = size >= last or sealed[0] not in shown if own is None else \
                    (own[2], own[8], own[9]) == (sealed[0], size, root)
                tally.need(good, "log.witness", "names another epoch")
            within = times and 1000 * (min(times) + require["max_clock_step_s"]) <= bundle[3]
            earlier = size == sessions[0]["statement"][17] and sealed and sealed[0] not in shown
            later = size == last and sealed and sealed[1] not in epochs and not earlier
            if period and within and (size > last or later):
                return tally.note(FAILED, "log.witness", "epochs were cut off the end")
            if is_placed:
                placed.append((min(len(times), policy[2]), size))
    except ValueError as error:
        return tally.stop(UNTRUSTED, "log.witness", str(error))
    if policy is None or not policy[1]:
        return None
    count, size = max(placed, default=(0, 0))
    beyond = [own[5] for own in epochs.values() if own[8] > size] if period else []
    end = min(bundle[3], max((own[6] for own in epochs.values()), default=0))
    if count < policy[2] or beyond and end - min(beyond) > 1000 * policy[3]:
        tally.note(INDETERMINATE, "log.witness", "too few witnesses, or they saw too little")
    return None


def main(path, *keys):
    note = Note(pathlib.Path(path).read_bytes())
    for text in keys:
        kind = strict(text.split("+", 2)[2])[0]
        print(text.split("+")[0], note.signed_by(vkey(text, kind), kind))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
