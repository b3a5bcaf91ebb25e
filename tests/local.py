"""boto3, with no special handling, against `make local`: the real function binaries behind Local AWS, on the machine's clock.

A root CA and an issuing CA are set up, a certificate is requested in ACM with Everleaf's tags, and from then on Everleaf works by
itself: it exports, stores, redeploys. Then ACM is asked to renew, and the new serial must come to the secret and to the tasks.
Before that, a load balancer verifies clients by a trust store, and a CA tells in its CRL what it has revoked.
In the end the agent brings a certificate into a directory, with credentials as an ECS task gets them, and follows its replacement;
the log is read as CloudWatch reads it, and what the functions send X-Ray as its daemon gets it.

    .venv/bin/python tests/local.py [directory of the binaries, target/debug when absent]
"""

import contextlib
import http.server
import json
import os
import shutil
import re
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request

from botocore.exceptions import ClientError

from stack import BINARIES, active_ca, client_of, hex_of, invoke, local_aws, openssl, said, until


def main():
    with tempfile.TemporaryFile("w+") as log, daemon() as datagrams:
        try:
            with local_aws(log) as endpoint:
                trust_store(endpoint)
                revocation(endpoint)
                flow(endpoint)
                trusted_client(endpoint)
                agent(endpoint)
        finally:
            log.seek(0)
            text = log.read()
            print(text)
    metrics(text)
    traces(datagrams)
    print("7 passed, 0 failed")


@contextlib.contextmanager
def daemon():
    """X-Ray's daemon, as far as a function knows it; what it was sent."""
    datagrams = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.bind(("127.0.0.1", 0))
        os.environ["AWS_XRAY_DAEMON_ADDRESS"] = "127.0.0.1:%d" % listening.getsockname()[1]

        def listen():
            while datagram := listening.recv(65536):
                datagrams.append(datagram.decode())

        listener = threading.Thread(target=listen)
        listener.start()
        try:
            yield datagrams
        finally:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
                end.sendto(b"", listening.getsockname())
            listener.join()


def traces(datagrams):
    """The calls of the real binaries, as the console of X-Ray would draw them: which, in which invocation, and how each ended."""
    members = {"name", "id", "trace_id", "parent_id", "type", "namespace", "start_time", "end_time", "aws", "http", "error", "fault",
               "throttle"}
    seen, ids = set(), set()
    for datagram in datagrams:
        header, _, document = datagram.partition("\n")
        assert json.loads(header) == {"format": "json", "version": 1}, header
        call = json.loads(document)
        assert call.keys() <= members and call["aws"].keys() <= {"operation", "region", "request_id"}, call
        assert re.fullmatch("1-[0-9a-f]{8}-[0-9a-f]{24}", call["trace_id"]), call
        assert all(re.fullmatch("[0-9a-f]{16}", call[name]) for name in ("id", "parent_id")), call
        assert call["start_time"] <= call["end_time"] and abs(time.time() - call["start_time"]) < 600, call
        ids.add(call["id"])
        seen.add((call["name"], call["aws"]["operation"], call.get("http", {}).get("response", {}).get("status")))
    assert len(ids) == len(datagrams), "each call has an id of its own"
    expected = {
        ("acm", "ExportCertificate", 200), ("acm-pca", "IssueCertificate", 200), ("dynamodb", "GetItem", 200),
        ("ecs", "UpdateService", 200), ("elasticloadbalancing", "DescribeTrustStores", 200), ("events", "PutEvents", 200),
        ("s3", "PUT", 200), ("secretsmanager", "PutSecretValue", 200),
    }
    assert expected <= seen, f"missing: {expected - seen}; seen: {sorted(seen, key=str)}"
    said(f"X-Ray is told of each call: {len(datagrams)} in {len({json.loads(d.partition(chr(10))[2])['trace_id'] for d in datagrams})} traces")


