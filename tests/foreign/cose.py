"""COSE_Sign1 (RFC 9052) with Ed25519, as Merestone's signed files have it; part of verify.py."""
import base64

import cbor2
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from structures import sha256

LIMITS = {"enrolment": (64 << 10) + 512, "revocations": (1 << 20) + 512, "landmark": 1024, "receipt": 1024}
# The points of small order (RFC 7748 section 7 has their like): a signature by one holds for anything.
WEAK = {bytes.fromhex(text) for text in (
    "01" + "00" * 31, "ec" + "ff" * 30 + "7f", "00" * 32, "00" * 31 + "80",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa")}


class Stranger(ValueError):
    """Signed by a key that is not among those given."""


def public_key(text):
    """The 32 bytes of `ed25519:BASE64` or of a PEM."""
    if text.startswith("ed25519:"):
        key = base64.b64decode(text[8:], validate=True)
    else:
        key = load_pem_public_key(text.encode()).public_bytes_raw()
    if len(key) != 32 or key in WEAK:
        raise ValueError("no key, or one of small order")
    return key


def opened(message, kind, keys):
    """Place in `keys` of the one that signed, and the payload; ValueError where it does not hold."""
    if len(message) > LIMITS[kind]:
        raise ValueError("too long")
    try:
        tag = cbor2.loads(message)
        if not isinstance(tag, cbor2.CBORTag) or tag.tag != 18 or cbor2.dumps(tag, canonical=True) != message:
            raise ValueError("not a COSE_Sign1 in its one form")
        protected, unprotected, payload, signature = tag.value
        header = cbor2.loads(protected)
        if unprotected != {} or cbor2.dumps(header, canonical=True) != protected:
            raise ValueError("headers")
        content = f"application/vnd.merestone.{kind}+cbor"
        if set(header) != {1, 3, 4} or header[1] != -8 or header[3] != content or not isinstance(header[4], bytes):
            raise ValueError("another protected header")
        if len(header[4]) != 32 or not isinstance(payload, bytes):
            raise ValueError("no key id or no payload")
        signed = cbor2.dumps(["Signature1", protected, b"", payload], canonical=True)
    except ValueError:
        raise
    except (Exception, RecursionError) as error:  # whatever a foreign library raises on foreign bytes
        raise ValueError(f"{type(error).__name__}: {str(error)[:100]}") from error
    place = next((at for at, key in enumerate(keys) if sha256(key) == header[4] and key not in WEAK), None)
    if place is None:
        raise Stranger("signed by a key that is not believed")
    try:
        Ed25519PublicKey.from_public_bytes(keys[place]).verify(signature, signed)
    except (InvalidSignature, TypeError) as error:
        raise ValueError("the signature does not hold") from error
    return place, payload


def claims_of(payload, schema):
    """A payload as its CDDL wants it, in its one form."""
    try:
        claims = cbor2.loads(payload)
        if cbor2.dumps(claims, canonical=True) != payload:
            raise ValueError("claims in another form")
        schema.validate_cbor(payload)
    except ValueError:
        raise
    except (Exception, RecursionError) as error:
        raise ValueError(f"{type(error).__name__}: {str(error)[:100]}") from error
    return claims
