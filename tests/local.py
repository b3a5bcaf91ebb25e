"""boto3, with no special handling, against `make local`: the real function binaries behind Local AWS, on the machine's clock.

A root CA and an issuing CA are set up, a certificate is requested in ACM with Everleaf's tags, and from then on Everleaf works by
itself: it exports, stores, redeploys. Then ACM is asked to renew, and the new serial must come to the secret and to the tasks.

    .venv/bin/python tests/local.py [directory of the binaries, target/debug when absent]
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time

import boto3

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BINARIES = sys.argv[1] if len(sys.argv) > 1 else os.path.join(ROOT, "target", "debug")


def main():
    port = free_port()
    local = subprocess.Popen(
        [os.path.join(BINARIES, "local-aws"), "--template", "template.yaml", "--bin-dir", BINARIES, "--port", str(port)],
        cwd=ROOT,
    )
    try:
        until("Local AWS answers", lambda: connects(port), patience=20)
        flow(f"http://127.0.0.1:{port}")
    finally:
        local.terminate()
        local.wait(timeout=20)
    assert local.returncode == 0, f"Local AWS ended with {local.returncode}"
    print("1 passed, 0 failed")


def flow(endpoint):
    def client(service):
        return boto3.client(
            service, endpoint_url=endpoint, region_name="eu-central-1", aws_access_key_id="local", aws_secret_access_key="local"
        )

    pca, acm, secrets, ecs = client("acm-pca"), client("acm"), client("secretsmanager"), client("ecs")

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


def active_ca(pca, kind, name, template, parent=None):
    """A CA from its creation to its certificate, as the AWS guide has it."""
    arn = pca.create_certificate_authority(
        CertificateAuthorityType=kind,
        CertificateAuthorityConfiguration={"KeyAlgorithm": "RSA_2048", "SigningAlgorithm": "SHA256WITHRSA",
                                           "Subject": {"CommonName": name, "Organization": "Example Ltd"}},
    )["CertificateAuthorityArn"]
    pca.get_waiter("certificate_authority_csr_created").wait(CertificateAuthorityArn=arn)
    csr = pca.get_certificate_authority_csr(CertificateAuthorityArn=arn)["Csr"]
    signer = parent or arn
    certificate = pca.issue_certificate(
        CertificateAuthorityArn=signer, Csr=csr.encode(), SigningAlgorithm="SHA256WITHRSA",
        TemplateArn=f"arn:aws:acm-pca:::template/{template}", Validity={"Type": "YEARS", "Value": 5 if parent else 10},
    )["CertificateArn"]
    pca.get_waiter("certificate_issued").wait(CertificateAuthorityArn=signer, CertificateArn=certificate)
    issued = pca.get_certificate(CertificateAuthorityArn=signer, CertificateArn=certificate)
    chain = {"CertificateChain": issued["CertificateChain"].encode()} if parent else {}
    pca.import_certificate_authority_certificate(CertificateAuthorityArn=arn, Certificate=issued["Certificate"].encode(), **chain)
    assert pca.describe_certificate_authority(CertificateAuthorityArn=arn)["CertificateAuthority"]["Status"] == "ACTIVE"
    return arn


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


def openssl(arguments, text, environment=None):
    run = subprocess.run(["openssl", *arguments], input=text, capture_output=True, text=True, env={**os.environ, **(environment or {})})
    assert run.returncode == 0, f"openssl {arguments}: {run.stderr}"
    return run.stdout.strip()


def hex_of(serial):
    return serial.replace(":", "").lower().strip().lstrip("0")


def until(what, look, patience):
    give_up = time.monotonic() + patience
    while not (seen := look()):
        assert time.monotonic() < give_up, f"not within {patience} s: {what}"
        time.sleep(1)
    said(what)
    return seen


def said(what):
    print(f"✓ {what}", flush=True)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def connects(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


if __name__ == "__main__":
    main()