def metrics(log):
    """What CloudWatch would read in the log of the real binaries: each as a line of JSON of its own."""
    said = {}
    for line in log.splitlines():
        function, _, line = line.partition(" | ")
        if line.startswith("{") and "_aws" in (found := json.loads(line)):
            [directive] = found["_aws"]["CloudWatchMetrics"]
            assert directive["Namespace"] == "Everleaf" and abs(time.time() - found["_aws"]["Timestamp"] / 1000) < 600, line
            for metric in directive["Metrics"]:
                said[function, metric["Name"]] = {name: found[name] for name in directive["Dimensions"][-1]}
    expected = {
        ("export-to-secrets", "CertificateCurrent"): {"Stack": "everleaf", "Function": "export-to-secrets"},
        ("issue-client-cert", "CertificateCurrent"): {"Stack": "everleaf", "Function": "issue-client-cert"},
        ("force-redeploy", "RolloutsStarted"): {"Stack": "everleaf"},
        ("renew-on-expiry", "SweepCompleted"): {"Stack": "everleaf"},
        ("refresh-truststore", "CaCertificates"): {"Stack": "everleaf", "TrustStore": "local-clients"},
    }
    found = {key: said.get(key) for key in expected}
    assert found == expected, found


def trust_store(endpoint):
    s3, elbv2 = client_of(endpoint, "s3"), client_of(endpoint, "elbv2")
    root, other = Root("Second Opinion Clients"), Root("Nobody")

    s3.create_bucket(Bucket="bundles", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    s3.put_bucket_versioning(Bucket="bundles", VersioningConfiguration={"Status": "Enabled"})
    assert s3.get_bucket_location(Bucket="bundles")["LocationConstraint"] == "eu-central-1"
    key = "roots of/größe+1.pem"
    version = s3.put_object(Bucket="bundles", Key=key, Body=root.certificate.encode(), IfNoneMatch="*",
                            ContentType="application/x-pem-file", ServerSideEncryption="AES256")["VersionId"]
    assert code_of(lambda: s3.put_object(Bucket="bundles", Key=key, Body=b"x", IfNoneMatch="*")) == "PreconditionFailed"
    s3.put_object(Bucket="bundles", Key=key, Body=b"rubbish")
    got = s3.get_object(Bucket="bundles", Key=key, VersionId=version)
    assert got["Body"].read().decode() == root.certificate and got["ContentType"] == "application/x-pem-file"
    etag = s3.head_object(Bucket="bundles", Key=key)["ETag"]
    assert code_of(lambda: s3.get_object(Bucket="bundles", Key=key, IfNoneMatch=etag)) == "304"
    for place in range(3):
        s3.put_object(Bucket="bundles", Key=f"many/{place}", Body=bytes([place]))
    pages = list(s3.get_paginator("list_objects_v2").paginate(Bucket="bundles", PaginationConfig={"PageSize": 2}))
    assert [[found["Key"] for found in page["Contents"]] for page in pages] == [["many/0", "many/1"], ["many/2", key]]
    folded = s3.list_objects_v2(Bucket="bundles", Delimiter="/")["CommonPrefixes"]
    assert [found["Prefix"] for found in folded] == ["many/", "roots of/"]
    s3.delete_object(Bucket="bundles", Key="many/0")
    assert code_of(lambda: s3.get_object(Bucket="bundles", Key="many/0")) == "NoSuchKey"
    assert code_of(lambda: s3.head_object(Bucket="bundles", Key="many/0")) == "404"
    assert code_of(lambda: s3.get_object(Bucket="none", Key="many/0")) == "NoSuchBucket"
    with tempfile.NamedTemporaryFile() as file:
        file.write(root.certificate.encode())
        file.flush()
        s3.upload_file(file.name, "bundles", "uploaded")
    said("S3 keeps versions and lists what there is")

    bundle = {"CaCertificatesBundleS3Bucket": "bundles", "CaCertificatesBundleS3Key": key}
    assert code_of(lambda: elbv2.create_trust_store(Name="clients", **bundle)) == "InvalidCaCertificatesBundle"
    created = elbv2.create_trust_store(Name="clients", CaCertificatesBundleS3ObjectVersion=version,
                                       Tags=[{"Key": "version", "Value": version}], **bundle)["TrustStores"][0]
    arn = created["TrustStoreArn"]
    assert created["Status"] == "CREATING" and created["NumberOfCaCertificates"] == 1
    until("the trust store is active",
          lambda: elbv2.describe_trust_stores(Names=["clients"])["TrustStores"][0]["Status"] == "ACTIVE", patience=20)
    assert elbv2.describe_tags(ResourceArns=[arn])["TagDescriptions"][0]["Tags"] == [{"Key": "version", "Value": version}]
    url = elbv2.get_trust_store_ca_certificates_bundle(TrustStoreArn=arn)["Location"]
    assert fetch(url) == root.certificate
    try:
        fetch(url.replace("X-Amz-Signature=", "X-Amz-Signature=0"))
        raise AssertionError("a forged signature opened the bundle")
    except urllib.error.HTTPError as error:
        assert error.code == 403

    balancer = elbv2.create_load_balancer(Name="second-opinion", Scheme="internal", Subnets=["subnet-1", "subnet-2"])
    balancer_arn = balancer["LoadBalancers"][0]["LoadBalancerArn"]
    listener = elbv2.create_listener(
        LoadBalancerArn=balancer_arn, Port=443, Protocol="HTTPS",
        Certificates=[{"CertificateArn": "arn:aws:acm:eu-central-1:111122223333:certificate/1"}],
        DefaultActions=[{"Type": "fixed-response", "FixedResponseConfig": {"StatusCode": "200"}}],
    )["Listeners"][0]["ListenerArn"]

    def handshake(chain):
        request = json.dumps({"listener_arn": listener, "chain": chain}).encode()
        return json.loads(fetch(f"{endpoint}/_local/handshake", request))["tls_verify_status"]

    leaf = root.client(serial=7)
    assert handshake(leaf) == "-"
    mutual = {"Mode": "verify", "TrustStoreArn": arn, "AdvertiseTrustStoreCaNames": "on"}
    modified = elbv2.modify_listener(ListenerArn=listener, MutualAuthentication=mutual)["Listeners"][0]
    defaults = {"IgnoreClientCertificateExpiry": False, "TrustStoreAssociationStatus": "active"}
    assert modified["MutualAuthentication"] == {**mutual, **defaults}
    assert elbv2.describe_listeners(LoadBalancerArn=balancer_arn)["Listeners"] == [modified]
    assert elbv2.describe_trust_store_associations(TrustStoreArn=arn)["TrustStoreAssociations"] == [{"ResourceArn": listener}]
    assert [handshake(chain) for chain in (leaf, other.client(serial=7), "")] == [
        "Success", "Failed:ClientCertUntrusted", "Failed:UnmappedConnectionError"]

    s3.put_object(Bucket="bundles", Key="crl", Body=root.revocation_list(serial=7).encode())
    content = {"S3Bucket": "bundles", "S3Key": "crl", "RevocationType": "CRL"}
    revocation = elbv2.add_trust_store_revocations(TrustStoreArn=arn, RevocationContents=[content])["TrustStoreRevocations"][0]
    assert (revocation["RevocationId"], revocation["NumberOfRevokedEntries"]) == (1, 1)
    assert handshake(leaf) == "Failed:ClientCertCrlHit"
    url = elbv2.get_trust_store_revocation_content(TrustStoreArn=arn, RevocationId=1)["Location"]
    assert fetch(url) == root.revocation_list(serial=7)
    assert code_of(lambda: elbv2.delete_trust_store(TrustStoreArn=arn)) == "TrustStoreInUse"
    elbv2.remove_trust_store_revocations(TrustStoreArn=arn, RevocationIds=[1])
    assert elbv2.describe_trust_store_revocations(TrustStoreArn=arn)["TrustStoreRevocations"] == []
    s3.put_object(Bucket="bundles", Key=key, Body=(root.certificate + other.certificate).encode())
    elbv2.modify_trust_store(TrustStoreArn=arn, **bundle)
    assert [handshake(chain) for chain in (leaf, other.client(serial=7))] == ["Success", "Success"]
    elbv2.modify_listener(ListenerArn=listener, MutualAuthentication={"Mode": "off"})
    elbv2.delete_trust_store(TrustStoreArn=arn)
    assert code_of(lambda: elbv2.describe_trust_stores(TrustStoreArns=[arn])) == "TrustStoreNotFound"
    said("a listener verifies clients by a trust store")


class Root:
    """A CA of openssl's."""

    def __init__(self, name):
        self.directory = tempfile.TemporaryDirectory()
        self.revoked = None
        self.run("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -keyout key -out root -days 30 -subj", f"/CN={name}")
        self.certificate = self.read("root")

    def client(self, serial):
        self.write("extensions", "extendedKeyUsage = clientAuth\n")
        self.run("req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -keyout leaf-key -out csr -subj /CN=orders")
        self.run(f"x509 -req -in csr -CA root -CAkey key -set_serial {serial} -days 7 -extfile extensions -out leaf")
        return self.read("leaf")

    def revocation_list(self, serial):
        if not self.revoked:
            self.write("ca.cnf", "[ca]\ndefault_ca = d\n[d]\ndatabase = index\ndefault_md = sha256\ndefault_crl_days = 30\n")
            self.write("index", f"R\t400101000000Z\t260101000000Z\t{serial:02X}\tunknown\t/CN=orders\n")
            self.run("ca -config ca.cnf -gencrl -keyfile key -cert root -out crl")
            self.revoked = self.read("crl")
        return self.revoked

    def run(self, arguments, *more):
        run = subprocess.run(["openssl", *arguments.split(), *more], cwd=self.directory.name, capture_output=True, text=True)
        assert run.returncode == 0, f"openssl {arguments}: {run.stderr}"

    def read(self, name):
        with open(os.path.join(self.directory.name, name)) as file:
            return file.read()

    def write(self, name, content):
        with open(os.path.join(self.directory.name, name), "w") as file:
            file.write(content)


def code_of(call):
    """The code of the error that the call must meet."""
    try:
        call()
    except ClientError as error:
        return error.response["Error"]["Code"]
    raise AssertionError("there was no error")


def fetch(url, body=None):
    with urllib.request.urlopen(url, body) as answer:
        return answer.read().decode()


def flow(endpoint):
    pca, acm, secrets, ecs = (client_of(endpoint, service) for service in ("acm-pca", "acm", "secretsmanager", "ecs"))

    root = active_ca(pca, "ROOT", "Second Opinion Root", "RootCACertificate/V1")
    issuing = active_ca(pca, "SUBORDINATE", "Second Opinion Issuing", "SubordinateCACertificate_PathLen0/V1", parent=root)
    assert {root, issuing} <= {ca["Arn"] for page in pca.get_paginator("list_certificate_authorities").paginate()
                               for ca in page["CertificateAuthorities"]}
    pca.create_permission(CertificateAuthorityArn=issuing, Principal="acm.amazonaws.com",
                          Actions=["IssueCertificate", "GetCertificate", "ListPermissions"])
    assert pca.list_permissions(CertificateAuthorityArn=issuing)["Permissions"][0]["Principal"] == "acm.amazonaws.com"
    said("two CAs are active")

    ecs.create_cluster(clusterName="edge")
    ecs.register_task_definition(family="gateway", containerDefinitions=[{"name": "gateway", "image": "nginx", "memory": 128}])
    ecs.create_service(cluster="edge", serviceName="gateway", taskDefinition="gateway", desiredCount=1,
                       deploymentConfiguration={"deploymentCircuitBreaker": {"enable": True, "rollback": True}})

    def deployment():
        primary = [d for d in ecs.describe_services(cluster="edge", services=["gateway"])["services"][0]["deployments"]
                   if d["status"] == "PRIMARY"][0]
        return primary["id"], primary["rolloutState"]

    tags = [{"Key": "everleaf:certificate", "Value": "everleaf/gateway"}, {"Key": "everleaf:service-1", "Value": "edge/gateway"}]
    arn = acm.request_certificate(DomainName="gateway.example.internal", CertificateAuthorityArn=issuing, Tags=tags,
                                  IdempotencyToken="secondopinion")["CertificateArn"]
    before = deployment()[0]
    first = until("the first serial is in the secret", lambda: stored_serial(secrets), patience=90)
    first_deployment = until("the service is deployed for it", lambda: deployed(deployment(), before), patience=180)
    assert hex_of(acm.describe_certificate(CertificateArn=arn)["Certificate"]["Serial"]) == first

    passphrase = b"correct-horse-battery"
    exported = acm.export_certificate(CertificateArn=arn, Passphrase=passphrase)
    check_with_openssl(exported["Certificate"], exported["CertificateChain"], exported["PrivateKey"], passphrase)
    value = json.loads(secrets.get_secret_value(SecretId="everleaf/gateway")["SecretString"])
    check_with_openssl(value["certificate"], value["certificate_chain"], value["private_key"], value["passphrase"].encode())
    said("openssl opens the keys and verifies the chains")

    acm.renew_certificate(CertificateArn=arn)
    second = until("the renewed serial is in the secret",
                   lambda: (serial := stored_serial(secrets)) != first and serial, patience=240)
    until("the service is deployed again", lambda: deployed(deployment(), first_deployment), patience=180)
    assert hex_of(acm.describe_certificate(CertificateArn=arn)["Certificate"]["Serial"]) == second
    stages = secrets.list_secret_version_ids(SecretId="everleaf/gateway")["Versions"]
    assert sorted(stage for version in stages for stage in version["VersionStages"] if stage != "AWSPENDING") == ["AWSCURRENT", "AWSPREVIOUS"]

    acm.add_tags_to_certificate(CertificateArn=arn, Tags=[{"Key": "team", "Value": "edge"}])
    assert {"Key": "team", "Value": "edge"} in acm.list_tags_for_certificate(CertificateArn=arn)["Tags"]
    acm.remove_tags_from_certificate(CertificateArn=arn, Tags=[{"Key": "team"}])
    listed = acm.list_certificates(Includes={"keyTypes": ["RSA_2048"]})["CertificateSummaryList"]
    assert [summary for summary in listed if summary["CertificateArn"] == arn and summary["Exported"]]
    said("listed and tagged")


def trusted_client(endpoint):
    """The real functions: a certificate issued by hand, a trust store declared by hand, and a load balancer that lets only it in."""
    pca, elb, secrets = (client_of(endpoint, service) for service in ("acm-pca", "elbv2", "secretsmanager"))

    issuing = next(ca["Arn"] for ca in pca.list_certificate_authorities()["CertificateAuthorities"]
                   if ca["CertificateAuthorityConfiguration"]["Subject"]["CommonName"] == "Local Issuing CA")
    balancer = elb.describe_load_balancers(Names=["clients"])["LoadBalancers"][0]["LoadBalancerArn"]
    listener = elb.describe_listeners(LoadBalancerArn=balancer)["Listeners"][0]["ListenerArn"]
    issued = invoke(endpoint, "issue-client-cert", {"name": "trusted", "subject": {"common_name": "trusted"}})
    assert issued["outcome"] == "issued", issued
    declaration = {"name": "local-clients", "certificate_authority_arns": [issuing],
                   "listeners": [{"listener_arn": listener, "clients": ["trusted"]}]}
    report = invoke(endpoint, "refresh-truststore", {"declare": declaration})["trust_stores"][0]
    assert report["outcome"] == "created" and report["listeners"][0]["outcome"] == "modified", report
    value = json.loads(secrets.get_secret_value(SecretId="everleaf/trusted")["SecretString"])

    def handshake(chain):
        body = json.dumps({"listener_arn": listener, "chain": chain}).encode()
        return json.loads(fetch(f"{endpoint}/_local/handshake", body))["tls_verify_status"]

    assert handshake(value["certificate"] + value["certificate_chain"]) == "Success"
    assert handshake("").startswith("Failed:")
    assert invoke(endpoint, "refresh-truststore", {"refresh": True})["outcome"] == "unchanged"
    said("the load balancer lets in the client that the functions made, and no other")
    compromised = {"revoke": "trusted", "serial_number": issued["serial_number"], "reason": "KEY_COMPROMISE"}
    answer = invoke(endpoint, "issue-client-cert", compromised)
    assert answer["outcome"] == "revoked" and answer["replacement"]["outcome"] == "issued", answer
    said("a compromised certificate is revoked and replaced in one go")


def agent(endpoint):
    """The real agent: openssl and keytool read what it writes, and it says nothing of a key."""
    secrets = client_of(endpoint, "secretsmanager")

    def issue(request):
        return invoke(endpoint, "issue-client-cert", request)

    issued = issue({"name": "agent", "subject": {"common_name": "agent"}, "usage": "client-and-server"})
    task = http.server.HTTPServer(("127.0.0.1", 0), TaskCredentials)
    threading.Thread(target=task.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as directory:
        environment = {
            "AWS_ENDPOINT_URL": endpoint, "EVERLEAF_DIRECTORY": directory, "EVERLEAF_SECRETS": issued["secret_arn"],
            "EVERLEAF_FOR": "java,envoy", "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"http://127.0.0.1:{task.server_port}/",
        }
        current, said_by_it = os.path.join(directory, "current"), []
        program = os.path.join(BINARIES, "everleaf-agent")

        def run(*arguments, **more):
            ended = subprocess.run([program, *arguments], env={**environment, **more}, capture_output=True, text=True, timeout=60)
            said_by_it.append(ended.stdout + ended.stderr)
            return ended.returncode

        def content(name):
            with open(os.path.join(current, name)) as file:
                return file.read()

        def serial():
            return hex_of(openssl(["x509", "-noout", "-serial"], content("cert.pem")).split("=")[1])

        begin = time.monotonic()
        assert run("fetch") == 0, said_by_it
        took = (time.monotonic() - begin) * 1000
        assert serial() == hex_of(issued["serial_number"])
        assert openssl(["pkey", "-pubout"], content("key.pem")) == openssl(["x509", "-noout", "-pubkey"], content("cert.pem"))
        openssl(["verify", "-CAfile", os.path.join(current, "ca.pem"), "-untrusted", os.path.join(current, "fullchain.pem")],
                content("cert.pem"))
        password = content("keystore.password")
        keystore, truststore = (os.path.join(current, name) for name in ("keystore.p12", "truststore.p12"))
        opened = openssl(["pkcs12", "-in", keystore, "-passin", "env:PASSPHRASE", "-nodes"], "", {"PASSPHRASE": password})
        assert opened.count("BEGIN CERTIFICATE") == 3 and openssl(["pkey"], opened) == content("key.pem").strip()
        opened = openssl(["pkcs12", "-in", truststore, "-passin", "env:PASSPHRASE", "-nokeys"], "", {"PASSPHRASE": password})
        assert openssl(["x509"], opened) == content("ca.pem").strip()
        for store, entry in ((keystore, "PrivateKeyEntry"), (truststore, "trustedCertEntry")) if shutil.which("keytool") else ():
            listed = subprocess.run(["keytool", "-list", "-keystore", store, "-storepass:env", "PASSPHRASE"], capture_output=True,
                                    text=True, env={**os.environ, "PASSPHRASE": password})
            assert listed.returncode == 0 and "contains 1 entry" in listed.stdout and entry in listed.stdout, listed.stdout
        said(f"openssl and keytool read the files of `fetch`, which took {took:.0f} ms")

        assert run("health") == 1 and run("fetch", EVERLEAF_SECRETS="everleaf/none") == 1 and run("fetch", "--for", "go") == 2
        assert serial() == hex_of(issued["serial_number"])
        with open(os.path.join(directory, "log"), "w+") as log:
            watching = subprocess.Popen([program, "watch", "--interval", "1h"], env=environment, stderr=log)
            try:
                until("the agent is healthy", lambda: run("health") == 0, patience=20)
                with open(f"/proc/{watching.pid}/status") as status:
                    resident = next(line.split()[1] for line in status if line.startswith("VmRSS"))
                replaced = issue({"revoke": "agent", "serial_number": issued["serial_number"], "reason": "KEY_COMPROMISE"})
                watching.send_signal(signal.SIGHUP)
                until("the replaced certificate is there", lambda: serial() == hex_of(replaced["replacement"]["serial_number"]),
                      patience=20)
                assert content("keystore.password") == password
                with open(f"/proc/{watching.pid}/cmdline") as arguments, open(f"/proc/{watching.pid}/environ") as variables:
                    said_by_it += [arguments.read(), variables.read()]
                watching.send_signal(signal.SIGTERM)
                assert watching.wait(timeout=20) == 0
            finally:
                watching.kill()
            log.seek(0)
            said_by_it.append(log.read())
        with open(os.path.join(directory, ".agent", "health.json")) as health:
            said_by_it.append(health.read())
        versions = [secrets.get_secret_value(SecretId="everleaf/agent", VersionStage=stage)["SecretString"]
                    for stage in ("AWSCURRENT", "AWSPREVIOUS")]
        needles = ["PRIVATE KEY", password, *(json.loads(version)["passphrase"] for version in versions),
                   *(line for line in content("key.pem").splitlines() if len(line) > 20)]
        told = "\n".join(said_by_it)
        assert "good: agent until " in told and not [needle for needle in needles if needle in told], told
        said(f"it follows a replacement, with {int(resident) / 1024:.1f} MiB resident, and tells nobody of a key")
    task.shutdown()


class TaskCredentials(http.server.BaseHTTPRequestHandler):
    """What a task gets from ECS."""

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"AccessKeyId": "task", "SecretAccessKey": "task", "Token": "task",
                                     "Expiration": "2099-01-01T00:00:00Z"}).encode())

    def log_message(self, *_):
        pass


