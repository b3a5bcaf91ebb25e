"""Certificates from the functions to a TLS handshake: issued on Local AWS, brought by the agent, served by real Envoys and a real
nginx that run the examples, and called with verification on.

Who must be refused comes first. Then a client connects all the time while a certificate rotates twenty times under the agent, and
another one while ECS, played here, redeploys; meanwhile two Envoys go through the stages of examples/envoy-mtls. All that was seen
is in one table; a row that is not as expected is marked, and the exit status is 1.

    .venv/bin/python tests/handshake.py [directory of the binaries, target/debug when absent]
"""

import concurrent.futures
import contextlib
import os
import platform
import re
import signal
import sys
import tempfile
import time

import botocore.exceptions

from peers import (Bench, Load, Tail, app, at_last, content, curl, curl_tls, enter, fetch, find_tools, gateway, grown,
                   move, nginx, sidecar, stop, teller, watch)
from stack import BINARIES, active_ca, hex_of, invoke, local_aws, openssl, wait_for

ROTATIONS, REDEPLOYMENTS = 20, 3


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    tools = find_tools()
    with (tempfile.TemporaryDirectory(prefix="everleaf-") as directory,
          concurrent.futures.ThreadPoolExecutor() as aside, contextlib.ExitStack() as processes):
        log = processes.enter_context(open(os.path.join(directory, "local-aws.log"), "w"))
        bench = Bench(processes.enter_context(local_aws(log)), directory, processes, tools)
        second, first = aside.submit(second_hierarchy, bench), first_hierarchy(bench)
        redeployed = aside.submit(redeployments, bench, first)
        print("Who is let in: half a minute", flush=True)
        shop = Shop(bench, first)
        refusals(bench, shop)
        print("Rotations, redeployments and stages: two minutes", flush=True)
        walked = aside.submit(walkthrough, bench, first, second.result(), shop.clients["gateway"])
        rotations(bench, shop)
        walked.result()
        redeployed.result()
        agent_figures(bench)
    bench.print_table()
    return 0 if all(row[-1] for row in bench.rows) else 1


# The CAs, and what a side needs of them.


def first_hierarchy(bench):
    """The stack's own: everything but the teller's certificate comes from it."""
    pca = bench.aws("acm-pca")
    found = {ca["CertificateAuthorityConfiguration"]["Subject"]["CommonName"]: ca["Arn"]
             for ca in pca.list_certificate_authorities()["CertificateAuthorities"]}
    hierarchy = [found["Local Issuing CA"], found["Local Root CA"]]
    publish_crls(pca, hierarchy[1])
    return hierarchy


def second_hierarchy(bench):
    """The teller's; ACM requests of it, and Everleaf exports."""
    pca, acm, secrets = bench.aws("acm-pca"), bench.aws("acm"), bench.aws("secretsmanager")
    root = active_ca(pca, "ROOT", "Teller Root CA", "RootCACertificate/V1")
    issuing = active_ca(pca, "SUBORDINATE", "Teller Issuing CA", "SubordinateCACertificate_PathLen0/V1", parent=root)
    for authority in (root, issuing):
        publish_crls(pca, authority)
    pca.create_permission(CertificateAuthorityArn=issuing, Principal="acm.amazonaws.com",
                          Actions=["IssueCertificate", "GetCertificate", "ListPermissions"])
    acm.request_certificate(DomainName="teller.example.internal", CertificateAuthorityArn=issuing,
                            Tags=[{"Key": "everleaf:certificate", "Value": "everleaf/teller"}])

    def exported():
        with contextlib.suppress(secrets.exceptions.ResourceNotFoundException):
            return "private_key" in secrets.get_secret_value(SecretId="everleaf/teller")["SecretString"]

    wait_for("ACM's certificate for the teller is in the secret", exported, patience=90, pause=0.5)
    return [issuing, root]


def publish_crls(pca, authority, days=7):
    pca.update_certificate_authority(CertificateAuthorityArn=authority, RevocationConfiguration={"CrlConfiguration": {
        "Enabled": True, "ExpirationInDays": days, "S3BucketName": "local-crls", "S3ObjectAcl": "BUCKET_OWNER_FULL_CONTROL"}})


