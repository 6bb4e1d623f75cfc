#!/usr/bin/env python3
"""Other people's libraries on what Merestone writes: do they take it, and refuse it with a byte changed?

    tools.py [--demo] FOLDER...

A folder is a case as agree.py has them, or with --demo what `cargo xtask demo` left. Of each file that is to
pass: tpm2-pytss (the TPM Software Stack) unmarshals every attestation, signature and public area to the
last byte, verifies with the attestation key and makes its Name; pycose opens every COSE_Sign1 with the key that the
policy pins or the session's statement has; cbor2 writes every object as it was. Unlike verify.py it judges nothing: what
is asked is whether the forms are those of the standards. Exit 0, 1 where one is not taken or a changed one is, 4 without files.
"""
import pathlib
import sys
import tomllib

import cbor2
from cose import public_key
from cryptography.exceptions import InvalidSignature
from pycose.headers import KID, Algorithm, ContentType
from pycose.keys import OKPKey
from pycose.messages import Sign1Message
from structures import sha256
from tpm2_pytss.constants import TPM2_ST
from tpm2_pytss.types import TPMS_ATTEST, TPMT_PUBLIC, TPMT_SIGNATURE

COUNTS = {}


def count(what):
    COUNTS[what] = COUNTS.get(what, 0) + 1


def whole(kind, data):
    """What the TSS reads, which has to be all there is."""
    made, used = kind.unmarshal(data)
    if used != len(data) or made.marshal() != data:
        raise ValueError(f"{kind.__name__}: {used} of {len(data)} bytes")
    return made


def attested(attest, signature, key, statement, kind):
    said, mark = whole(TPMS_ATTEST, attest), whole(TPMT_SIGNATURE, signature)
    mark.verify_signature(key, attest)
    if said.type != kind or bytes(said.extraData) != sha256(statement):
        raise ValueError("another kind, or of another statement")
    spoiled = attest[:-1] + bytes([attest[-1] ^ 1])
    try:
        mark.verify_signature(key, spoiled)
    except InvalidSignature:
        count(TPM2_ST.to_string(kind))
        return said
    raise ValueError("a changed attestation was taken")


def quoted(quote, key, statement):
    said = attested(quote[0], quote[1], key, statement, TPM2_ST.ATTEST_QUOTE).attested.quote
    if bytes(said.pcrDigest) != sha256(b"".join(value[1] for value in quote[2])):
        raise ValueError("other registers")


def signed(message, keys):
    """A COSE_Sign1 by one of these keys; whether it is anybody's."""
    tag = cbor2.loads(message)
    if not isinstance(tag, cbor2.CBORTag) or tag.tag != Sign1Message.cbor_tag:
        raise ValueError("not a COSE_Sign1")
    # Its own `decode` wants a list and a dict in it; since cbor2 6 what a tag holds cannot be changed.
    protected, unprotected, payload, signature = tag.value
    taken = Sign1Message.from_cose_obj([protected, dict(unprotected), payload, signature], True)
    if taken.uhdr or set(taken.phdr) != {Algorithm, ContentType, KID}:
        raise ValueError("other headers")
    key = next((key for key in keys if sha256(key) == taken.phdr[KID]), None)
    if key is None:
        return
    taken.key = OKPKey(crv="ED25519", x=key)
    good = taken.verify_signature()
    taken.payload = taken.payload[:-1] + bytes([taken.payload[-1] ^ 1])
    if not good or taken.verify_signature():
        raise ValueError("a signature is not taken, or a changed payload is")
    count(taken.phdr[ContentType])


def canonical(data):
    item = cbor2.loads(data)
    if cbor2.dumps(item, canonical=True) != data:
        raise ValueError("CBOR in another form")
    return item


def judge(file, trust):
    folder, policy = trust.parent, tomllib.loads(trust.read_text())
    read = lambda text: public_key(text if text.startswith(("ed25519:", "-----")) else (folder / text).read_text())
    bundle = canonical(file.read_bytes())
    public = whole(TPMT_PUBLIC, bundle[5])
    names = [bytes.fromhex(node["ak_name"]) for node in policy.get("node", ()) if node["id"] == bundle[4]]
    if names and bytes(public.get_name()) not in names:
        raise ValueError("another Name")
    keys = []
    for session in bundle[6]:
        statement = canonical(session[0])
        keys.append(statement[5])
        quoted(session[1], public, session[0])
        for epoch in session[4]:
            canonical(epoch[0])
            quoted(epoch[1], public, epoch[0])
            for one in epoch.get(2, ()):
                attested(one[0], one[1], public, epoch[0], TPM2_ST.ATTEST_NV)
        for one in session.get(5, ()):
            attested(one[0], one[1], public, session[0], TPM2_ST.ATTEST_NV)
    for leaf in bundle.get(7, {2: ()})[2]:
        canonical(leaf)
        count("entries")
    for message in bundle.get(13, ()):
        signed(message, keys)
    for message in bundle.get(10, ()):
        signed(message, [read(key) for key in policy.get("authority", {}).get("keys", ())])
    for evidence in bundle.get(11, ()):
        for message in canonical(evidence)[2]:
            signed(message, [read(mark["key"]) for mark in policy.get("landmark", ())])


def main(words):
    folders = [pathlib.Path(word) for word in words if word != "--demo"]
    if "--demo" in words:
        files = [(file, folder / "trust.toml") for folder in folders for file in sorted(folder.glob("*.merestone"))]
    else:
        passing = (case for folder in folders for case in sorted(folder.glob("*/expect")) if case.read_text().endswith(" 0\n"))
        files = [(case.parent / "file.cbor", case.parent / "trust.toml") for case in passing]
    wrong = 0
    for file, trust in files:
        try:
            judge(file, trust)
        except Exception as error:  # whatever a foreign library raises
            wrong += 1
            print(f"NOT TAKEN {file}: {type(error).__name__}: {error}")
    counts = ", ".join(f"{number} {what}" for what, number in sorted(COUNTS.items()))
    print(f"{len(files) - wrong} of {len(files)} files are taken by tpm2-pytss, pycose and cbor2 ({counts})")
    return 4 if not files else int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
