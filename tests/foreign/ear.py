#!/usr/bin/env python3
"""Reads an attestation result of merestone-verify as somebody else would.

    ear.py FILE [--key PUBLIC.PEM]

With a key the file has to be a JWT signed by it (EdDSA or ES256), without one plain JSON. Checks
docs/formats/ear.cddl and the tiers of AR4SI, then prints status and vectors. Exit 0 or 1.
"""
import argparse
import base64
import json
import pathlib
import sys

import cbor2
import pycddl
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, utils

CDDL = pathlib.Path(__file__).parents[2] / "docs/formats/ear.cddl"
TIERS = ["none", "affirming", "warning", "contraindicated"]


def unpadded(text):
    if "=" in text:
        raise ValueError("padded")
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def opened(token, key):
    header, claims, signature = token.split(".")
    signed, signature = f"{header}.{claims}".encode(), unpadded(signature)
    header = json.loads(unpadded(header))
    if header.get("typ") != "JWT" or len(header) != 2:
        raise ValueError(f"header {header}")
    if isinstance(key, ed25519.Ed25519PublicKey) and header["alg"] == "EdDSA":
        key.verify(signature, signed)
    elif isinstance(key, ec.EllipticCurvePublicKey) and header["alg"] == "ES256" and len(signature) == 64:
        r, s = (int.from_bytes(half) for half in (signature[:32], signature[32:]))
        key.verify(utils.encode_dss_signature(r, s), signed, ec.ECDSA(hashes.SHA256()))
    else:
        raise ValueError(f"algorithm {header['alg']} is not the key's")
    return unpadded(claims)


def tier(value):
    """AR4SI, 2.3.2: the tier that a claim's value lies in."""
    if 2 <= value <= 31:
        return "affirming"
    if 32 <= value <= 95:
        return "warning"
    return "contraindicated" if 96 <= value <= 127 else "none"


def sound(claims):
    pycddl.Schema(CDDL.read_text()).validate_cbor(cbor2.dumps(claims))
    for name, part in claims["submods"].items():
        vector = part.get("ear_trustworthiness_vector", {})
        worst = max((tier(value) for value in vector.values()), key=TIERS.index, default="none")
        if part["ear_status"] != worst:
            raise ValueError(f"{name}: status {part['ear_status']}, its claims are {worst}")
    parts = [part["ear_status"] for part in claims["submods"].values()]
    want = {"pass": max([*parts, "affirming"], key=TIERS.index), "indeterminate": "none"}
    if claims["ear_status"] != want.get(claims["merestone_verdict"], "contraindicated"):
        raise ValueError(f"status {claims['ear_status']} of a verdict {claims['merestone_verdict']}")


def main():
    call = argparse.ArgumentParser()
    call.add_argument("file")
    call.add_argument("--key")
    call = call.parse_args()
    text = pathlib.Path(call.file).read_text().strip()
    try:
        if call.key:
            text = opened(text, serialization.load_pem_public_key(pathlib.Path(call.key).read_bytes()))
        claims = json.loads(text)
        sound(claims)
    except (ValueError, KeyError, InvalidSignature, pycddl.ValidationError) as error:
        print(f"refused: {error!r}")
        return 1
    print(claims["ear_status"])
    for name, part in claims["submods"].items():
        print(" ", name, part["ear_status"], part.get("ear_trustworthiness_vector", {}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