def root_of(bench, hierarchy):
    return bench.aws("acm-pca").get_certificate_authority_certificate(CertificateAuthorityArn=hierarchy[1])["Certificate"]


def crl_of(bench, authority):
    """In PEM; nothing while there is none."""
    s3 = bench.aws("s3")
    with tempfile.NamedTemporaryFile() as der:
        with contextlib.suppress(botocore.exceptions.ClientError):
            s3.download_file("local-crls", f"crl/{authority.split('/')[-1]}.crl", der.name)
            return openssl(["crl", "-inform", "DER", "-in", der.name], "") + "\n"


def trust(bench, name, hierarchy):
    """Whom a side trusts, as the examples want it in /trust."""
    place = bench.place(name)
    lists = [wait_for("the CA publishes a CRL", lambda: crl_of(bench, it), patience=60, pause=0.5) for it in hierarchy]
    move("".join(lists), os.path.join(place, "crl.pem"))
    move(root_of(bench, hierarchy), os.path.join(place, "ca.pem"))
    return place


# Certificates.


def issue(bench, name, names, **more):
    request = {"name": name, "subject": {"common_name": name}, "subject_alternative_names": [f"dns:{it}" for it in names], **more}
    answer = invoke(bench.endpoint, "issue-client-cert", request)
    assert answer["outcome"] == "issued", answer
    return answer


def sign(bench, authority, name, validity, san):
    """A client's certificate that Everleaf would not issue, in the files that the agent would write."""
    pca, place = bench.aws("acm-pca"), bench.place(name)
    key, csr = os.path.join(place, "key.pem"), os.path.join(place, "csr.pem")
    openssl([*NEW_KEY, "-new", "-keyout", key, "-out", csr, "-subj", f"/CN={name}", "-addext", f"subjectAltName = DNS:{san}"], "")
    arn = pca.issue_certificate(
        CertificateAuthorityArn=authority, Csr=content(csr).encode(), SigningAlgorithm="SHA256WITHRSA", Validity=validity,
        TemplateArn="arn:aws:acm-pca:::template/EndEntityClientAuthCertificate/V1")["CertificateArn"]

    def signed():
        with contextlib.suppress(pca.exceptions.RequestInProgressException):
            return pca.get_certificate(CertificateAuthorityArn=authority, CertificateArn=arn)

    answer = wait_for(f"`{name}` is signed", signed, pause=0.2)
    issuing = openssl(["x509"], answer["CertificateChain"])
    move(f"{answer['Certificate'].strip()}\n{issuing}\n", os.path.join(place, "fullchain.pem"))
    return place


def forge(bench, name):
    """A certificate for the gateway's name from a CA that nobody trusts."""
    place = bench.place(name)
    path = {file: os.path.join(place, file) for file in ("ca.pem", "ca-key.pem", "fullchain.pem", "key.pem")}
    openssl([*NEW_KEY, "-x509", "-keyout", path["ca-key.pem"], "-out", path["ca.pem"], "-subj", "/CN=Anybody"], "")
    openssl([*NEW_KEY, "-x509", "-CA", path["ca.pem"], "-CAkey", path["ca-key.pem"], "-keyout", path["key.pem"],
             "-out", path["fullchain.pem"], "-subj", "/CN=gateway", "-addext", "subjectAltName = DNS:gateway.example.internal",
             "-addext", "basicConstraints = critical,CA:false"], "")
    return place


NEW_KEY = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc"]


