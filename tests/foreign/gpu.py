"""What GPUs say of themselves, for verify.py: gpu.attestation and gpu.measurements (docs/formats/checks.md)."""
import certificates
import rims
from certificates import Refused, in_pem
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from structures import Wire, sha256

UNTRUSTED, FAILED, INDETERMINATE = 1, 2, 3
DICE = x509.ObjectIdentifier("2.23.133.5.4.1")
FIRMWARE = 20


def read(table, folder, usage):
    """`[gpu]`."""
    if set(table) - {"roots", "measurements", "on_hold", "rims", "rim_roots", "rims_may_be_expired", "required"}:
        raise usage("unknown keys in [gpu]")
    text = lambda one: one if one.lstrip().startswith("-----BEGIN CERTIFICATE") else (folder / one).read_text()
    many = lambda value: value if value is None or isinstance(value, list) else [value]
    roots = [one for entry in table["roots"] for one in in_pem(text(entry))]
    if bool(table.get("rims")) != bool(table.get("rim_roots")):
        raise usage("rims and rim_roots go together")
    try:
        manifests = [rims.read(one.encode() if one.lstrip().startswith("<") else (folder / one).read_bytes())
                     for one in table.get("rims", ())]
    except ValueError as error:
        raise usage(str(error)) from error
    return {"roots": roots, "measurements": many(table.get("measurements")), "required": table.get("required", False),
            "on_hold": many(table.get("on_hold")) or [], "rims": manifests,
            "rim_roots": [one for entry in table.get("rim_roots", ()) for one in in_pem(text(entry))],
            "rims_may_be_expired": table.get("rims_may_be_expired", False)}


def exchange(data):
    """SPDM 1.1 GET_MEASUREMENTS and its answer: nonce, record, measurements, opaque fields, signed bytes, signature."""
    wire, little = Wire(data), "little"
    if len(data) > 16 << 10 or wire.take(2) != b"\x11\xe0" or not wire.number(1) & 1 or wire.take(1) != b"\xff":
        raise ValueError("another request")
    nonce = wire.take(32)
    if wire.take(3) != b"\x00\x11\x60":
        raise ValueError("another answer")
    wire.take(2)
    blocks, record = wire.number(1), wire.take(wire.number(3, little))
    inner, last, measured = Wire(record), -1, {}
    for _ in range(blocks):
        index, form = inner.number(1), inner.number(1)
        block = Wire(inner.take(inner.number(2, little)))
        block.take(1)
        measured[index] = block.take(block.number(2, little))
        block.end()
        if form != 1 or index <= last:
            raise ValueError("another form, or out of order")
        last = index
    inner.end()
    wire.take(32)
    fields, told = Wire(wire.take(wire.number(2, little))), {}
    while fields.left():
        kind = fields.number(2, little)
        if kind in told:
            raise ValueError("a field twice")
        told[kind] = fields.take(fields.number(2, little))
    signed, signature = data[:wire.at], wire.take(96)
    wire.end()
    return nonce, record, measured, told, signed, signature


def last_of(data, tag):
    """The last element of a DER sequence, by hand: cryptography does not know this extension."""
    wire, found = Wire(data), None
    while wire.left():
        kind, length = wire.number(1), wire.number(1)
        length = wire.number(length & 0x7F) if length & 0x80 else length
        found = kind, wire.take(length)
    if found is None or found[0] != tag:
        raise ValueError("another element")
    return found[1]


def firmware_of(leaf):
    try:
        value = leaf.extensions.get_extension_for_oid(DICE).value.value
        return last_of(last_of(last_of(value, 0x30), 0x30), 0x04)
    except (x509.ExtensionNotFound, ValueError):
        return None


def reported(report, own, digest, trust):
    """Certificate and measurement record of one GPU, and why it is not as published; Refused or ValueError where it does not hold."""
    try:
        offered = in_pem(report[2].decode())
    except UnicodeDecodeError as error:
        raise ValueError("certificates") from error
    leaf = offered[0] if offered else None
    usage = leaf and certificates.extension(leaf, x509.KeyUsage)
    if leaf is None or certificates.is_authority(leaf) or usage is None or not usage.digital_signature:
        raise Refused(UNTRUSTED, "no certificate of a key that signs")
    way = certificates.path(leaf, offered[1:], trust["roots"], [], own[4] // 1000)
    nonce, record, measured, told, signed, signature = exchange(report[1])
    key = leaf.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp384r1":
        raise Refused(INDETERMINATE, "another curve")
    r, s = int.from_bytes(signature[:48]), int.from_bytes(signature[48:])
    try:
        key.verify(utils.encode_dss_signature(r, s), signed, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature as error:
        raise ValueError("signature") from error
    certified = firmware_of(leaf)
    if nonce != digest or FIRMWARE in told and certified not in (None, told[FIRMWARE]):
        raise ValueError("another nonce or firmware")
    if any(one.fingerprint(hashes.SHA256()).hex() in trust["on_hold"] for one in way):
        raise Refused(FAILED, "a certificate on hold")
    unlike = None
    if trust["rims"]:
        try:
            rims.compare(measured, told, trust, own[4] // 1000)
        except Refused as error:
            unlike = error
    return leaf.fingerprint(hashes.SHA256()), sha256(record), unlike


def check(bundle, sessions, trust, tally):
    total = sum(len(sealed.get(7, ())) for sealed in bundle[6])
    if trust is None:
        return
    def unprotected(session, uuids):
        """GPUs that protect nothing, by the agent's own word."""
        return any(one[0] in uuids and one.get(5) in ("off", "developer mode") for one in session["statement"][12][5])

    asked = [{one[0] for one in (session["statement"][12][5] if trust["required"] else sealed.get(7, ()))}
             for sealed, session in zip(bundle[6], sessions)]
    if any(unprotected(session, uuids) for session, uuids in zip(sessions, asked)):
        tally.note(FAILED, "gpu.attestation", "a gpu that protects nothing")
        if trust["required"]:
            return
    if total == 0:
        if trust["required"]:
            tally.note(INDETERMINATE, "gpu.attestation", "no report")
        return
    records = []
    for sealed, session in zip(bundle[6], sessions):
        reports, own = sealed.get(7, ()), session["statement"]
        try:
            if len(reports) > 64:
                raise ValueError("too many")
            found = [reported(one, own, session["said"]["statement"], trust) for one in reports]
            if len({one[0] for one in found}) != len(found):
                raise ValueError("one gpu twice")
        except (ValueError, Refused) as error:
            tally.note(getattr(error, "grade", UNTRUSTED), "gpu.attestation", str(error))
            continue
        records += [record for _, record, _ in found]
        for unlike in (one[2] for one in found if one[2] is not None):
            tally.note(unlike.grade, "gpu.measurements", str(unlike))
        if trust["required"] and {one[0] for one in own[12][5]} - {one[0] for one in reports}:
            tally.note(INDETERMINATE, "gpu.attestation", "a gpu did not report")
    if trust["measurements"] is not None and any(one.hex() not in trust["measurements"] for one in records):
        tally.note(FAILED, "gpu.measurements", "not accepted ones")
