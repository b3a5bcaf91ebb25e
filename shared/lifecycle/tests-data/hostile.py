#!/usr/bin/env python3
"""Makes hostile.pem: CSRs for names outside a policy of example.com, 10.0.0.0/8 and 2001:db8::/32, by every means that was thought
of. Run by hand; the tests read what is committed. All but `other-key` and `tampered` are signed as they should be."""

import base64, subprocess, tempfile

UTF8, PRINTABLE, T61, IA5, UNIVERSAL, BMP, GENERAL = 0x0c, 0x13, 0x14, 0x16, 0x1c, 0x1e, 0x1b
CN, O, DC, MAIL = "2.5.4.3", "2.5.4.10", "0.9.2342.19200300.100.1.25", "1.2.840.113549.1.9.1"
REQUEST, MICROSOFT_REQUEST, SAN = "1.2.840.113549.1.9.14", "1.3.6.1.4.1.311.2.1.14", "2.5.29.17"


def tlv(tag, *parts):
    content = b"".join(parts)
    length = len(content)
    if length < 128:
        return bytes([tag, length]) + content
    octets = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes([tag, 128 | len(octets)]) + octets + content


def sequence(*parts):
    return tlv(0x30, *parts)


def set_of(*parts):
    return tlv(0x31, *parts)


def oid(dotted):
    first, second, *rest = map(int, dotted.split("."))
    octets = b""
    for arc in [40 * first + second, *rest]:
        groups = [arc & 127]
        while arc := arc >> 7:
            groups.append(128 | arc & 127)
        octets += bytes(reversed(groups))
    return tlv(0x06, octets)


def attribute(kind, text, tag=UTF8):
    return sequence(oid(kind), tlv(tag, text if isinstance(text, bytes) else text.encode()))


def subject(*attributes):
    """Each attribute in a part of its own."""
    return sequence(*[set_of(one) for one in attributes])


def cn(text, tag=UTF8):
    return subject(attribute(CN, text, tag))


def name(tag, text):
    return tlv(tag, text if isinstance(text, bytes) else text.encode())


def dns(text):
    return name(0x82, text)


def alternative(*names, after=b""):
    return sequence(oid(SAN), tlv(0x04, sequence(*names) + after))


def request(*extensions, kind=REQUEST, after=b""):
    return sequence(oid(kind), set_of(sequence(*extensions)), after)


KEYS = tempfile.mkdtemp()


def openssl(*arguments, given=None):
    return subprocess.run(["openssl", *arguments], input=given, check=True, capture_output=True).stdout


def key(name):
    path = f"{KEYS}/{name}"
    openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", path)
    return path, openssl("pkey", "-in", path, "-pubout", "-outform", "DER")


(OURS, PUBLIC), (OTHER, _) = key("ours"), key("other")
ORDERS = alternative(dns("orders.example.com"))


def csr(subject=cn("orders"), *attributes, signer=OURS, after=b"", tamper=lambda info: info):
    info = sequence(tlv(0x02, b"\0"), subject, PUBLIC, tlv(0xa0, *attributes), after)
    signature = openssl("dgst", "-sha256", "-sign", signer, given=info)
    return sequence(tamper(info), sequence(oid("1.2.840.10045.4.3.2")), tlv(0x03, b"\0", signature))


def names(*names):
    return csr(cn("orders"), request(alternative(*names)))


def named(subject):
    """The alternative name is a good one."""
    return csr(subject, request(ORDERS))


def mail(text):
    return names(name(0x81, text))


def uri(text):
    return names(name(0x86, text))


def address(octets):
    return names(name(0x87, bytes(octets)))