class Shop:
    """One certificate at an Envoy and an nginx that want client certificates, each with its agent."""

    def __init__(self, bench, hierarchy):
        self.names = {"Envoy": "teller.example.internal", "nginx": "shop.example.internal"}
        self.names["Envoy, its own CA"] = self.names["Envoy"]
        self.root = os.path.join(trust(bench, "shop-trust", hierarchy), "ca.pem")
        self.trusted, self.hierarchy = os.path.dirname(self.root), hierarchy
        self.issue(bench)
        by_envoy, by_nginx = bench.place("by-envoy"), bench.place("by-nginx")
        for place in (by_envoy, by_nginx):
            fetch(bench, "shop", place)
        set_up = "mutual-tls", by_envoy, self.trusted, app(bench, "yellow")
        self.envoy = teller(bench, "shop-envoy", *set_up)
        own_ca = teller(bench, "own-ca-envoy", *set_up, more={
            "name: trust": "name: ca", "/etc/envoy/trust.yaml": f"{by_envoy}/current/sds-ca.yaml"})
        self.nginx, port = nginx(bench, by_nginx, self.trusted)
        self.ports = {"Envoy": self.envoy.port, "nginx": port, "Envoy, its own CA": own_ca.port}
        watch(bench, "shop", by_envoy)
        watch(bench, "shop", by_nginx, "--signal", f"HUP:{by_nginx}/nginx.pid")

    def issue(self, bench, **more):
        return issue(bench, "shop", sorted(set(self.names.values())), usage="server", **more)

    def call(self, bench, server, identity=None):
        return curl_tls(bench, self.names[server], self.ports[server], self.root, identity)


# Who must be refused, and why.


def clients(bench, hierarchy):
    """Who calls, each in a directory of its own. `revoked` is in the CA's CRL when this returns, and `expired` has expired."""
    found = {}
    for name in ("gateway", "revoked"):
        issued = issue(bench, name, ["gateway.example.internal"])
        found[name] = fetch(bench, name, bench.place(name))
    order = {"revoke": "revoked", "serial_number": issued["serial_number"], "reason": "KEY_COMPROMISE"}
    assert (answer := invoke(bench.endpoint, "issue-client-cert", order))["outcome"] == "revoked", answer
    # With its settings changed a CA publishes in seconds; by itself half an hour after it revoked.
    publish_crls(bench.aws("acm-pca"), hierarchy[0], days=8)
    end = int(time.time()) + 5
    found["expired"] = sign(bench, hierarchy[0], "expired", {"Type": "ABSOLUTE", "Value": end}, "gateway.example.internal")
    found["other name"] = sign(bench, hierarchy[0], "other", {"Type": "DAYS", "Value": 1}, "other.example.internal")
    found["untrusted"] = forge(bench, "untrusted")

    def listed():
        text = openssl(["crl", "-noout", "-text"], crl_of(bench, hierarchy[0]))
        return hex_of(issued["serial_number"]).upper() in text

    wait_for("the CRL holds the revoked certificate", listed, patience=60, pause=0.5)
    time.sleep(max(0, end + 1 - time.time()))
    return found


def refusals(bench, shop):
    found = shop.clients = clients(bench, shop.hierarchy)
    for server, says in (("nginx", "hello CN={}"), ("Envoy", "yellow")):
        for name in ("gateway", "revoked"):
            what = f"client `{name}`" + (", its CRL not here yet" if name == "revoked" else "")
            bench.row(server, what, f"200 {says.format(name)}", shop.call(bench, server, found[name]))
    trust(bench, "shop-trust", shop.hierarchy)
    shop.nginx.send_signal(signal.SIGHUP)

    for name, reason in (
        (None, "NONE"),
        ("untrusted", "FAILED:unable to verify the first certificate"),
        ("expired", "FAILED:certificate has expired"),
        ("revoked", "FAILED:certificate revoked"),
    ):
        log = Tail(bench.log("nginx"))

        def seen():
            status = shop.call(bench, "nginx", found.get(name)).split()[0]
            verified = re.findall(r'^\d{3} (.*?) "', log.new(), re.MULTILINE)
            return f"{status} {verified[-1] if verified else 'not logged'}"

        bench.row("nginx", who(name), f"400 {reason}", at_last(seen, f"400 {reason}"))

    for name, counter, reason in (
        (None, "fail_verify_no_cert", "peer did not provide required client certificate"),
        ("other name", "fail_verify_san", "SAN matcher, certificate SANs are [other.example.internal]"),
        ("untrusted", "fail_verify_error", "unable to get local issuer certificate"),
        ("expired", "fail_verify_error", "certificate has expired"),
        ("revoked", "fail_verify_error", "certificate revoked"),
    ):
        log, before = Tail(bench.log("shop-envoy")), shop.envoy.counters()

        def seen():
            answer = shop.call(bench, "Envoy", found.get(name))
            return f"{answer.split()[0] if answer.startswith('refused') else answer}: {tls_error(log.new())}"

        bench.row("Envoy", who(name), f"refused: {reason}", at_last(seen, f"refused: {reason}"))
        counted = [f"ssl.{it}" for it in grown(shop.envoy, before) if it.startswith("fail_verify")]
        bench.row("Envoy", f"{who(name)}: counted", f"ssl.{counter}", ", ".join(counted))

    # The agent's `sds-ca.yaml`, for peers of one's own CA. There is no CRL in it.
    for name, answer in (("gateway", "200 yellow"), ("revoked", "200 yellow"), ("untrusted", "refused")):
        seen = shop.call(bench, "Envoy, its own CA", found[name])
        bench.row("Envoy, its own CA", who(name), answer, seen.split()[0] if seen.startswith("refused") else seen)


