"""Enrolment certificates for verify.py: ek.chain and the enrolment checks of docs/formats/checks.md."""
import base64
import pathlib

import pycddl
from certificates import Refused, endorsement, in_pem, path
from cose import claims_of, opened, public_key
from cryptography import x509
from structures import sha256

UNTRUSTED, FAILED, INDETERMINATE = 1, 2, 3
CDDL = (pathlib.Path(__file__).parents[2] / "docs/formats/enrolment.cddl").read_text().replace(" .cbor geotag", "")
ENROLMENT, REVOCATIONS, GEOTAG = (pycddl.Schema(f"root = {root}\n{CDDL}") for root in ("enrolment", "revocations", "geotag"))
TABLE = {"keys", "ek_roots", "ek_intermediates", "ek_must_name_tpm", "required", "revocations", "max_revocation_age_s"}


def read(table, folder, usage):
    """`[authority]`; ValueError or `usage` for a fault."""
    if set(table) - TABLE:
        raise usage(f"unknown keys in [authority]: {sorted(set(table) - TABLE)}")
    inline = lambda text, start: text if text.lstrip().startswith(start) else (folder / text).read_text()
    key = lambda text: public_key(text if text.startswith("ed25519:") else inline(text, "-----BEGIN PUBLIC KEY"))
    keys = [key(text) for text in table["keys"]]
    many = lambda name: [one for text in table.get(name, ()) for one in in_pem(inline(text, "-----BEGIN CERTIFICATE"))]
    lists = {}
    for text in table.get("revocations", ()):
        message = base64.b64decode(text[7:], validate=True) if text.startswith("base64:") else (folder / text).read_bytes()
        place, payload = opened(message, "revocations", keys)
        if place in lists:
            raise usage("a second list of one authority")
        lists[place] = claims_of(payload, REVOCATIONS)
    return {"keys": keys, "roots": many("ek_roots"), "intermediates": many("ek_intermediates"), "lists": lists,
            "must_name": table.get("ek_must_name_tpm", True), "required": table.get("required", False),
            "max_age_s": table.get("max_revocation_age_s")}


def certified(bundle, trust, tally):
    """The claims of every certificate, each with the place of its signer's key."""
    held, found, numbers = bundle[10], [], {}
    tally.need(1 <= len(held) <= 64, "enrolment", f"{len(held)} certificates")
    for message in held:
        try:
            place, payload = opened(message, "enrolment", trust["keys"])
            claims = claims_of(payload, ENROLMENT)
        except ValueError as error:
            tally.stop(UNTRUSTED, "enrolment", str(error))
        sound = claims[6] == b"\x00\x0b" + sha256(claims[7]) and claims[3] < claims[4]
        tally.need(sound, "enrolment", "it contradicts itself")
        tally.need(claims[5] == bundle[4], "enrolment", "of another node")
        tally.need(claims[7] == bundle[5], "enrolment", "of another key")
        tally.need(claims[1] not in numbers, "enrolment", "one number twice")
        numbers[claims[1]] = sha256(message)
        found.append((claims, place))
    for claims, _ in found:
        replaced = claims.get(11)
        other = replaced and numbers.get(replaced[0], replaced[1])
        tally.need(replaced is None or other == replaced[1], "enrolment", "it replaces another one")
    return found


def traced(found, trust, tally):
    for claims, _ in found:
        if 12 not in claims:
            return tally.note(INDETERMINATE, "ek.chain", "no endorsement certificate")
        try:
            first, *rest = claims[12]
            leaf = x509.load_der_x509_certificate(first)
            between = []
            for one in rest:
                try:
                    between.append(x509.load_der_x509_certificate(one))
                except ValueError:
                    continue  # what else a TPM holds may be anything
            endorsement(leaf, trust["must_name"])
            path(leaf, between, trust["roots"], trust["intermediates"], claims[2] // 1000)
            if sha256(first) != claims[8][0]:
                raise Refused(UNTRUSTED, "another one than was enrolled")
        except ValueError as error:
            tally.stop(UNTRUSTED, "ek.chain", str(error))
        except Refused as error:
            (tally.stop if error.grade == UNTRUSTED else tally.note)(error.grade, "ek.chain", str(error))
            return None
    return None


def vouch(bundle, pinned, trust, tally):
    """Certificates that the key is believed by; none where the policy names no authority."""
    if trust is None:
        return []
    if 10 not in bundle:
        if not pinned or trust["required"]:
            tally.stop(INDETERMINATE, "enrolment", "no enrolment certificate")
        return []
    found = certified(bundle, trust, tally)
    if trust["roots"]:
        traced(found, trust, tally)
    return found


def judge(found, sessions, trust, now, tally):
    """Validity, revocation and place."""
    if not found:
        return
    sealed = {s["statement"][4] for s in sessions} | {e["statement"][6] for s in sessions for e in s["epochs"]}
    spells = []
    for claims, place in found:
        ends = [other[3] for other, _ in found if other.get(11, {}).get(0) == claims[1]]
        revoked = [one[1] for one in trust["lists"].get(place, {3: ()})[3] if one[0] == claims[1]]
        spells.append((claims[3], min([claims[4], *ends]), min(revoked, default=None)))
    holding = {at: [spell for spell in spells if spell[0] <= at < spell[1]] for at in sealed}
    if not all(holding.values()):
        tally.note(FAILED, "enrolment.validity", "sealed while none was valid")
    over = lambda spell, at: spell[2] is not None and at >= spell[2]
    if any(all(over(spell, at) for spell in those) for at, those in holding.items() if those):
        tally.note(UNTRUSTED, "enrolment.revocation", "sealed under a revoked one")
    else:
        issued = [trust["lists"].get(place, {}).get(1) for _, place in found]
        limit = trust["max_age_s"]
        if limit is not None and any(at is None or at < max(0, now - 1000 * limit) for at in issued):
            tally.note(INDETERMINATE, "enrolment.revocation", "no list, or an old one")
    pairs = [(c.get(10, {}), s["statement"].get(19, {})) for c, _ in found for s in sessions]
    if any(ours[key] != own[key] for ours, own in pairs for key in ours.keys() & own.keys()):
        tally.note(FAILED, "enrolment.site", "another place than the authority's")