def revocation(endpoint):
    pca, s3 = client_of(endpoint, "acm-pca"), client_of(endpoint, "s3")
    root = active_ca(pca, "ROOT", "Revoking Root", "RootCACertificate/V1")
    serial = hex_of(openssl(["x509", "-noout", "-serial"], leaf(pca, root)).split("=")[1])

    s3.create_bucket(Bucket="crls", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    pca.update_certificate_authority(CertificateAuthorityArn=root, RevocationConfiguration={"CrlConfiguration": {
        "Enabled": True, "ExpirationInDays": 7, "S3BucketName": "crls", "S3ObjectAcl": "BUCKET_OWNER_FULL_CONTROL"}})
    pca.revoke_certificate(CertificateAuthorityArn=root, CertificateSerial=serial, RevocationReason="KEY_COMPROMISE")
    try:
        pca.revoke_certificate(CertificateAuthorityArn=root, CertificateSerial=serial, RevocationReason="KEY_COMPROMISE")
        raise AssertionError("a certificate is revoked twice")
    except pca.exceptions.RequestAlreadyProcessedException:
        said("what is revoked is not revoked again")

    key = f"crl/{root.split('/')[-1]}.crl"
    assert f"http://crls.s3.eu-central-1.amazonaws.com/{key}" in openssl(["x509", "-noout", "-text"], leaf(pca, root))
    until("there is a CRL", lambda: s3.list_objects_v2(Bucket="crls", Prefix=key)["KeyCount"], patience=60)
    with tempfile.TemporaryDirectory() as directory:
        crl, issuer = os.path.join(directory, "crl"), os.path.join(directory, "root")
        s3.download_file("crls", key, crl)
        with open(issuer, "w") as file:
            file.write(pca.get_certificate_authority_certificate(CertificateAuthorityArn=root)["Certificate"])
        text = openssl(["crl", "-inform", "DER", "-in", crl, "-noout", "-text", "-CAfile", issuer, "-verify"], "")
    assert f"Serial Number: {serial.upper()}" in text.replace("Serial Number: 0", "Serial Number: "), text
    assert "Key Compromise" in text
    said("openssl verifies the CRL and finds the certificate in it")


def leaf(pca, authority):
    """A certificate of an end entity, in PEM, for a new key."""
    key = openssl(["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"], "")
    csr = openssl(["req", "-new", "-key", "/dev/stdin", "-subj", "/CN=leaf"], key)
    arn = pca.issue_certificate(CertificateAuthorityArn=authority, Csr=csr.encode(), SigningAlgorithm="SHA256WITHRSA",
                                Validity={"Type": "DAYS", "Value": 7})["CertificateArn"]
    pca.get_waiter("certificate_issued").wait(CertificateAuthorityArn=authority, CertificateArn=arn)
    return pca.get_certificate(CertificateAuthorityArn=authority, CertificateArn=arn)["Certificate"]


def stored_serial(secrets):
    """The serial of the current pair, by openssl; nothing while there is none."""
    try:
        value = json.loads(secrets.get_secret_value(SecretId="everleaf/gateway")["SecretString"])
    except secrets.exceptions.ResourceNotFoundException:
        return None
    if "certificate" not in value:
        return None
    return hex_of(openssl(["x509", "-noout", "-serial"], value["certificate"]).split("=")[1])


def deployed(deployment, before):
    identifier, state = deployment
    return identifier if identifier != before and state == "COMPLETED" else None


def check_with_openssl(certificate, chain, key, passphrase):
    plain = openssl(["pkcs8", "-passin", "env:PASSPHRASE"], key, {"PASSPHRASE": passphrase.decode()})
    of_key = openssl(["pkey", "-pubout"], plain)
    of_certificate = openssl(["x509", "-noout", "-pubkey"], certificate)
    assert of_key == of_certificate, "the key does not belong to the certificate"
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as roots:
        roots.write(chain)
        roots.flush()
        openssl(["verify", "-CAfile", roots.name], certificate)


if __name__ == "__main__":
    main()