def who(name):
    return f"client `{name}`" if name else "client without a certificate"


def tls_error(log):
    """The end of the last one in Envoy's access log, where blanks are underscores."""
    found = re.findall(r"TLS_error:(.*?)(?:,_certificate_CRL_.*)?:TLS_error_end", log)
    return found[-1].split(":")[-1].replace("_", " ").strip() if found else "not logged"


# Rotation.


def promote(bench, secrets, name, issue):
    """Orders a replacement; returns its serial, and when it was last seen not to be current: at most some 30 ms too early."""
    # A certificate is attempted five times a day. The days pass here by a stroke in the table.
    dynamodb = bench.aws("dynamodb")
    dynamodb.update_item(
        TableName=dynamodb.list_tables()["TableNames"][0], Key={"id": {"S": f"certificate#{name}"}},
        UpdateExpression="SET attempts.on_day = :none", ExpressionAttributeValues={":none": {"N": "0"}})

    def current():
        versions = secrets.describe_secret(SecretId=f"everleaf/{name}")["VersionIdsToStages"]
        return next(version for version, stages in versions.items() if "AWSCURRENT" in stages)

    before, looks = current(), [time.time()]

    def replaced():
        looks.append(time.time())
        return issued.done() or current() != before

    with concurrent.futures.ThreadPoolExecutor() as aside:
        issued = aside.submit(issue)
        wait_for(f"`{name}` is replaced", replaced)
        return hex_of(issued.result()["serial_number"]), looks[-2]


def rotations(bench, shop):
    secrets, client = bench.aws("secretsmanager"), shop.clients["gateway"]
    loads = {server: Load(shop.names[server], shop.ports[server], shop.root, client) for server in ("Envoy", "nginx")}
    took = {server: [] for server in loads}
    for number in range(1, ROTATIONS + 1):
        replaced = {"subject": {"common_name": "shop", "organizational_unit": f"rotation {number}"}, "replace": True}
        serial, promoted = promote(bench, secrets, "shop", lambda: shop.issue(bench, **replaced))
        for server, load in loads.items():
            if at_last(lambda: load.serial, serial, patience=5) == serial:
                took[server].append(load.first_seen[serial] - promoted)
    for server, load in loads.items():
        load.end()
        bench.row(server, f"new serials served in {ROTATIONS} rotations", ROTATIONS, len(took[server]))
        bench.row(server, *load.outcome())
        bench.figure(f"promotion → first handshake, {server}, agent looking every second", took[server], "s")
    bench.row("Envoy", "resumed sessions among them", 0, shop.envoy.counters().get("session_reused", 0))


