"""The stack as `make deploy` makes it, on ministack: a second opinion on what the transform and CloudFormation make of template.yaml,
with the functions' real binaries as Lambda starts them. ACM, AWS Private CA, load balancers and Secrets Manager are Local AWS's:
ministack has none of the first three, and gives a secret's first version another id than it is asked to. So are ECS, and S3 for the
functions. The commands of docs/runbooks run there too, and those of docs/operations.md that Local AWS does not know.

    .venv/bin/python tests/deploy.py [directory of the binaries, target/debug when absent]

`make deploy` runs in a copy of the repository. The binaries are those that are there: cargo-lambda compiles for a target of its own,
and so everything anew, ten minutes long. ministack has no CodeDeploy: of a gradual deployment the versions and aliases are made here,
and the rest is read in what the transform gives.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
import unittest.mock

from samcli.yamlhelper import yaml_dump, yaml_parse
from samtranslator.translator.transform import transform

from documents import BLOCK
from stack import BINARIES, ROOT, aws_cli, client_of, connects, free_port, hex_of, local_aws, openssl, said, wait_for

# Also its prefix. Local AWS runs a stack too, which is called otherwise.
STACK = "deployed"
# What the functions and the commands have of Local AWS; it reads the bundles of trust stores in its own buckets.
LOCALLY = ("ACM", "ACM_PCA", "ECS", "ELASTIC_LOAD_BALANCING_V2", "S3", "SECRETS_MANAGER")
MACHINE = {"x86_64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}[os.uname().machine]


def main():
    with tempfile.TemporaryDirectory() as place, local_aws(subprocess.DEVNULL) as local, ministack(place, local) as aws:
        account = Account(place, aws, local)
        failed_creation(account)
        account.build()
        refused(account)
        deployed(account)
        rules(account)
        issuance(account)
        update(account)
        gradual(account)
        runbooks(account, local)
        deletion(account)
    print("8 passed, 0 failed")


@contextlib.contextmanager
def ministack(place, local):
    port = free_port()
    environment = {
        **os.environ,
        "BIND_HOST": "127.0.0.1", "GATEWAY_PORT": str(port), "TMPDIR": place,
        # They would listen on every address.
        "IOT_MTLS_ENABLED": "0", "SFTP_ENABLED": "0",
        "MINISTACK_ACCOUNT_ID": "111122223333", "MINISTACK_REGION": "eu-central-1",
        # The functions get these too.
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        **{f"AWS_ENDPOINT_URL_{service}": local for service in LOCALLY},
    }
    program = os.path.join(ROOT, ".venv", "ministack", "bin", "ministack")
    with open(os.path.join(place, "ministack.log"), "w") as log:
        # A group of its own, because the functions' processes outlive it.
        server = subprocess.Popen([program], cwd=place, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_for("ministack answers", lambda: connects(port), patience=60)
        yield f"http://127.0.0.1:{port}"
    except BaseException:
        with open(log.name) as text:
            sys.stderr.write("".join(text.readlines()[-40:]))
        raise
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait(timeout=20)


def issuing_ca(local):
    authorities = client_of(local, "acm-pca").list_certificate_authorities()["CertificateAuthorities"]
    names = {ca["CertificateAuthorityConfiguration"]["Subject"]["CommonName"]: ca["Arn"] for ca in authorities}
    return names["Local Issuing CA"]


class Account:
    def __init__(self, place, endpoint, local):
        self.place, self.endpoint, self.secrets = place, endpoint, client_of(local, "secretsmanager")
        self.built, self.packaged = os.path.join(place, "built"), os.path.join(place, "packaged.yaml")
        self.repository, self.asked = os.path.join(place, "repository"), os.path.join(place, "asked")
        self.parameters = {"Prefix": STACK, "Architecture": MACHINE, "IssuingCaArn": issuing_ca(local)}
        self.environment = {
            **os.environ, "AWS_ENDPOINT_URL": endpoint, "AWS_DEFAULT_REGION": "eu-central-1", "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local", "SAM_CLI_TELEMETRY": "0",
        }
        self.client("s3").create_bucket(Bucket="artifacts", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
        self.copy()

    def client(self, service):
        return client_of(self.endpoint, service)

    def copy(self):
        """Of the repository, for what `make deploy` writes, with a stand-in for cargo-lambda. It notes what it is asked for."""

        def left_out(directory, names):
            return set(names) & {".git", ".venv", ".aws-sam", "target", "samconfig.toml"} if directory == ROOT else set()

        shutil.copytree(ROOT, self.repository, symlinks=True, ignore=left_out)
        programs = os.path.join(self.repository, ".venv", "bin")
        os.makedirs(programs)
        write(os.path.join(programs, "cargo-lambda"), f"""#!/usr/bin/env bash
