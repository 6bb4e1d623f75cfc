#!/bin/sh
# Makes the certificates beside it for the key of the tests, `../test-only-rsa-2048.pk8`: Azure's
# signer, one of another name, their issuer and its own. The issuers' keys are thrown away. Valid
# since 2025-01-01: the evidence of the tests is of that year.
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
openssl pkey -inform DER -in ../test-only-rsa-2048.pk8 -out "$work/leaf.key"
for name in root ca; do openssl genrsa -out "$work/$name.key" 2048 2>/dev/null; done
cat >"$work/ca.conf" <<END
[ca]
default_ca = own
[own]
database = $work/index
new_certs_dir = $work
rand_serial = yes
default_md = sha256
default_startdate = 20250101000000Z
default_enddate = 21250101000000Z
policy = any
[any]
commonName = supplied
[root]
basicConstraints = critical, CA:true
keyUsage = critical, keyCertSign
[issuer]
basicConstraints = critical, CA:true, pathlen:0
keyUsage = critical, keyCertSign
[leaf]
basicConstraints = critical, CA:false
keyUsage = critical, digitalSignature, keyEncipherment
subjectAltName = DNS:westeurope.metadata.azure.com
[stranger]
basicConstraints = critical, CA:false
keyUsage = critical, digitalSignature, keyEncipherment
subjectAltName = DNS:metadata.azure.com.example.org
END
sign() { # subject, key, extensions, out, then who signs
    subject=$1 key=$2 extensions=$3 out=$4
    shift 4
    : >"$work/index"
    openssl req -new -key "$work/$key.key" -subj "/CN=$subject" -out "$work/request"
    openssl ca -batch -notext -config "$work/ca.conf" -extensions "$extensions" \
        -in "$work/request" -out "$out" "$@" 2>/dev/null
}
sign root root root azure-root.pem -selfsign -keyfile "$work/root.key"
sign issuer ca issuer azure-issuer.pem -cert azure-root.pem -keyfile "$work/root.key"
sign leaf leaf leaf azure-leaf.pem -cert azure-issuer.pem -keyfile "$work/ca.key"
sign leaf leaf stranger azure-stranger.pem -cert azure-issuer.pem -keyfile "$work/ca.key"
