"""Local AWS with the stack on it, as a process, and what the tests ask of it."""

import contextlib
import json
import os
import random
import socket
import subprocess
import sys
import time

import boto3

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BINARIES = sys.argv[1] if len(sys.argv) > 1 else os.path.join(ROOT, "target", "debug")


# Version 1 of the CLI, which is what PyPI has, takes a payload as it is and does not know how to say so, tails no log, and finds SQS
# at its old address alone.
AWS = """#!/bin/bash
if [ "$1 $2" = "logs tail" ]; then
  hours=${5%%[hd]}
  case $5 in *d) hours=$((24 * hours));; esac
  exec %(aws)s logs filter-log-events --log-group-name "$3" --start-time $((($(date +%%s) - 3600 * hours) * 1000)) "${@:6}"
fi
words=()
if [ "$1" = sqs ]; then words=(--endpoint-url "$AWS_ENDPOINT_URL"); fi
while (($#)); do case $1 in --cli-binary-format) shift 2;; *) words+=("$1"); shift;; esac; done
exec %(aws)s "${words[@]}"
"""


def aws_cli(directory):
    """Puts an `aws` there that takes what version 2 takes."""
    path = os.path.join(directory, "aws")
    with open(path, "w") as file:
        file.write(AWS % {"aws": os.path.join(ROOT, ".venv", "bin", "aws")})
    os.chmod(path, 0o755)


@contextlib.contextmanager
def local_aws(output=None, options=()):
    """The address at which it answers."""
    port = free_port()
    command = [os.path.join(BINARIES, "local-aws"), "--template", "template.yaml", "--bin-dir", BINARIES, "--port", str(port), *options]
    local = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output)
    try:
        until("Local AWS answers", lambda: connects(port), patience=20)
        yield f"http://127.0.0.1:{port}"
    finally:
        local.terminate()
        local.wait(timeout=20)
    assert local.returncode == 0, f"Local AWS ended with {local.returncode}"


def client_of(endpoint, service):
    # Of a session of its own, because threads cannot share the making of one.
    return boto3.Session().client(
        service, endpoint_url=endpoint, region_name="eu-central-1", aws_access_key_id="local", aws_secret_access_key="local"
    )


def invoke(endpoint, function, request):
    answer = client_of(endpoint, "lambda").invoke(FunctionName=f"everleaf-{function}", Payload=json.dumps(request))
    body = json.load(answer["Payload"])
    assert "FunctionError" not in answer, body
    return body


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


def openssl(arguments, text, environment=None):
    environment = {**os.environ, **(environment or {})}
    run = subprocess.run(["openssl", *arguments], input=text, capture_output=True, text=True, env=environment)
    assert run.returncode == 0, f"openssl {arguments}: {run.stderr}"
    return run.stdout.strip()


def hex_of(serial):
    return serial.replace(":", "").lower().strip().lstrip("0")


def until(what, look, patience):
    seen = wait_for(what, look, patience, pause=1)
    said(what)
    return seen


def wait_for(what, look, patience=20, pause=0.02):
    give_up = time.monotonic() + patience
    while not (seen := look()):
        assert time.monotonic() < give_up, f"not within {patience} s: {what}"
        time.sleep(pause)
    return seen


def said(what):
    print(f"✓ {what}", flush=True)


def free_port():
    """Below those that the kernel gives to clients: there may be thousands of them before the port is used."""
    while True:
        port = random.randrange(20000, 32000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def connects(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