set -e
echo "$@" >> "{self.asked}"
while [ "$1" != --bin ]; do shift; done
mkdir -p "$CARGO_TARGET_DIR/lambda/$2"
cp "{os.path.abspath(BINARIES)}/$2" "$CARGO_TARGET_DIR/lambda/$2/bootstrap"
""")
        os.chmod(os.path.join(programs, "cargo-lambda"), 0o755)
        for stamp in "build", "test":
            write(os.path.join(self.repository, ".venv", f"{stamp}.stamp"), "")
        self.environment["CARGO_TARGET_DIR"] = os.path.join(self.place, "target")

    def make_deploy(self):
        """As the README has it, by somebody who answers what is asked."""
        template = yaml_parse(read(os.path.join(ROOT, "template.yaml")))
        for_ministack(template)
        write(os.path.join(self.repository, "template.yaml"), yaml_dump(template))
        answers = [STACK, "eu-central-1", *(self.parameters.get(name, "") for name in template["Parameters"]), *[""] * 6]
        environment = {name: value for name, value in self.environment.items() if not name.startswith(("MAKE", "MFLAGS"))}
        made = subprocess.run(["make", "deploy"], cwd=self.repository, env=environment, input="\n".join(answers) + "\n",
                              capture_output=True, text=True)
        assert made.returncode == 0, made.stdout + made.stderr
        return made.stdout

    def build(self, *options):
        """What the transform is given, as it is written."""
        path = os.path.join(self.repository, ".venv", "bin") + os.pathsep + os.environ["PATH"]
        build = ["sam", "build", "--beta-features", "--parameter-overrides", f"Architecture={MACHINE}", "--build-dir", self.built, *options]
        run(build, {**self.environment, "PATH": path})
        built = os.path.join(self.built, "template.yaml")
        text = read(built)
        template = yaml_parse(text)
        for_ministack(template)
        write(built, yaml_dump(template))
        run(["sam", "package", "--template-file", built, "--s3-bucket", "artifacts", "--no-progressbar", "--output-template-file",
             self.packaged], self.environment)
        return text

    def deploy(self, **parameters):
        """What it says when it is refused; None when it is deployed."""
        given = {**self.parameters, **parameters}
        command = [
            "sam", "deploy", "--template-file", self.packaged, "--stack-name", STACK, "--s3-bucket", "artifacts", "--capabilities",
            "CAPABILITY_IAM", "--no-progressbar", "--no-fail-on-empty-changeset",
            "--parameter-overrides", *(f"{name}={value}" for name, value in given.items()),
        ]
        deployed = subprocess.run(command, cwd=self.place, env=self.environment, capture_output=True, text=True)
        if deployed.returncode == 0:
            self.parameters = given
            return None
        return deployed.stdout + deployed.stderr

    def invoke(self, function, request):
        answer = self.client("lambda").invoke(FunctionName=f"{STACK}-{function}", Payload=json.dumps(request))
        body = json.load(answer["Payload"])
        assert "FunctionError" not in answer, body
        return body

    def resources(self):
        pages = self.client("cloudformation").get_paginator("list_stack_resources").paginate(StackName=STACK)
        return {one["LogicalResourceId"]: one["PhysicalResourceId"] for page in pages for one in page["StackResourceSummaries"]}

    def kept(self):
        """All that no change of the stack may touch."""
        found, resources = {}, self.resources()
        for secret in self.secrets.list_secrets()["SecretList"]:
            described = self.secrets.describe_secret(SecretId=secret["ARN"])
            assert "DeletedDate" not in described, described
            found[secret["Name"]] = described["VersionIdsToStages"]
        items = self.client("dynamodb").scan(TableName=resources["Table"])["Items"]
        found["certificates"] = [item for item in items if item["id"]["S"].startswith("certificate#")]
        found["names"] = (resources["Table"], resources["Bucket"])
        return found


def failed_creation(account):
    """What is kept of a stack, and then something that fails."""
    template, cloudformation = yaml_parse(read(os.path.join(ROOT, "template.yaml"))), account.client("cloudformation")
    kept = {name: one for name, one in template["Resources"].items() if "DeletionPolicy" in one}
    assert {"Bucket", "Table"} < set(kept) and all(one["UpdateReplacePolicy"] == "Retain" for one in kept.values()), kept
    fails = {
        "Handle": {"Type": "AWS::CloudFormation::WaitConditionHandle"},
        "Fails": {"Type": "AWS::CloudFormation::WaitCondition", "DependsOn": list(kept), "Properties": {"Handle": {"Ref": "Handle"}, "Timeout": "1"}},
    }
    needs = {"Parameters": ("Prefix", "KmsKeyArn"), "Conditions": ("HasKey",)}
    body = {part: {name: template[part][name] for name in names} for part, names in needs.items()}
    cloudformation.create_stack(StackName="failed", TemplateBody=json.dumps({**body, "Resources": {**kept, **fails}}))
    status = lambda: cloudformation.describe_stacks(StackName="failed")["Stacks"][0]["StackStatus"]  # noqa: E731
    wait_for("the creation is undone", lambda: status() == "ROLLBACK_COMPLETE")
    left = account.client("dynamodb").list_tables()["TableNames"], [one["Name"] for one in account.client("s3").list_buckets()["Buckets"]]
    assert left == ([], ["artifacts"]), left
    said("a first creation that fails leaves nothing behind")


def refused(account):
    """Before anything is deployed, and the reason is said."""
    cases = [
        ({"VpcSubnetIds": "subnet-0a"}, "functions in a VPC need both VpcSubnetIds and VpcSecurityGroupIds"),
        ({"ReplicaRegions": "eu-central-1"}, "ReplicaRegions are other regions than the stack's own"),
        ({"Prefix": "Everleaf"}, "a lower-case letter, then at most 39"),
        ({"ReservedConcurrency": "-1"}, "ReservedConcurrency"),
    ]
    for parameters, reason in cases:
        said_by_it = account.deploy(**parameters)
        assert said_by_it and reason in " ".join(said_by_it.split()), f"{parameters}: {said_by_it}"
    said("parameters that cannot work are refused with the reason")


def for_ministack(template):
    """It has no CodeDeploy, and knows no metric math."""
    template["Globals"]["Function"].pop("DeploymentPreference", None)
    for alarm in (one["Properties"] for one in template["Resources"].values() if one["Type"] == "AWS::CloudWatch::Alarm"):
        if alarm.pop("Metrics", None):
            alarm.update(Namespace="AWS/Lambda", MetricName="Errors", Period=60, Statistic="Sum")


def deployed(account):
    os.remove(account.asked)
    told = account.make_deploy()
    built = [line.split() for line in read(account.asked).splitlines()]
    functions = sorted(os.listdir(os.path.join(ROOT, "functions")))
    # In the zip of another architecture nothing would start: what the template takes by default is what is built.
    default = yaml_parse(read(os.path.join(ROOT, "template.yaml")))["Parameters"]["Architecture"]["Default"]
    assert sorted(words.pop() for words in built) == functions, built
    assert all(words == ["lambda", "build", "--release", f"--{default}", "--bin"] for words in built), built
    assert f"Built for {default}: answer that when asked" in told and f"created/updated stack - {STACK}" in told, told
    with open(os.path.join(account.repository, "samconfig.toml"), "rb") as file:
        kept = tomllib.load(file)["default"]["deploy"]["parameters"]["parameter_overrides"]
    assert all(f'{name}="{value}"' in kept for name, value in account.parameters.items()), kept
    said("make deploy: the stack is there, and what was answered is kept for the next time")


def rules(account):
    """Every file of events/ that is an event goes to its function, and to no other."""
    events, resources = account.client("events"), account.resources()
    patterns = []
    for rule in events.list_rules()["Rules"]:
        for target in events.list_targets_by_rule(Rule=rule["Name"])["Targets"]:
            assert target["DeadLetterConfig"]["Arn"], target
            if ":function:" in target["Arn"]:
                patterns.append((target["Arn"].split(":")[6], rule["EventPattern"]))
    assert len(patterns) == 9, patterns
    count = 0
    for file in sorted(os.listdir(os.path.join(ROOT, "events"))):
        with open(os.path.join(ROOT, "events", file)) as text:
            event = json.load(text)
        if "detail-type" not in event:
            continue
        # What is the deployment's to choose.
        if event["source"] == "aws.s3":
            event["detail"]["bucket"]["name"] = resources["Bucket"]
        if event["source"] == "everleaf":
            event["detail"]["prefix"] = STACK
        envelope = {"id": "1", "account": "111122223333", "region": "eu-central-1", "time": "2027-01-04T09:00:00Z", "resources": []}
        event = json.dumps({**envelope, **event})
        goes_to = {function for function, pattern in patterns
                   if events.test_event_pattern(EventPattern=pattern, Event=event)["Result"]}
        assert goes_to == {f"{STACK}-{file.split('.')[0]}"}, (file, goes_to)
        count += 1
    said(f"{count} events of events/ match the rules of their functions alone")


def order(**changes):
    with open(os.path.join(ROOT, "events", "issue-client-cert.json")) as file:
        return {**json.load(file), "services": [], **changes}


def issuance(account):
    request = order()
    body = account.invoke("issue-client-cert", request)
    assert body["outcome"] == "issued", body
    secret = account.secrets.get_secret_value(SecretId=f"{STACK}/{request['name']}")
    assert "AWSCURRENT" in secret["VersionStages"] and secret["VersionId"] == body["version_id"], secret["VersionStages"]
    pair = json.loads(secret["SecretString"])
    with tempfile.NamedTemporaryFile("w") as chain, tempfile.NamedTemporaryFile("w") as root:
        chain.write(pair["certificate_chain"])
        root.write(re.findall("-----BEGIN.*?END CERTIFICATE-----\n?", pair["certificate_chain"], re.DOTALL)[-1])
        chain.flush(), root.flush()
        openssl(["verify", "-purpose", "sslclient", "-CAfile", root.name, "-untrusted", chain.name], pair["certificate"])
    public = openssl(["pkey", "-pubout", "-passin", "env:PASSPHRASE"], pair["private_key"], {"PASSPHRASE": pair["passphrase"]})
    assert public == openssl(["x509", "-noout", "-pubkey"], pair["certificate"])
    serial = hex_of(openssl(["x509", "-noout", "-serial"], pair["certificate"]).split("=")[1])
    assert serial == hex_of(body["serial_number"])
    said("what is invoked ends in a promoted secret that openssl verifies")


def spoken_of(account, local):
    """What the runbooks speak of, and the values of their variables."""
    acm, pca, s3, sqs = client_of(local, "acm"), client_of(local, "acm-pca"), client_of(local, "s3"), account.client("sqs")
    authority, resources = account.parameters["IssuingCaArn"], account.resources()
    account.invoke("issue-client-cert", order(name="orders"))
    gateway = acm.request_certificate(
        DomainName="gateway.example.com", CertificateAuthorityArn=authority,
        Tags=[{"Key": "everleaf:certificate", "Value": f"{STACK}/gateway"}],
    )["CertificateArn"]
    wait_for("ACM issues", lambda: acm.describe_certificate(CertificateArn=gateway)["Certificate"]["Status"] == "ISSUED")
    account.invoke("export-to-secrets", {"certificate_arn": gateway})
    root = pca.get_certificate_authority_certificate(CertificateAuthorityArn=authority)["CertificateChain"]
    s3.create_bucket(Bucket=resources["Bucket"], CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    s3.put_object(Bucket=resources["Bucket"], Key="trust/extra/clients/root.pem", Body=root)
    account.invoke("refresh-truststore", {"declare": {"name": "clients", "certificate_authority_arns": [authority]}})
    sqs.send_message(QueueUrl=sqs.get_queue_url(QueueName=f"{STACK}-failures")["QueueUrl"], MessageBody="{}")
    return {
        "ARN": gateway, "BAD": "1" * 32, "BUCKET": resources["Bucket"], "CA": authority, "GOOD": "0" * 32, "REGION": "eu-west-1",
        "TABLE": resources["Table"],
    }


def runbooks(account, local):
    """Their commands as they are written, but for the stack's prefix, where what they speak of is there."""
    folder, count = os.path.join(ROOT, "docs", "runbooks"), 0
    aws_cli(account.place)
    environment = {
        **account.environment, **{f"AWS_ENDPOINT_URL_{service}": local for service in LOCALLY}, **spoken_of(account, local),
        "AWS_MAX_ATTEMPTS": "1", "AWS_PAGER": "", "PREFIX": STACK, "PATH": f"{account.place}:{os.environ['PATH']}",
    }
    bash = lambda commands: subprocess.run(["bash", "-euc", commands], env=environment, capture_output=True, text=True)  # noqa: E731
    for name in [*sorted(os.listdir(folder)), "../operations.md"]:
        text, elsewhere = read(os.path.join(folder, name)).replace("everleaf", STACK), name == "../operations.md"
        runs = lambda note: note == "deployed" if elsewhere else not note.startswith("not run: ")  # noqa: E731
        for commands in (commands for note, commands, _ in BLOCK.findall(text) if runs(note)):
            done = bash(commands)
            assert done.returncode == 0 and "FunctionError" not in done.stdout, (name, commands, done.stdout, done.stderr)
            if "receive-message" in commands:
                environment["HANDLE"] = json.loads(done.stdout)["Messages"][0]["ReceiptHandle"]
            count += 1
        # Those of a table mend what is not broken here: it is only seen that the CLI would send them.
        for command in [] if elsewhere else re.findall(r"`(aws [^`]+)`", text):
            sent = bash(f"{command} --endpoint-url http://127.0.0.1:1")
            assert "Could not connect" in sent.stderr, (name, command, sent.stderr)
            count += 1
    sqs = account.client("sqs")
    queue = sqs.get_queue_url(QueueName=f"{STACK}-failures")["QueueUrl"]
    left = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["All"])["Attributes"]
    assert left["ApproximateNumberOfMessages"] == left["ApproximateNumberOfMessagesNotVisible"] == "0", left
    said(f"{count} commands of the runbooks, and how everything is stopped, are what the CLI and the stack take")


