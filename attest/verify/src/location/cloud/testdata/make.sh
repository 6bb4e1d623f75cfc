#!/bin/sh
# Makes the documents beside it, in the forms of the clouds, with keys that are thrown away.
# Needs OpenSSL 3. The session's digest is 32 bytes of 07.
set -eu
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
years="-days 36500"
key() { openssl genrsa -out "$work/$1.key" 2048 2>/dev/null; }
for name in aws other root ca leaf rogue google; do key $name; done
openssl req -x509 -new -key "$work/aws.key" -subj "/CN=aws" $years -out aws.pem
openssl req -x509 -new -key "$work/other.key" -subj "/CN=aws" $years -out other.pem
cat > aws.json <<'END'
{
  "accountId" : "123456789012",
  "architecture" : "x86_64",
  "availabilityZone" : "eu-central-1b",
  "instanceId" : "i-0123456789abcdef0",
  "instanceType" : "p5.48xlarge",
  "pendingTime" : "2025-10-09T08:00:00Z",
  "region" : "eu-central-1",
  "version" : "2017-09-30"
}
END
truncate -s -1 aws.json
# Lengths left open and the content in pieces, as the metadata service writes it.
openssl cms -sign -binary -in aws.json -signer aws.pem -inkey "$work/aws.key" -md sha256 \
  -nodetach -nocerts -stream -indef -outform DER | base64 -w 64 > aws.rsa2048
openssl cms -sign -binary -in aws.json -signer aws.pem -inkey "$work/aws.key" -md sha256 \
  -nocerts -outform DER | base64 -w 64 > aws.detached
openssl cms -sign -binary -noattr -in aws.json -signer aws.pem -inkey "$work/aws.key" -md sha256 \
  -nocerts -outform DER | base64 -w 64 > aws.noattr
openssl cms -sign -binary -in aws.json -signer aws.pem -inkey "$work/aws.key" -md sha1 \
  -nocerts -outform DER | base64 -w 64 > aws.sha1

openssl req -x509 -new -key "$work/root.key" -subj "/CN=root" $years -out azure-root.pem
openssl req -x509 -new -key "$work/rogue.key" -subj "/CN=root" $years -out "$work/rogue.pem"
cat > "$work/ca.ext" <<'END'
basicConstraints = critical, CA:true, pathlen:0
keyUsage = critical, keyCertSign
END
leaf() {
  printf 'basicConstraints = critical, CA:false\nkeyUsage = critical, digitalSignature, keyEncipherment\nsubjectAltName = DNS:%s\n' "$1"
}
leaf westeurope.metadata.azure.com > "$work/leaf.ext"
leaf metadata.azure.com.example.org > "$work/stranger.ext"
sign() { # subject, key, issuer's certificate, issuer's key, extensions, out
  openssl req -new -key "$work/$2.key" -subj "/CN=$1" |
    openssl x509 -req -CA "$3" -CAkey "$work/$4.key" -extfile "$work/$5.ext" $years -out "$6" 2>/dev/null
}
sign ca ca azure-root.pem root ca "$work/ca.pem"
sign leaf leaf "$work/ca.pem" ca leaf "$work/leaf.pem"
sign leaf leaf "$work/ca.pem" ca stranger "$work/stranger.pem"
sign ca ca "$work/rogue.pem" rogue ca "$work/rogue-ca.pem"
azure() { # nonce, signer, issuer, out
  printf '{"licenseType":"","nonce":"%s","plan":{"name":"","product":"","publisher":""},"sku":"22_04-lts","subscriptionId":"8d10da13-0000-0000-0000-000000000000","timeStamp":{"createdOn":"12/01/26 00:00:00 -0000","expiresOn":"12/01/26 06:00:00 -0000"},"vmId":"02aab8a4-74ef-476e-8182-f6d2ba4166a6"}' "$1" > "$work/azure.json"
  body=$(openssl cms -sign -binary -in "$work/azure.json" -signer "$2" -inkey "$work/leaf.key" -certfile "$3" \
    -md sha256 -nodetach -outform DER | base64 -w 0)
  printf '{"encoding":"pkcs7","signature":"%s"}' "$body" > "$4"
}
# The first eight bytes of the digest, modulo 10^10.
nonce=$(python3 -c 'print("%010d" % (0x0707070707070707 % 10**10))')
azure "$nonce" "$work/leaf.pem" "$work/ca.pem" azure.good
azure 0000000000 "$work/leaf.pem" "$work/ca.pem" azure.nonce
azure "$nonce" "$work/stranger.pem" "$work/ca.pem" azure.stranger
sign leaf leaf "$work/rogue-ca.pem" ca leaf "$work/rogue-leaf.pem"
azure "$nonce" "$work/rogue-leaf.pem" "$work/rogue-ca.pem" azure.rogue

b64() { base64 -w 0 | tr '+/' '-_' | tr -d '='; }
modulus=$(openssl rsa -in "$work/google.key" -noout -modulus | cut -d= -f2 | xxd -r -p | b64)
printf '{"keys":[{"alg":"RS256","e":"AQAB","kid":"k1","kty":"RSA","n":"%s","use":"sig"}]}' "$modulus" > gcp.jwks
seven=$(printf '07%.0s' $(seq 32))
claims() { # audience, issuer
  printf '{"aud":"%s","azp":"1","exp":1796086800,"google":{"compute_engine":{"instance_creation_timestamp":1,"instance_id":"3245678901234567890","instance_name":"gpu-01","project_id":"p","project_number":1,"zone":"europe-west3-a"}},"iat":1796083200,"iss":"%s","sub":"1"}' "$1" "$2"
}
token() { # header, claims, out
  signed="$(printf '%s' "$1" | b64).$(printf '%s' "$2" | b64)"
  printf '%s.%s' "$signed" "$(printf '%s' "$signed" | openssl dgst -sha256 -sign "$work/google.key" -binary | b64)" > "$3"
}
good='{"alg":"RS256","kid":"k1","typ":"JWT"}'
google=https://accounts.google.com
token "$good" "$(claims "merestone:$seven" $google)" gcp.good
token "$good" "$(claims "merestone:00" $google)" gcp.audience
token "$good" "$(claims "merestone:$seven" https://example.org)" gcp.issuer
token '{"alg":"none","kid":"k1","typ":"JWT"}' "$(claims "merestone:$seven" $google)" gcp.none
token '{"alg":"RS256","kid":"k2","typ":"JWT"}' "$(claims "merestone:$seven" $google)" gcp.key
