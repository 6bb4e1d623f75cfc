"""What a GPU's maker published of its measurements, for gpu.py: manifests read by lxml, their signatures checked by signxml."""
import base64

import certificates
from certificates import Refused
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from lxml import etree
from signxml import DigestAlgorithm, SignatureMethod, XMLVerifier
from signxml.exceptions import SignXMLException
from signxml.verifier import SignatureConfiguration

FAILED, INDETERMINATE = 2, 3
TAG = "{http://standards.iso.org/iso/19770/-2/2015/schema.xsd}"
SIGNATURE = "{http://www.w3.org/2000/09/xmldsig#}"
VALUE = "{http://www.w3.org/2001/04/xmlenc#sha384}Hash"
DECODER, DECODER_OFF, DECODER_AT = 11, b"\x55", 36


def read(data):
    """Version, values by the index of a report, and certificates of a manifest; ValueError where it does not hold."""
    try:
        whole = etree.fromstring(data, etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False))
        held = whole.findall(f"{SIGNATURE}Signature/{SIGNATURE}KeyInfo/{SIGNATURE}X509Data/{SIGNATURE}X509Certificate")
        chain = [x509.load_der_x509_certificate(base64.b64decode(one.text)) for one in held]
        config = SignatureConfiguration(
            location="./", signature_methods=frozenset([SignatureMethod.ECDSA_SHA384]),
            digest_algorithms=frozenset([DigestAlgorithm.SHA384]), verification_time=chain[0].not_valid_before_utc)
        signed = XMLVerifier().verify(data, x509_cert=chain[0], expect_config=config).signed_xml
        (meta,), (payload,) = signed.findall(TAG + "Meta"), signed.findall(TAG + "Payload")
        values = {int(one.get("index")) + 1: [bytes.fromhex(one.get(f"{VALUE}{n}")) for n in range(int(one.get("alternatives")))]
                  for one in payload if one.get("active") in ("True", "true")}
        return meta.get("colloquialVersion").lower(), values, chain
    except (etree.XMLSyntaxError, SignXMLException, AttributeError, IndexError, TypeError) as error:
        raise ValueError(f"manifest: {error}") from error


def may_sign(chain, trust, at):
    """Refused unless the maker's root leads to the signer."""
    leaf = chain[0]
    usage = certificates.extension(leaf, x509.KeyUsage)
    if certificates.is_authority(leaf) or usage is None or not usage.digital_signature:
        raise Refused(1, "no certificate of a key that signs")
    if trust["rims_may_be_expired"] and at > leaf.not_valid_after_utc.timestamp():
        at = leaf.not_valid_before_utc.timestamp()
    way = certificates.path(leaf, chain[1:], trust["rim_roots"], [], at)
    if any(one.fingerprint(hashes.SHA256()).hex() in trust["on_hold"] for one in way):
        raise Refused(FAILED, "a certificate on hold")


def compare(measurements, told, trust, at):
    """Refused unless the measurements are those of a manifest of the driver and one of the VBIOS that the report names."""
    driver = told.get(3, b"").split(b"\0")[0].decode(errors="replace")
    number = told.get(6, b"")[:5]
    vbios = ".".join(f"{part:02x}" for part in number[3::-1] + number[4:]) if len(number) == 5 else ""
    found = [[one for one in trust["rims"] if one[0] == version.lower()] for version in (driver, vbios)]
    for manifests in found:
        if not manifests:
            raise Refused(INDETERMINATE, "no manifest of that version")
        for _, _, chain in manifests:
            may_sign(chain, trust, at)
    skip = {DECODER_AT} if told.get(DECODER) == DECODER_OFF else set()
    for _, own, _ in found[0]:
        for _, other, _ in found[1]:
            both = {**own, **other}
            fits = all(measurements.get(at) in values for at, values in both.items() if at not in skip)
            if fits and not own.keys() & other.keys():
                return
    raise Refused(FAILED, "not what the maker signed")