def validity(account):
    """Where events go, and the longest validity that the function has there."""
    targets = account.client("events").list_targets_by_rule(Rule=account.resources()["IssueClientCertDue"])["Targets"]
    configuration = account.client("lambda").get_function_configuration(FunctionName=targets[0]["Arn"])
    return targets[0]["Arn"].partition("-client-cert")[2], configuration["Environment"]["Variables"]["EVERLEAF_MAX_VALIDITY_DAYS"]


def update(account):
    before = account.kept()
    assert len(before) == 3 and before["certificates"] and validity(account) == ("", "397"), before
    said_by_it = account.deploy(MaxValidityDays="90")
    assert said_by_it is None, said_by_it
    assert validity(account) == ("", "90")
    assert account.kept() == before
    said("an update changes what it says and nothing that is kept")


def gradual(account):
    wrong = subprocess.run([sys.executable, "tools/gradual.py", "Canary"], cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert wrong.returncode == 1 and "Canary10Percent5Minutes" in wrong.stderr, wrong
    before, at_once = account.kept(), read(account.packaged)
    template = os.path.join(account.place, "gradual.yaml")
    with open(os.path.join(ROOT, "template.yaml")) as given, open(template, "w") as file:
        subprocess.run([sys.executable, "tools/gradual.py", "AllAtOnce"], cwd=ROOT, stdin=given, stdout=file, check=True)
    text = account.build("--template-file", template, "--base-dir", ROOT)
    packaged = read(account.packaged)
    for days, year in (("60", "2027"), ("45", "2028")):
        # Also where only a parameter changes, events do not go on to the value before.
        write(account.packaged, re.sub(r"(EVERLEAF_DEPLOYED: ')\d{4}", rf"\g<1>{year}", packaged))
        said_by_it = account.deploy(MaxValidityDays=days)
        assert said_by_it is None, said_by_it
        assert validity(account) == (":live", days), validity(account)
    assert account.kept() == before
    resources = transformed(text)
    alarms = {"Enabled": True, "Alarms": [{"Name": {"Ref": "FunctionErrors"}}, {"Name": {"Ref": "FailuresWaiting"}}]}
    groups = {name: one["Properties"] for name, one in resources.items() if one["Type"] == "AWS::CodeDeploy::DeploymentGroup"}
    assert len(groups) == 5 and all(group["AlarmConfiguration"] == alarms for group in groups.values()), groups
    aliases = [one for one in resources.values() if one["Type"] == "AWS::Lambda::Alias"]
    assert {alias["UpdatePolicy"]["CodeDeployLambdaAliasUpdate"]["DeploymentGroupName"]["Ref"] for alias in aliases} == set(groups)
    # Where an organisation demands a boundary, a role without one is not made.
    roles = {name: one["Properties"] for name, one in resources.items() if one["Type"] == "AWS::IAM::Role"}
    boundary = {"Fn::If": ["HasBoundary", {"Ref": "PermissionsBoundaryArn"}, {"Ref": "AWS::NoValue"}]}
    unbound = [name for name, role in roles.items() if role.get("PermissionsBoundary") != boundary]
    assert not unbound and {str(group["ServiceRoleArn"]) for group in groups.values()} == {str({"Fn::GetAtt": ["Deployer", "Arn"]})}, (unbound, groups)
    # Lambda publishes no version for another tag alone, and the deployment of one that is not published fails.
    later = transformed(re.sub(r"(EVERLEAF_DEPLOYED: ')\d{4}", r"\g<1>2029", text))
    for name, function in resources.items():
        if function["Type"] == "AWS::Lambda::Function":
            changed = {key for key, value in later[name]["Properties"].items() if value != function["Properties"][key]}
            assert changed - {"Tags"}, (name, changed)
    versions = [{name for name, one in made.items() if one["Type"] == "AWS::Lambda::Version"} for made in (resources, later)]
    assert len(versions[0]) == 5 and not versions[0] & versions[1], versions
    write(account.packaged, at_once)
    said_by_it = account.deploy()
    assert said_by_it is None and validity(account) == ("", "45"), said_by_it
    said("a gradual deployment takes every change to where events go, and alarms take it back")


def transformed(text):
    """The resources of a template as SAM's transform makes them."""
    template = yaml_parse(text)
    for function in (one for one in template["Resources"].values() if one["Type"] == "AWS::Serverless::Function"):
        function["Properties"]["CodeUri"] = "s3://artifacts/code"
    given = {name: str(one.get("Default", "")) for name, one in template["Parameters"].items()}
    with unittest.mock.patch.dict(os.environ, AWS_DEFAULT_REGION="eu-central-1"):
        return transform(template, given, unittest.mock.Mock(load=dict))["Resources"]


def deletion(account):
    kept, cloudformation = account.kept(), account.client("cloudformation")
    cloudformation.delete_stack(StackName=STACK)
    cloudformation.get_waiter("stack_delete_complete").wait(StackName=STACK, WaiterConfig={"Delay": 1, "MaxAttempts": 60})
    names = [function["FunctionName"] for function in account.client("lambda").list_functions()["Functions"]]
    assert not names, names
    table, bucket = kept["names"]
    items = account.client("dynamodb").scan(TableName=table)["Items"]
    assert [item for item in items if item["id"]["S"].startswith("certificate#")] == kept["certificates"]
    account.client("s3").head_bucket(Bucket=bucket)
    secret = account.secrets.describe_secret(SecretId=f"{STACK}/orders-mtls")
    assert "DeletedDate" not in secret and secret["VersionIdsToStages"] == kept[f"{STACK}/orders-mtls"], secret
    said("what is deleted leaves the table, the bucket and the secrets")


def read(file):
    with open(file) as text:
        return text.read()


def write(file, text):
    with open(file, "w") as written:
        written.write(text)


def run(command, environment):
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"


if __name__ == "__main__":
    main()
