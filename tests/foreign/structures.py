"""Structures of TPM, firmware and kernel, read strictly for verify.py; ValueError for what is not one."""
import hashlib

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils


def sha256(data):
    return hashlib.sha256(data).digest()


def extended(value, digest):
    """What a register holds after an extend."""
    return sha256(value + digest)


class Wire:
    """A reader of TPM and firmware structures."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, length):
        if length > len(self.data) - self.at:
            raise ValueError(f"truncated at {self.at}")
        self.at += length
        return self.data[self.at - length:self.at]

    def number(self, length, order="big"):
        return int.from_bytes(self.take(length), order)

    def sized(self, limit, width=2, order="big"):
        length = self.number(width, order)
        if length > limit:
            raise ValueError(f"length {length} at {self.at}")
        return self.take(length)

    def left(self):
        return len(self.data) - self.at

    def end(self):
        if self.left():
            raise ValueError(f"{self.left()} bytes after the end")


# TPM structures (TPM 2.0 Library, Part 2).

def attestation_key(data):
    """TPMT_PUBLIC: attributes and a function that verifies; ValueError for a kind not known."""
    wire = Wire(data)

    def want(value):
        if wire.number(2) != value:
            raise ValueError(f"not {value:#06x} at {wire.at}")

    kind = wire.number(2)
    want(0x000B)
    attributes = wire.number(4)
    wire.sized(64)
    want(0x0010)
    if kind == 0x0023:
        for value in (0x0018, 0x000B, 0x0003, 0x0010):
            want(value)
        x, y = int.from_bytes(wire.sized(32)), int.from_bytes(wire.sized(32))
        wire.end()
        return attributes, lambda signature, data: check_ecdsa((x, y), signature, data)
    if kind == 0x0001:
        for value in (0x0014, 0x000B, 2048):
            want(value)
        if wire.number(4) not in (0, 65537):
            raise ValueError("exponent")
        modulus = wire.sized(256)
        wire.end()
        return attributes, lambda signature, data: check_rsassa(modulus, signature, data)
    raise ValueError(f"key type {kind:#06x}")


def signature_of(data, scheme):
    wire = Wire(data)
    if (wire.number(2), wire.number(2)) != (scheme, 0x000B):
        raise ValueError("scheme or hash")
    return wire


def check_ecdsa(point, signature, data):
    wire = signature_of(signature, 0x0018)
    r, s = int.from_bytes(wire.sized(32)), int.from_bytes(wire.sized(32))
    wire.end()
    key = ec.EllipticCurvePublicNumbers(*point, ec.SECP256R1()).public_key()
    key.verify(utils.encode_dss_signature(r, s), data, ec.ECDSA(hashes.SHA256()))


def check_rsassa(modulus, signature, data):
    wire = signature_of(signature, 0x0014)
    own = wire.sized(256)
    wire.end()
    if len(modulus) != 256 or modulus[0] < 0x80 or len(own) != 256:
        raise ValueError("not 2048 bits")
    key = rsa.RSAPublicNumbers(65537, int.from_bytes(modulus)).public_key()
    key.verify(own, data, padding.PKCS1v15(), hashes.SHA256())


def quote_of(data):
    """TPMS_ATTEST of a quote over the SHA-256 bank alone."""
    wire = Wire(data)
    if wire.number(4) != 0xFF544347 or wire.number(2) != 0x8018:
        raise ValueError("magic or type")
    signer, extra = wire.sized(66), wire.sized(66)
    clock, resets, restarts, safe = wire.number(8), wire.number(4), wire.number(4), wire.number(1)
    if safe > 1:
        raise ValueError("safe")
    wire.take(8)
    banks = []
    count = wire.number(4)
    if count > 16:
        raise ValueError("selections")
    for _ in range(count):
        bank = wire.number(2)
        bits = wire.sized(4, width=1)
        chosen = [8 * byte + bit for byte, value in enumerate(bits) for bit in range(8) if value >> bit & 1]
        if chosen:
            banks.append((bank, chosen))
    if len(banks) != 1 or banks[0][0] != 0x000B:
        raise ValueError("bank")
    digest = wire.sized(66)
    wire.end()
    if len(digest) != 32:
        raise ValueError("pcrDigest")
    return {"signer": signer, "extra": extra, "clock": clock, "resets": resets, "restarts": restarts,
            "safe": safe, "selected": banks[0][1], "digest": digest}


# Boot: firmware's event log (PC Client PFP) and the kernel's list (IMA).

def event_log(data):
    if len(data) > 16 << 20:
        raise ValueError("too long")
    wire, little = Wire(data), "little"
    if (wire.number(4, little), wire.number(4, little)) != (0, 3):
        raise ValueError("header")
    wire.take(20)
    header = Wire(wire.sized(4 << 20, 4, little))
    if header.take(16) != b"Spec ID Event03\0":
        raise ValueError("header")
    header.take(8)
    count = header.number(4, little)
    if not 1 <= count <= 8:
        raise ValueError("algorithms")
    sizes = [(header.number(2, little), header.number(2, little)) for _ in range(count)]
    header.take(header.number(1))
    header.end()
    if len(dict(sizes)) != count or (0x000B, 32) not in sizes or not all(0 < size <= 64 for _, size in sizes):
        raise ValueError("algorithms")
    extends, locality, events = [], None, 1
    while wire.left() and data[wire.at:wire.at + 8] != b"\xff" * 8:
        if events >= 1 << 16:
            raise ValueError("too many events")
        events += 1
        register, kind = wire.number(4, little), wire.number(4, little)
        count = wire.number(4, little)
        if count != len(sizes):
            raise ValueError("digests")
        digests = {}
        for _ in range(count):
            algorithm = wire.number(2, little)
            digests[algorithm] = wire.take(dict(sizes)[algorithm])
        if len(digests) != count:
            raise ValueError("digests")
        body = wire.sized(4 << 20, 4, little)
        if kind != 3:
            if register >= 24:
                raise ValueError("register")
            extends.append((register, digests[0x000B]))
        elif body[:16] == b"StartupLocality\0" and len(body) == 17:
            late = any(earlier == 0 for earlier, _ in extends)
            if register or late or locality is not None or body[16] not in (0, 3, 4):
                raise ValueError("locality")
            locality = body[16]
    start = {register: b"\xff" * 32 if 17 <= register <= 22 else bytes(32) for register in range(24)}
    start[0] = bytes(31) + bytes([locality or 0])
    values = {}
    for register, digest in extends:
        values[register] = extended(values.get(register, start[register]), digest)
    return start, values


def ima_entries(data, want):
    """How many entries lead to the quoted value."""
    if len(data) > 64 << 20:
        raise ValueError("too long")
    wire, value, little, entries = Wire(data), bytes(32), "little", 0
    quoted = 0 if value == want else None
    while wire.left():
        if wire.number(4, little) != 10 or entries >= 1 << 19:
            raise ValueError("register or length")
        sha1, name = wire.take(20), wire.sized(15, 4, little)
        if name == b"ima":
            fields = wire.take(20)
            digest = sha256(fields + wire.sized(256, 4, little).ljust(256, b"\0"))
        else:
            digest = sha256(wire.sized(1 << 20, 4, little))
        value = extended(value, b"\xff" * 32 if sha1 == bytes(20) else digest)
        entries += 1
        quoted = entries if value == want else quoted
    if quoted is None:
        raise ValueError("no beginning of it leads to the quoted value")
    return quoted