def redeployments(bench, hierarchy):
    """What ECS does, played: for each deployment a new task, which fetches its certificate, and then the end of the old one."""
    secrets, ecs, acm = (bench.aws(service) for service in ("secretsmanager", "ecs", "acm"))
    server = "orders.example.internal"
    root = os.path.join(bench.place("orders-trust"), "ca.pem")
    move(root_of(bench, hierarchy), root)
    port = app(bench, "Hello from behind Envoy proxy!!")

    def deployment():
        service = ecs.describe_services(cluster="payments", services=["orders"])["services"][0]
        return next((it["id"], it["rolloutState"]) for it in service["deployments"] if it["status"] == "PRIMARY")

    def task(number):
        certs = bench.place(f"orders-{number}")
        fetch(bench, "orders", certs)
        return sidecar(bench, f"orders-task-{number}", certs, port)

    def replace(number, service):
        return promote(bench, secrets, "orders", lambda: order(
            subject={"common_name": "orders", "organizational_unit": f"{number}"}, services=[service], replace=True))

    def order(**more):
        return issue(bench, "orders", [server], usage="server", import_to_acm=True, **more)

    def imported():
        return hex_of(acm.describe_certificate(CertificateArn=on_listener)["Certificate"]["Serial"])

    on_listener = order()["acm_certificate_arn"]
    running = task(0)
    answer = curl_tls(bench, server, running.port, root, path="/service")
    bench.row("sidecar", "GET /service", "200 Hello from behind Envoy proxy!!", answer)
    load, took, same = Load(server, running.port, root), [], []
    for number in range(1, REDEPLOYMENTS + 1):
        before, _ = deployment()
        serial, promoted = replace(number, "payments/orders")
        wait_for("the service is deployed", lambda: deployment()[0] != before, patience=60)
        old, running = running, task(number)
        load.port = running.port
        if at_last(lambda: load.serial, serial, patience=5) == serial:
            took.append(load.first_seen[serial] - promoted)
        stop(old.process)
        same.append(at_last(imported, serial) == serial)
        wait_for("the deployment is complete", lambda: deployment()[1] == "COMPLETED", patience=120, pause=0.5)
    watch(bench, "orders", bench.place(f"orders-{REDEPLOYMENTS}"))
    before = deployment()
    serial, _ = replace("agent", {"service": "payments/orders", "reload": "agent"})
    bench.row("sidecar", "the agent's new serial, without a redeployment", serial, at_last(lambda: load.serial, serial))
    same.append(at_last(imported, serial) == serial)
    time.sleep(3)  # As long as a redeployment takes to begin, and longer.
    bench.row("sidecar", "deployment after that", before[0], deployment()[0])
    bench.row("sidecar", "new serials that the listener's certificate in ACM has too", len(same), sum(same))
    load.end()
    bench.row("sidecar", f"new serials served in {REDEPLOYMENTS} redeployments", REDEPLOYMENTS, len(took))
    bench.row("sidecar", *load.outcome())
    bench.figure("promotion → first handshake, Envoy, by a redeployment to a task that starts at once", took, "s")


# The stages of the walkthrough.