EVIL = alternative(dns("evil.test"))
HOSTILE = {
    "outside": names(dns("evil.test")),
    "one-of-two": names(dns("orders.example.com"), dns("evil.test")),
    "upper-case": names(dns("EVIL.TEST")),
    "suffix": names(dns("evilexample.com")),
    "prefix": names(dns("example.com.evil.test")),
    "wildcard-above": names(dns("*.com")),
    "wildcard-alone": names(dns("*")),
    "wildcard-in-label": names(dns("*example.com")),
    "wildcard-twice": names(dns("*.*.example.com")),
    "wildcard-inside": names(dns("orders.*.example.com")),
    "trailing-dot": names(dns("example.com.")),
    "leading-dot": names(dns(".example.com")),
    "nul": names(dns("evil.test\0.example.com")),
    "new-line": names(dns("evil.test\n.example.com")),
    "space": names(dns("evil.test .example.com")),
    "comma": names(dns("evil.test,dns:orders.example.com")),
    "slash": names(dns("evil.test/.example.com")),
    "port": names(dns("evil.test:443.example.com")),
    "empty": names(dns("")),
    "homograph": names(dns("\u0435xample.com")),
    "homograph-in-ascii": names(dns("xn--xample-2of.com")),
    "dot-of-another-script": names(dns("evil\u3002test")),
    "not-utf-8": names(dns(b"evil.test\xff.example.com")),
    "overlong-utf-8": names(dns(b"evil\xc0\xaetest")),
    "long-label": names(dns("a" * 64 + ".example.com")),
    "long-name": names(dns("a." * 130 + "example.com")),
    "address-as-host": names(dns("192.168.0.1")),
    "mail-outside": mail("ops@evil.test"),
    "mail-two-hosts": mail("ops@evil.test@example.com"),
    "mail-quoted": mail('"ops@evil.test"@example.com'),
    "mail-nul": mail("ops@evil.test\0@example.com"),
    "mail-of-nobody": mail("@example.com"),
    "mail-domain": mail("example.com"),
    "mail-wildcard": mail("ops@*.example.com"),
    "mail-beyond-ascii": mail("\u00f6ps@example.com"),
    "uri-trust-domain": uri("spiffe://evil.test/orders"),
    "uri-below-trust-domain": uri("spiffe://orders.example.com/orders"),
    "uri-user": uri("spiffe://example.com@evil.test/orders"),
    "uri-port": uri("spiffe://example.com:8443/orders"),
    "uri-query": uri("spiffe://example.com/orders?x=spiffe://evil.test"),
    "uri-query-alone": uri("spiffe://example.com?x"),
    "uri-fragment": uri("spiffe://example.com/orders#x"),
    "uri-percent": uri("spiffe://example.com/%2e%2e/admin"),
    "uri-dots": uri("spiffe://example.com/../admin"),
    "uri-empty-part": uri("spiffe://example.com//admin"),
    "uri-upper-case": uri("spiffe://EXAMPLE.COM/orders"),
    "uri-scheme-upper-case": uri("SPIFFE://example.com/orders"),
    "uri-backslash": uri("spiffe://example.com\\@evil.test/orders"),
    "uri-web": uri("https://example.com@evil.test/"),
    "uri-nul": uri("spiffe://example.com\0.evil.test/orders"),
    "uri-long": uri("spiffe://example.com/" + "a" * 2048),
    "address-outside": address([192, 168, 0, 1]),
    "address-mapped": address([0] * 10 + [255, 255, 192, 168, 0, 1]),
    "address-mapped-inside": address([0] * 10 + [255, 255, 10, 0, 0, 1]),
    "network": address([10, 0, 0, 0, 255, 0, 0, 0]),
    "address-of-five": address([10, 0, 0, 0, 1]),
    "other-name": names(name(0xa0, oid("1.3.6.1.4.1.311.20.2.3") + tlv(0xa0, tlv(UTF8, b"admin@evil.test")))),
    "directory-name": names(name(0xa4, cn("evil.test"))),
    "x400-address": names(name(0xa3, sequence())),
    "edi-party": names(name(0xa5, tlv(0xa1, tlv(UTF8, b"evil.test")))),
    "registered-id": names(name(0x88, b"\x2a\x03\x04")),
    "unknown-kind": names(name(0x89, "evil.test")),
    "common-name": named(cn("evil.test")),
    "common-name-upper-case": named(cn("Evil.TEST")),
    "common-name-dot": named(cn("evil.test.")),
    "common-name-leading-dot": named(cn(".evil.test")),
    "common-name-two-dots": named(cn("www..evil.test")),
    "common-name-wildcard": named(cn("*.evil.test")),
    "common-name-asterisk": named(cn("*")),
    "common-name-hyphen": named(cn("-evil.test")),
    "common-name-long-label": named(cn("a" * 60 + ".test")),
    "common-name-nul": named(cn("evil.test\0.example.com")),
    "common-name-homograph": named(cn("\u0435xample.com")),
    "common-name-in-unicode": named(cn("b\u00fccher.evil.test")),
    "common-name-full-width": named(cn("\uff45vil.test")),
    "common-name-dot-of-another-script": named(cn("evil\uff0etest")),
    "common-name-zero-width": named(cn("evil\u200b.test")),
    "common-name-mail": named(cn("ops@evil.test")),
    "common-name-mail-beyond-ascii": named(cn("\u00f6ps@evil.test")),
    "common-name-address": named(cn("192.168.0.1")),
    "common-name-uri": named(cn("spiffe://evil.test/orders")),
    "common-name-too-long": named(cn("a" * 65)),
    "common-name-as-t61": named(cn("evil.test", T61)),
    "common-name-as-ia5": named(cn("evil.test", IA5)),
    "common-name-as-printable": named(cn("evil.test", PRINTABLE)),
    "common-name-as-general": named(cn("evil.test", GENERAL)),
    "common-name-as-bmp": named(cn("evil.test".encode("utf-16-be"), BMP)),
    "common-name-as-universal": named(cn("evil.test".encode("utf-32-be"), UNIVERSAL)),
    "common-name-in-pieces": named(cn(tlv(UTF8, b"evil") + tlv(UTF8, b".test"), UTF8 | 0x20)),
    "common-name-as-octets": named(cn("evil.test", 0x04)),
    "two-common-names": named(subject(attribute(CN, "orders"), attribute(CN, "evil.test"))),
    "two-common-names-in-one-part": named(sequence(set_of(attribute(CN, "orders"), attribute(CN, "evil.test")))),
    "domain-components": named(subject(attribute(DC, "test", IA5), attribute(DC, "evil", IA5), attribute(CN, "orders"))),
    "mail-attribute": named(subject(attribute(CN, "orders"), attribute(MAIL, "ops@evil.test", IA5))),
    "name-after-an-empty-part": named(sequence(set_of(attribute(CN, "orders")), set_of(), set_of(attribute(CN, "evil.test")))),
    "name-after-a-broken-part": named(sequence(set_of(attribute(CN, "orders")), sequence(), set_of(attribute(CN, "evil.test")))),
    "name-beside-a-broken-one": named(sequence(set_of(attribute(CN, "orders"), sequence(), attribute(CN, "evil.test")))),
    "value-after-a-value": named(subject(sequence(oid(CN), tlv(UTF8, b"orders"), tlv(UTF8, b"evil.test")))),
    "names-twice": csr(cn("orders"), request(ORDERS, EVIL)),
    "good-names-twice": csr(cn("orders"), request(ORDERS, ORDERS)),
    "two-requests": csr(cn("orders"), request(ORDERS), request(EVIL)),
    "two-values": csr(cn("orders"), sequence(oid(REQUEST), set_of(sequence(ORDERS), sequence(EVIL)))),
    "request-of-microsoft": csr(cn("orders"), request(ORDERS), request(EVIL, kind=MICROSOFT_REQUEST)),
    "request-of-microsoft-alone": csr(cn("orders"), request(EVIL, kind=MICROSOFT_REQUEST)),
    "request-after-a-request": csr(cn("orders"), request(ORDERS, after=set_of(sequence(EVIL)))),
    "request-after-the-attributes": csr(cn("orders"), request(ORDERS), after=tlv(0xa0, request(EVIL))),
    "request-beside-the-attributes": csr(cn("orders"), after=request(ORDERS)),
    "names-after-the-names": csr(cn("orders"), request(alternative(dns("orders.example.com"), after=sequence(dns("evil.test"))))),
    "names-after-the-extension": csr(
        cn("orders"),
        request(sequence(oid(SAN), tlv(0x04, sequence(dns("orders.example.com"))), tlv(0x04, sequence(dns("evil.test")))))),
    "names-unreadable": csr(cn("orders"), request(sequence(oid(SAN), tlv(0x04, b"\x30\x80evil.test\0\0")))),
    "other-key": csr(cn("orders"), request(ORDERS), signer=OTHER),
    "tampered": csr(cn("orders"), request(ORDERS), tamper=lambda info: info.replace(b"orders", b"admins")),
}

with open("hostile.pem", "w") as out:
    out.write("CSRs that ask for what they should not get, made by hostile.py. One block each, after its name.\n")
    for called, der in HOSTILE.items():
        text = base64.b64encode(der).decode()
        lines = "\n".join(text[start:start + 64] for start in range(0, len(text), 64))
        out.write(f"\n# {called}\n-----BEGIN CERTIFICATE REQUEST-----\n{lines}\n-----END CERTIFICATE REQUEST-----\n")
