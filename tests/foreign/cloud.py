"""Documents of clouds for verify.py (docs/location.md): signed data by OpenSSL's own command, tokens by cryptography."""
import base64
import datetime
import json
import pathlib
import shutil
import subprocess
import tempfile

from certificates import Refused, extension, in_pem, path
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

UNTRUSTED, FAILED = 1, 2
SHA1 = bytes.fromhex("06052b0e03021a")
KEYS = {"provider", "certificates", "jwks", "regions", "instances"}


def number(text):
    return int.from_bytes(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), "big")


def read(policy, folder, usage):
    """Each `[[cloud]]`, by its provider."""
    clouds = {}
    for one in policy.get("cloud", ()):
        if set(one) - KEYS or one["provider"] not in ("aws", "azure", "gcp") or not one["instances"]:
            raise usage(f"[[cloud]]: {sorted(set(one) - KEYS)}")
        if one["provider"] != "gcp" and shutil.which("openssl") is None:
            raise usage("no openssl")
        held = lambda text, mark: text if text.lstrip().startswith(mark) else (folder / text).read_text()
        pem = "".join(held(text, "-----BEGIN") for text in one.get("certificates", ()))
        keys = json.loads(held(one["jwks"], "{"))["keys"] if "jwks" in one else []
        keys = {key["kid"]: rsa.RSAPublicNumbers(number(key["e"]), number(key["n"])).public_key() for key in keys}
        clouds[one["provider"]] = {"pem": pem, "keys": keys, "regions": one.get("regions", []), "instances": one["instances"]}
    return clouds


def openssl(signed, content, pem):
    """What OpenSSL says was signed, by which certificate, and those it found beside it."""
    if SHA1 in signed:
        raise ValueError("SHA-1")
    with tempfile.TemporaryDirectory() as folder:
        at = pathlib.Path(folder)
        (at / "signed").write_bytes(signed)
        words = ["openssl", "cms", "-verify", "-binary", "-noverify", "-inform", "DER", "-in", at / "signed",
                 "-out", at / "out", "-signer", at / "signer", "-certsout", at / "beside"]
        if content is not None:
            (at / "content").write_bytes(content)
            # Where the content is inside as well, OpenSSL takes that; it is compared below.
            words += ["-content", at / "content"]
        if pem is not None:
            (at / "pinned").write_text(pem)
            words += ["-nointern", "-certfile", at / "pinned"]
        ended = subprocess.run(words, capture_output=True, check=False)
        if ended.returncode != 0:
            raise ValueError(ended.stderr.decode(errors="replace").splitlines()[-1:])
        beside = (at / "beside").read_text() if (at / "beside").exists() else ""
        return (at / "out").read_bytes(), in_pem((at / "signer").read_text())[0], in_pem(beside)


def aws(document, signature, trust, own, closed_ms):
    if signature is None:
        raise ValueError("no signature")
    body = "".join(line for line in signature.decode().split() if not line.startswith("-----"))
    out, _, _ = openssl(base64.b64decode(body), document, trust["pem"])
    if out != document:
        raise ValueError("another document inside")
    said = json.loads(document)
    return said["instanceId"], said["region"], None


def azure(document, signature, trust, own, closed_ms):
    answer = json.loads(document)
    if answer["encoding"] != "pkcs7":
        raise ValueError("another encoding")
    out, signer, beside = openssl(base64.b64decode(answer["signature"]), None, None)
    try:
        path(signer, beside, in_pem(trust["pem"]), [], closed_ms // 1000)
    except Refused as error:
        raise ValueError(str(error)) from error
    names = extension(signer, x509.SubjectAlternativeName).get_values_for_type(x509.DNSName)
    if not any(("." + name).endswith(".metadata.azure.com") for name in names):
        raise ValueError(f"signed by {names}")
    said = json.loads(out)
    if said["nonce"] != f"{int.from_bytes(own[:8], 'big') % 10**10:010}":
        raise ValueError("another nonce")
    at = lambda key: 1000 * datetime.datetime.strptime(said["timeStamp"][key], "%m/%d/%y %H:%M:%S %z").timestamp()
    return said["vmId"], None, (at("createdOn"), at("expiresOn"))


def gcp(document, signature, trust, own, closed_ms):
    signed, _, mark = document.decode().strip().rpartition(".")
    part = lambda text: base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    header, claims = (part(text) for text in signed.split("."))
    header = json.loads(header)
    if header["alg"] != "RS256" or "crit" in header or header["kid"] not in trust["keys"]:
        raise ValueError("another algorithm or key")
    trust["keys"][header["kid"]].verify(part(mark), signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    said = json.loads(claims)
    if said["iss"] != "https://accounts.google.com" or said["aud"] != "merestone:" + own.hex():
        raise ValueError("another issuer or audience")
    engine = said["google"]["compute_engine"]
    return engine["instance_id"], engine["zone"].rpartition("-")[0], (1000 * said["iat"], 1000 * said["exp"])


READERS = {"aws": aws, "azure": azure, "gcp": gcp}


def shown(rounds, sessions, trust, leeway, faults):
    """Whether every session has a document of a pinned cloud that holds."""
    by_session = {session["statement"][2]: session["said"]["statement"] for session in sessions}
    have, any_faults = set(), len(faults)
    for evidence, own, epoch in rounds:
        for document in evidence[3]:
            cloud = trust.get(document[0])
            if cloud is None:
                continue
            try:
                instance, region, made = READERS[document[0]](
                    document[1], document.get(2), cloud, by_session[own[2]], epoch[6])
            except (ValueError, KeyError, TypeError, AttributeError, InvalidSignature) as error:
                faults.append((UNTRUSTED, f"{document[0]}: {type(error).__name__} {error}"))
                continue
            if made is not None and (made[0] > epoch[6] + leeway or made[1] < epoch[5] - leeway):
                faults.append((FAILED, "a document of another time"))
            elif instance not in cloud["instances"] or region is not None and region not in cloud["regions"]:
                faults.append((FAILED, "another instance or region"))
            else:
                have.add(own[2])
    return len(faults) == any_faults and bool(have) and have >= set(by_session)