def walkthrough(bench, first, second, identity):
    """The gateway's certificate comes from one hierarchy, the teller's from another; each side trusts the other's."""
    for_gateway, for_teller = trust(bench, "gateway-trust", second), trust(bench, "teller-trust", first)
    certs = bench.place("teller")
    fetch(bench, "teller", certs)
    server = teller(bench, "teller-envoy", "plaintext", certs, for_teller, app(bench, "yellow"))
    client = gateway(bench, "plaintext", os.path.dirname(identity), for_gateway, server.port)
    sides = {"teller": server, "gateway": client}

    def ask():
        return " ".join(curl(bench, f"http://127.0.0.1:{client.port}/").split()[:4])

    def at(title, expected, **stages):
        """Enters stages, and asks until all is as expected: a stage takes a moment to come into force."""
        before, log = {side: envoy.counters() for side, envoy in sides.items()}, Tail(bench.log("gateway-envoy"))
        for side, stage in stages.items():
            enter(sides[side].place, side, stage)

        def seen():
            found = {"answer": ask()}
            for side, envoy in sides.items():
                counted = grown(envoy, before[side])
                found |= {f"{side} ssl.{name}": value for name, value in counted.items()}
                found[f"{side} ssl.no_certificate of ssl.handshake"] = anonymous(counted)
            errors = re.findall("OPENSSL_internal:([A-Z_]+)", log.new())
            found["gateway logs"] = errors[-1] if errors else "no TLS error"
            return {what: found.get(what, "not there") for what in expected}

        def meets(what, found):
            return found == expected[what] or expected[what] == "> 0" and isinstance(found, int) and found > 0

        found = at_last(seen, lambda found: all(meets(what, found[what]) for what in expected), patience=15)
        for what in expected:
            bench.row(title, what, expected[what], found[what], meets(what, found[what]))

    good, bad = {"answer": "200 yellow"}, {"answer": "503 upstream connect error"}
    trusting = os.path.join(for_gateway, "ca.pem")
    at("plaintext", good | {"teller ssl.handshake": "not there", "gateway ssl.handshake": "not there"})
    at("TLS or plaintext", good | {"teller ssl.handshake": "not there"}, teller="permissive")
    at("TLS", good | {"teller ssl.handshake": "> 0", "gateway ssl.handshake": "> 0",
                      "teller ssl.no_certificate of ssl.handshake": "all"}, gateway="tls")
    at("TLS only", good, teller="tls")
    bench.row("TLS only", "client without TLS", "refused", at_last(
        lambda: curl(bench, f"http://127.0.0.1:{server.port}/").split()[0], "refused"))
    at("wrong SAN", bad | {"gateway ssl.fail_verify_san": "> 0", "gateway logs": "CERTIFICATE_VERIFY_FAILED"}, gateway="wrong-san")
    move(root_of(bench, first), trusting)
    at("right SAN, wrong CA", bad | {"gateway ssl.fail_verify_error": "> 0", "gateway logs": "CERTIFICATE_VERIFY_FAILED"},
       gateway="right-san")
    move(root_of(bench, second), trusting)
    at("right SAN", good | {"teller ssl.no_certificate of ssl.handshake": "all"})
    at("certificate required", bad | {"teller ssl.fail_verify_no_cert": "> 0"}, teller="mutual-tls")
    at("certificate provided", good | {"teller ssl.handshake": "> 0", "teller ssl.no_certificate of ssl.handshake": "none"},
       gateway="client-certificate")

    # The way of a service in use: whoever is called takes the new before the old ends, and clients have certificates first.
    at("clients first", good, gateway="plaintext", teller="plaintext")
    answers = []
    for side, stage in (("teller", "permissive"), ("gateway", "right-san"), ("teller", "tls"), ("gateway", "client-certificate"),
                        ("teller", "mutual-tls")):
        before = server.counters()
        enter(sides[side].place, side, stage)
        # The teller asks for the end of a connection after five seconds.
        end = time.monotonic() + (7 if side == "teller" else 1)
        while time.monotonic() < end:
            answers.append(ask())
    failed = sum(answer != "200 yellow" for answer in answers)
    bench.row("clients first", f"failed of {len(answers)} requests on the way", 0, failed)
    bench.row("clients first", "teller ssl.no_certificate of ssl.handshake", "none", anonymous(grown(server, before)))


def anonymous(counted):
    """How many of the handshakes were without a client certificate."""
    handshakes, without = counted.get("handshake", 0), counted.get("no_certificate", 0)
    return {0: "none", handshakes: "all"}.get(without, f"{without} of {handshakes}") if handshakes else "no handshake"


def agent_figures(bench):
    """Of the release binary, where there is one."""
    program = os.path.join(os.path.dirname(BINARIES), f"{platform.machine()}-unknown-linux-gnu", "release", "everleaf-agent")
    kind, program = ("release", program) if os.path.exists(program) else ("debug", os.path.join(BINARIES, "everleaf-agent"))
    took = []
    for number in range(10):
        place, begin = bench.place(f"fetch-{number}"), time.monotonic()
        fetch(bench, "shop", place, program=program)
        took.append((time.monotonic() - begin) * 1000)
    bench.figure(f"agent, {kind}: start → files on disk", took, "ms")
    watching = watch(bench, "shop", bench.place("watched"), program=program)
    wait_for("the agent watches", lambda: "good: shop" in content(bench.log("agent-watched")))
    resident = int(re.search(r"VmRSS:\s+(\d+)", content(f"/proc/{watching.pid}/status"))[1])
    bench.figures.append(f"agent, {kind}: {os.path.getsize(program) / 2**20:.1f} MiB, {resident / 1024:.1f} MiB resident, watching")


if __name__ == "__main__":
    sys.exit(main())
