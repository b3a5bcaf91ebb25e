#!/bin/sh
# Makes authorities.pem: self-signed CAs of each algorithm, oddities among them, and what is no CA at all. Run by hand with
# OpenSSL 3 or later; the tests read what is committed. All are valid from the day of the run for a hundred years.
set -eu

cd "$(dirname "$0")"
out=$PWD/authorities.pem
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
cd "$work"

cat > openssl.cnf <<'END'
[req]
distinguished_name = name
[name]
[ca]
basicConstraints = critical, CA:true
keyUsage = critical, keyCertSign, cRLSign
[names_constrained]
basicConstraints = critical, CA:true
nameConstraints = permitted;DNS:example.com
[policy_constrained]
basicConstraints = critical, CA:true
policyConstraints = critical, requireExplicitPolicy:0
[leaf]
basicConstraints = critical, CA:false
END

echo 'CAs and others made with `openssl` by authorities.sh. One block each, after its name.' > "$out"

block() {
    { printf '\n# %s\n' "$1"; cat; } >> "$out"
}

# A CA by its name, the extensions and the options of its key and signature. The key stays in key.pem.
ca() {
    name=$1 extensions=$2
    shift 2
    openssl req -x509 -config openssl.cnf -extensions "$extensions" -subj "/CN=$name" -days 36500 -nodes -keyout key.pem "$@" \
        2> log > certificate.pem || { cat log; exit 1; }
    block "$name" < certificate.pem
}

ec="-newkey ec -pkeyopt ec_paramgen_curve"
for hash in 256 384 512; do
    ca "rsa-sha$hash" ca -newkey rsa:2048 -sha$hash
    ca "pss-sha$hash" ca -newkey rsa:2048 -sha$hash -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:digest
    for curve in P-256 P-384 P-521; do
        ca "$(echo $curve | tr -d -)-sha$hash" ca $ec:$curve -sha$hash
    done
done
ca rsa-8192 ca -newkey rsa:8192 -sha256

# What ALB does not take.
ca rsa-1024 ca -newkey rsa:1024 -sha256
ca rsa-2046 ca -newkey rsa:2046 -sha256
# OpenSSL makes one bit less of an odd number.
ca rsa-8194 ca -newkey rsa:8194 -sha256
ca rsa-md5 ca -newkey rsa:2048 -md5
ca rsa-sha1 ca -newkey rsa:2048 -sha1
ca P256-sha1 ca $ec:P-256 -sha1
ca P256-sha224 ca $ec:P-256 -sha224
ca P256-sha3 ca $ec:P-256 -sha3-256
ca pss-sha1 ca -newkey rsa:2048 -sha1 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:digest
ca pss-salt ca -newkey rsa:2048 -sha256 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:20
ca pss-key ca -newkey rsa-pss -sha256 -sigopt rsa_pss_saltlen:digest
ca ed25519 ca -newkey ed25519
ca secp256k1 ca $ec:secp256k1 -sha256
ca brainpool ca $ec:brainpoolP256r1 -sha256
ca P256-explicit ca $ec:P-256 -pkeyopt ec_param_enc:explicit -sha256
ca name-constraints names_constrained $ec:P-256
ca policy-constraints policy_constrained $ec:P-256
ca negative-serial ca $ec:P-256 -set_serial -7
ca leaf leaf $ec:P-256
# Without extensions it is of version 1.
openssl req -new -config openssl.cnf -subj /CN=version-1 $ec:P-256 -nodes -keyout key.pem -out request.pem 2> log
openssl x509 -req -in request.pem -signkey key.pem -days 36500 2> log | block version-1

# What is none: of one CA, which is also there as it should be.
ca plain ca $ec:P-256
openssl x509 -in certificate.pem -trustout | block trusted
openssl crl2pkcs7 -nocrl -certfile certificate.pem | block pkcs7
openssl req -new -config openssl.cnf -subj /CN=plain -key key.pem | block csr
cat > index.txt << END
V	21260101000000Z		05	unknown	/CN=valid
R	21260101000000Z	270101000000Z	0A01	unknown	/CN=one
R	21260101000000Z	270102000000Z	7F	unknown	/CN=two
END
cat > crl.cnf << END
[ca]
default_ca = numbered
[numbered]
database = index.txt
crlnumber = number
[unnumbered]
database = index.txt
[plain]
authorityKeyIdentifier = keyid
[partitioned]
authorityKeyIdentifier = keyid
issuingDistributionPoint = critical, @point
[point]
fullname = URI:http://example.com/crl
[delta]
authorityKeyIdentifier = keyid
2.5.29.27 = critical, DER:020101
END
crl() {
    echo 1001 > number
    openssl ca -gencrl -config crl.cnf -cert certificate.pem -keyfile key.pem -md sha256 \
        -crl_lastupdate 20270101000000Z -crl_nextupdate 20270108000000Z "$@" 2> log || { cat log; exit 1; }
}
for extensions in plain partitioned delta; do
    crl -crlexts $extensions | block "crl-$extensions"
done
crl -name unnumbered | block crl-unnumbered
