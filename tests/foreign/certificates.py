"""X.509 for verify.py: from a certificate to a pinned one (RFC 5280), and what the end of a path has to be."""
import datetime
import re
import warnings

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtensionOID as Known

warnings.filterwarnings("ignore", "Parsed a serial number")  # vendors' numbers are negative now and then
UNTRUSTED, FAILED, INDETERMINATE = 1, 2, 3
PEM = re.compile("-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
EK = x509.ObjectIdentifier("2.23.133.8.1")
UNDERSTOOD = {Known.SUBJECT_DIRECTORY_ATTRIBUTES, Known.KEY_USAGE, Known.SUBJECT_ALTERNATIVE_NAME, Known.BASIC_CONSTRAINTS,
              Known.CRL_DISTRIBUTION_POINTS, Known.CERTIFICATE_POLICIES, Known.EXTENDED_KEY_USAGE}
RESTRICTIONS = {Known.NAME_CONSTRAINTS, Known.POLICY_CONSTRAINTS, Known.INHIBIT_ANY_POLICY}


class Refused(Exception):
    """Grade and reason."""

    def __init__(self, grade, why):
        super().__init__(why)
        self.grade = grade


def in_pem(text):
    return [x509.load_pem_x509_certificate(block.encode()) for block in PEM.findall(text)]


def extension(certificate, kind):
    """The value of one extension, after all were looked at."""
    try:
        for one in certificate.extensions:
            if one.oid in RESTRICTIONS or one.critical and one.oid not in UNDERSTOOD:
                raise Refused(UNTRUSTED, f"extension {one.oid.dotted_string} is not understood")
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
    except ValueError as error:
        raise Refused(UNTRUSTED, str(error)) from error


def valid(certificate, at_s):
    at = datetime.datetime.fromtimestamp(at_s, datetime.timezone.utc)
    if not certificate.not_valid_before_utc <= at <= certificate.not_valid_after_utc:
        raise Refused(FAILED, "not valid at that time")


def issued(issuer, last, below):
    constraints, usage = extension(issuer, x509.BasicConstraints), extension(issuer, x509.KeyUsage)
    if constraints is None or not constraints.ca or not list(issuer.subject) or usage is not None and not usage.key_cert_sign:
        raise Refused(UNTRUSTED, "an issuer that may not issue")
    if constraints.path_length is not None and below > constraints.path_length:
        raise Refused(UNTRUSTED, "a path too long")
    if not isinstance(last.signature_hash_algorithm, (hashes.SHA256, hashes.SHA384, hashes.SHA512)):
        raise Refused(UNTRUSTED, "a weak hash")
    try:
        last.verify_directly_issued_by(issuer)
    except (InvalidSignature, TypeError, ValueError) as error:
        raise Refused(UNTRUSTED, "a signature that does not hold") from error


def path(leaf, between, roots, intermediates, at_s):
    """The way from the leaf to a pinned certificate, both with it."""
    valid(leaf, at_s)
    first = []

    def climb(way):
        last = way[-1]
        if len(way) > 1 and last in roots:
            return way
        for pinned, issuer in [(True, one) for one in roots] + [(False, one) for one in intermediates + between]:
            if issuer.subject != last.issuer or issuer in way or not pinned and len(way) >= 6:
                continue
            try:
                issued(issuer, last, sum(one.subject != one.issuer for one in way[1:]))
                if not pinned:
                    valid(issuer, at_s)
            except Refused as error:
                first.append(error)
                continue
            found = way + [issuer] if pinned else climb(way + [issuer])
            if found is not None:
                return found
        return None

    found = climb([leaf])
    if found is None:
        raise (first or [Refused(UNTRUSTED, "nobody pinned issued it")])[0]
    return found


def is_authority(certificate):
    constraints = extension(certificate, x509.BasicConstraints)
    return constraints is not None and constraints.ca


def endorsement(leaf, must_name_tpm):
    """The TCG EK Credential Profile for the end of a path."""
    extended, usage = extension(leaf, x509.ExtendedKeyUsage), extension(leaf, x509.KeyUsage)
    if is_authority(leaf) or extended is None or EK not in extended or usage is None:
        raise Refused(UNTRUSTED, "not an endorsement certificate")
    signs = usage.digital_signature or usage.content_commitment or usage.key_cert_sign or usage.crl_sign
    if signs or not (usage.key_encipherment or usage.key_agreement):
        raise Refused(UNTRUSTED, "not for encryption alone")
    key = leaf.public_key()
    if isinstance(key, rsa.RSAPublicKey) and key.key_size <= 2040:
        raise Refused(UNTRUSTED, "a short key")
    names = extension(leaf, x509.SubjectAlternativeName)
    if names is None and must_name_tpm:
        raise Refused(UNTRUSTED, "it does not name its TPM")
    told = [a for name in names or () if isinstance(name, x509.DirectoryName) for a in name.value]
    told = sorted(a.oid.dotted_string for a in told if a.oid.dotted_string in ("2.23.133.2.1", "2.23.133.2.2", "2.23.133.2.3"))
    if names is not None and told != ["2.23.133.2.1", "2.23.133.2.2", "2.23.133.2.3"]:
        raise Refused(UNTRUSTED, "not the names of one TPM")
