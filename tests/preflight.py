"""make preflight against Local AWS: each fault is caused, and must be said with its remedy. What Local AWS does not answer must be a
question mark; answers of AWS's shape stand in for it, so that these faults are seen too.

    .venv/bin/python tests/preflight.py [directory of the binaries, target/debug when absent]
"""

import copy
import json
import os
import subprocess
import sys
import tempfile

from stack import BINARIES, ROOT, active_ca, client_of, local_aws, said, wait_for

sys.path.insert(0, os.path.join(ROOT, "tools"))
# The AWS CLI of this environment goes before any other.
os.environ["PATH"] = f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
import preflight  # noqa: E402
from aws import Refused, aws  # noqa: E402

PROGRAM = os.path.join(BINARIES, "parameters")
ACCOUNT = "111122223333"
CA = f"arn:aws:acm-pca:eu-central-1:{ACCOUNT}:certificate-authority/00000000-0000-0000-0000-000000000000"
KEY = f"arn:aws:kms:eu-central-1:{ACCOUNT}:key/k"


def main():
    os.chdir(ROOT)
    form()
    sources()
    deploys()
    with local_aws() as endpoint:
        os.environ.update(AWS_ENDPOINT_URL=endpoint, AWS_ACCESS_KEY_ID="local", AWS_SECRET_ACCESS_KEY="local", AWS_REGION="eu-central-1")
        authorities(endpoint)
        others(endpoint)
        whole(endpoint)
    stood_in()
    print("7 passed, 0 failed")


def expect(lines, *expected):
    """Each line has its mark, and says what is in its place here."""
    told = []
    try:
        for line in lines:
            told.append(line)
    except preflight.Unasked as why:
        told.append(("?", str(why)))
    assert [mark for mark, _ in told] == [mark for mark, _ in expected], (told, expected)
    for (_, text), (_, part) in zip(told, expected):
        assert part in text, (text, part)


def form():
    rows = [
        ({}, ("✓", "x will do")),
        ({"Prefix": "Ever", "MaxValidityDays": "0"}, ("✗", 'MaxValidityDays: "0" must be at least 1. Mend it in x'),
         ("✗", 'Prefix: "Ever" must be a lower-case letter, then at most 39')),
        ({"AllowedCaArns": CA}, ("✗", "AllowedCaArns are further CAs; give the first one as IssuingCaArn")),
        ({"Nonsense": "1"}, ("✗", "the template has no parameter Nonsense")),
        ({"AllowedNames": "a..b", "TrustStores": '[{"name": "a b"}]'}, ("✗", "TrustStores: name: `a b` is not 1 to 32 letters and digits with single hyphens between them. Mend"),
         ("✗", "AllowedNames: `a..b` is neither a domain such as example.com nor a network")),
        ({"TrustStores": '[{"name": "a", "colour": "red"}]'}, ("✗", "TrustStores: colour: is not a field of a declaration")),
        ({"RetiredCas": f"{CA}={CA}"}, ("✗", "RetiredCas: ")),
    ]
    for given, *expected in rows:
        told = list(preflight.parameters(PROGRAM, given, "x"))
        expect(told, *expected)
        # One fault a line, and each once, whichever functions say it.
        assert all(text.startswith(part) for (_, text), (_, part) in zip(told, expected)), told
    expect(preflight.parameters("/none", {}, "x"), ("?", "/none is not built"))
    said("a parameter that the template or a function would refuse is refused before, by its name")


def sources():
    """Where the parameters come from: what is given first, then what `make deploy` has left."""
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write('[default.deploy.parameters]\nstack_name = "mine"\nregion = "eu-west-1"\n'
                   'parameter_overrides = "Prefix=\\"mine\\" AllowedNames=\\"a.example,b.example\\""\n')
        file.flush()
        os.environ["SAMCONFIG"] = file.name
        assert preflight.deployment() == ({"Prefix": "mine", "AllowedNames": "a.example,b.example"}, file.name, "mine", "eu-west-1")
        os.environ["PARAMETERS"] = "Prefix=yours AllowedNames='a b'"
        assert preflight.deployment() == ({"Prefix": "yours", "AllowedNames": "a b"}, "PARAMETERS", "everleaf", "eu-west-1")
    for name in ("SAMCONFIG", "PARAMETERS", "AWS_REGION", "AWS_DEFAULT_REGION"):
        del os.environ[name]
    said("the parameters are those that would be deployed")


def deploys():
    """`make deploy` begins with the same judgement, where it knows the parameters."""
    def make(*what):
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
        environment |= {"CARGO_TARGET_DIR": os.path.dirname(os.path.abspath(BINARIES)), "PARAMETERS": "Prefix=mine"}
        run = subprocess.run(["make", *what], env=environment, capture_output=True, text=True)
        return run.returncode, run.stdout + run.stderr

    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        for overrides, fault in (
            ("AllowedNames=a..b", "AllowedNames: `a..b` is neither a domain"), ("TrustStores={", "TrustStores: "),
            ("RetiredCas=old", "RetiredCas: "), ("MaxValidityDays=0", 'MaxValidityDays: "0" must be at least 1'), ("Prefix=mine", None),
        ):
            file.seek(0)
            file.truncate()
            file.write(f'[default.deploy.parameters]\nparameter_overrides = "{overrides}"\n')
            file.flush()
            code, told = make("parameters", f"SAMCONFIG={file.name}")
            assert bool(code) == bool(fault), told
            assert fault is None or "make deploy: nothing was deployed" in told and f"✗ parameters: {fault}" in told, told
            assert fault is None or f"Mend it in {file.name}" in told, told
    assert make("parameters", "SAMCONFIG=/none") == (0, ""), "nothing is known yet"
    _, steps = make("--dry-run", "deploy")
    assert -1 < steps.index("preflight.py") < steps.index("sam build") < steps.index("sam deploy"), steps
    said("make deploy refuses a parameter that a function would refuse, before it builds")


def authorities(endpoint):
    pca = client_of(endpoint, "acm-pca")
    issuing = next(ca["Arn"] for ca in pca.list_certificate_authorities()["CertificateAuthorities"]
                   if ca["CertificateAuthorityConfiguration"]["Subject"]["CommonName"] == "Local Issuing CA")
    root = active_ca(pca, "ROOT", "Preflight Root", "RootCACertificate/V1")
    pending = pca.create_certificate_authority(CertificateAuthorityType="ROOT", CertificateAuthorityConfiguration={
        "KeyAlgorithm": "RSA_2048", "SigningAlgorithm": "SHA256WITHRSA", "Subject": {"CommonName": "Pending"}})["CertificateAuthorityArn"]
    wanted = {**preflight.defaults(), "CrlBucketArns": "arn:aws:s3:::local-crls"}

    def ca(arn, purpose="issuing", **changes):
        return preflight.authority(arn, purpose, {**wanted, **changes}, "eu-central-1")

    active = ("✓", "it is active, RSA_2048, GENERAL_PURPOSE, and has ")
    expect(ca(issuing), active, ("✓", "its CRLs are in arn:aws:s3:::local-crls"))
    expect(ca(root), active, ("✓", "it publishes no CRL"))
    expect(ca(issuing, CrlBucketArns=""), active, ("✗", "nothing can be revoked. Add arn:aws:s3:::local-crls"))
    expect(ca(CA), ("✗", "there is none. Correct the ARN"))
    expect(ca(issuing.replace("eu-central-1", "eu-west-1")), ("✗", "it is in eu-west-1, and the stack would be in eu-central-1"))
    described = lambda: pca.describe_certificate_authority(CertificateAuthorityArn=pending)["CertificateAuthority"]  # noqa: E731
    wait_for("the new CA is created", lambda: described()["Status"] == "PENDING_CERTIFICATE")
    expect(ca(pending), ("✗", "it is PENDING_CERTIFICATE. Have its CSR signed"))
    pca.update_certificate_authority(CertificateAuthorityArn=root, Status="DISABLED")
    expect(ca(root), ("✗", f"it is DISABLED. aws acm-pca update-certificate-authority --certificate-authority-arn {root} --status ACTIVE"))
    expect(ca(root, "trusted"), ("✗", "it is DISABLED."))
    expect(ca(root, "retired"), ("✓", "it publishes no CRL"))
    expect(preflight.acm_permitted(issuing), ("✓", "ACM may issue and renew from it"))
    expect(preflight.permitted(issuing), ("?", "what answers here knows no sts get-caller-identity"))
    wanted |= {"IssuingCaArn": "a", "AllowedCaArns": "b,c", "RetiredCas": "c=d", "TrustStores": '[{"certificate_authority_arns": ["c", "e"]}]'}
    assert preflight.authorities(wanted) == {
        "a": "issuing", "b": "issuing", "c": "retired", "d": "issuing", "e": "trusted"}, preflight.authorities(wanted)
    said("a CA that is not there, not active, elsewhere, or whose CRLs cannot be reached is told")


def others(endpoint):
    elb, pca, secrets = (client_of(endpoint, service) for service in ("elbv2", "acm-pca", "secretsmanager"))
    expect(preflight.crl_bucket("local-crls"), ("✓", "it can be read"), ("?", "what answers here knows no s3api get-bucket-policy"))
    expect(preflight.crl_bucket("none"), ("✗", "there is none. Make it again"))

    [balancer] = elb.describe_load_balancers(Names=["clients"])["LoadBalancers"]
    [https, _] = elb.describe_listeners(LoadBalancerArn=balancer["LoadBalancerArn"])["Listeners"]
    arn = https["ListenerArn"]
    expect(preflight.listener(arn, [arn]), ("✓", "it speaks HTTPS, and its mode is off"))
    expect(preflight.listener(arn[:-1] + "x", []), ("✗", "there is none. Correct the ARN in TrustStores"))

    names = {ca["CertificateAuthorityConfiguration"]["Subject"]["CommonName"]: ca["Arn"] for ca in pca.list_certificate_authorities()["CertificateAuthorities"]}
    store = lambda *arns: preflight.trust_store({"name": "clients", "certificate_authority_arns": arns})  # noqa: E731
    expect(store(), ("✓", "are 0 certificates, and it holds 25"))
    expect(store(names["Local Issuing CA"]), ("✓", "are 2 certificates"))
    for arn in names["Pending"], CA:
        expect(store(names["Local Issuing CA"], arn), ("?", f"{arn} has no certificate to count"))

    expect(preflight.secrets("everleaf"), ("✓", "none under everleaf/"))
    secrets.create_secret(Name="everleaf/a", SecretString="{}", Tags=[{"Key": "everleaf:certificate", "Value": "everleaf/a"}])
    secrets.create_secret(Name="other/a", SecretString="{}")
    expect(preflight.secrets("everleaf"), ("✓", "1 under everleaf/, all of them Everleaf's"))
    expect(preflight.secrets("other"), ("✗", "other/a is there without the tag everleaf:certificate. Move it, or choose another Prefix"))
    secrets.tag_resource(SecretId="other/a", Tags=[{"Key": "everleaf:certificate", "Value": "everleaf/a"}])
    expect(preflight.secrets("other"), ("✗", "other/a is tagged as everleaf/a. Correct its tag"))

    expect(preflight.replicas("none", "eu-central-1", "eu-west-1"), ("?", "knows no ec2 describe-regions"), ("✓", "the region answers, and nothing stands in the way under none/"))
    expect(preflight.prefix("free", "mine"), ("✓", "free is free"))
    expect(preflight.prefix("everleaf", "mine"), ("?", "has no tag that says of which stack"))
    expect(preflight.pace(200, 100), ("✓", "replaces 100 certificates in 1 h"))
    expect(preflight.pace(200, 100_000), ("✗", "more than the last third of 30 days. Raise HourlyBudget"))
    expect(preflight.kms_key(KEY), ("?", "knows no kms describe-key"))
    expect(preflight.encryption("local-crls", "everleaf"), ("?", "knows no s3api get-bucket-encryption"))
    expect(preflight.standing("everleaf", preflight.defaults(), True), ("?", "knows no cloudformation describe-stacks"))
    expect(preflight.credentials(""), ("✗", "no region is chosen. Set AWS_REGION"))
    said("buckets, listeners, secrets and the prefix are looked at")


def whole(endpoint):
    """By make, as a person runs it: what Local AWS cannot answer is never said to hold, and a fault is an exit code."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}

    def run(parameters):
        words = ["make", "preflight", f"PARAMETERS={parameters}", f"CARGO_TARGET_DIR={os.path.dirname(os.path.abspath(BINARIES))}"]
        return subprocess.run(words, capture_output=True, text=True, timeout=300, env=environment)

    clean = run("Prefix=clean")
    assert clean.returncode == 0, clean
    marks = [line.split(":")[0] for line in clean.stdout.splitlines()]
    assert marks == ["✓ parameters", "? credentials", "? organization", "✓ issuing CA", "? stack", "✓ prefix", "✓ secrets", "? tags in ACM", "? quota of secrets",
                     "? quota of certificates in ACM", "? quota of certificates of a CA", "? quota of trust stores", "? concurrency",
                     "✓ pace"], clean.stdout
    faulty = run("Prefix=clean CrlBucketArns=arn:aws:s3:::none")
    assert faulty.returncode != 0 and "make preflight: 1 to be mended" in faulty.stderr, faulty
    wrong = run("Prefix=Clean")
    assert wrong.returncode != 0 and len(wrong.stdout.splitlines()) == 2, wrong
    said("make preflight fails where something is missing, and is silent on what it could not ask")


def stood_in():
    """What Local AWS has no answer to: in the shape of AWS's answers, with what is wrong in it."""
    answers, calls = {}, []

    def stand_in(*arguments):
        calls.append(arguments)
        answer = answers[arguments[:2]]
        if callable(answer):
            return answer(arguments)
        if isinstance(answer, str):
            raise Refused(f"aws {arguments[0]} {arguments[1]}: An error occurred ({answer}) when calling the X operation: no")
        return copy.deepcopy(answer)

    def row(call, answer, lines, *expected):
        answers[tuple(call.split())] = answer
        expect(lines(), *expected)

    preflight.aws = stand_in
    identity = {"Account": ACCOUNT, "Arn": f"arn:aws:iam::{ACCOUNT}:user/me"}
    for answer, expected in [(identity, ("✓", "user/me in eu-central-1")), ("ExpiredToken", ("✗", "(ExpiredToken) when calling"))]:
        row("sts get-caller-identity", answer, lambda: preflight.credentials("eu-central-1"), expected)
    answers["sts", "get-caller-identity"] = identity

    # Actions, and no keys of conditions.
    actions = preflight.needed()
    assert {"acm-pca:IssueCertificate", "dynamodb:UpdateItem", "ecs:UpdateService", "secretsmanager:PutSecretValue"} <= set(actions), actions
    assert not {"acm-pca:TemplateArn", "secretsmanager:ResourceTag"} & set(actions), actions

    def simulated(**decided):
        return {"EvaluationResults": [{"EvalActionName": action, "EvalDecision": "implicitDeny", **decided} for action in actions[:2]]}

    for allowed, expected in [
        ({"OrganizationsDecisionDetail": {"AllowedByOrganizations": True}}, ("✓", "that denies arn:aws:iam::111122223333:user/me any of 2 actions")),
        # Without an organization nothing is said of one.
        ({}, ("✓", "knows no service control policy")),
        ({"OrganizationsDecisionDetail": {"AllowedByOrganizations": False}}, ("?", f"user/me {actions[0]}, {actions[1]}; ask whoever runs the organization")),
    ]:
        row("iam simulate-principal-policy", simulated(**allowed), lambda: preflight.organization("eu-central-1"), expected)
    asked = calls[-1]
    assert "arn:aws:iam::111122223333:user/me" in asked and "ContextKeyName=aws:RequestedRegion,ContextKeyValues=eu-central-1,ContextKeyType=string" in asked
    answers["iam", "get-role"] = {"Role": {"Arn": f"arn:aws:iam::{ACCOUNT}:role/aws-reserved/admin"}}
    answers["sts", "get-caller-identity"] = {"Account": ACCOUNT, "Arn": f"arn:aws:sts::{ACCOUNT}:assumed-role/admin/me"}
    row("iam simulate-principal-policy", simulated(), lambda: preflight.organization("eu-central-1"), ("✓", ""))
    assert f"arn:aws:iam::{ACCOUNT}:role/aws-reserved/admin" in calls[-1]
    row("iam simulate-principal-policy", "AccessDenied", lambda: preflight.organization("eu-central-1"), ("?", "AccessDenied"))
    answers["sts", "get-caller-identity"] = identity

    now = preflight.datetime.datetime.now(preflight.datetime.timezone.utc)
    authority = {"Status": "ACTIVE", "CertificateAuthorityConfiguration": {"KeyAlgorithm": "EC_prime256v1"}}
    for days, mode, longest, *expected in [
        (400, "GENERAL_PURPOSE", 397, ("✓", "EC_prime256v1, GENERAL_PURPOSE, and has 399 days left")),
        (200, "GENERAL_PURPOSE", 397, ("✓", "199 days left; AWS refuses what would outlast it")),
        (60, "GENERAL_PURPOSE", 30, ("✗", "it expires in 59 days. Set up its successor")),
        (400, "SHORT_LIVED_CERTIFICATE", 7, ("✓", "SHORT_LIVED_CERTIFICATE")),
        (400, "SHORT_LIVED_CERTIFICATE", 30, ("✓", ""), ("✗", "at most 7 days, and MaxValidityDays is 30. Set MaxValidityDays=7")),
    ]:
        until = now + preflight.datetime.timedelta(days=days)
        for written in (until.timestamp(), until.isoformat(), until.strftime("%Y-%m-%dT%H:%M:%SZ")):
            expect(preflight.issues({**authority, "UsageMode": mode, "NotAfter": written}, longest), *expected)

    shared = CA.replace(ACCOUNT, "444455556666")

    def policy(effect="Allow", *templates):
        named = [f"arn:aws:acm-pca:::template/{template}/V1" for template in templates]
        statement = {"Effect": effect, "Action": ["acm-pca:IssueCertificate"], "Condition": {"StringEquals": {"acm-pca:TemplateArn": named}}}
        return {"Policy": json.dumps({"Statement": [statement]})}

    for arn, answer, expected in [
        (CA, "ResourceNotFoundException", ("✓", "the CA is the account's own")),
        (CA, policy("Deny"), ("✗", "its policy denies acm-pca:IssueCertificate")),
        (CA, policy("Allow", "EndEntityCertificate"), ("✓", "by all three templates")),
        (shared, "ResourceNotFoundException", ("?", "ask its owner which templates the share allows")),
        (shared, "AccessDeniedException", ("?", "AccessDeniedException")),
        (shared, policy("Allow", "EndEntityCertificate"),
         ("✗", "by EndEntityClientAuthCertificate, EndEntityServerAuthCertificate. Have its owner add them")),
        (shared, policy("Allow", *preflight.TEMPLATES), ("✓", "by all three templates")),
    ]:
        row("acm-pca get-policy", answer, lambda arn=arn: preflight.permitted(arn), expected)

    every = ["IssueCertificate", "GetCertificate", "ListPermissions"]
    for principal, actions, expected in [
        ("acm.amazonaws.com", every, "ACM may issue and renew from it"),
        ("acm.amazonaws.com", every[:1], "ACM may not renew from it, which its own certificates alone need: aws acm-pca create-permission"),
        ("other.amazonaws.com", every, "ACM may not renew"),
    ]:
        permissions = {"Permissions": [{"Principal": principal, "Actions": actions}]}
        row("acm-pca list-permissions", permissions, lambda: preflight.acm_permitted(CA), ("✓", expected))
    row("acm-pca list-permissions", "AccessDeniedException", lambda: preflight.acm_permitted(shared), ("?", "AccessDeniedException"))

    regions = {"Regions": [{"RegionName": name, "OptInStatus": status} for name, status in [
        ("eu-central-1", "opt-in-not-required"), ("eu-west-1", "opt-in-not-required"), ("eu-south-1", "opted-in"), ("ap-east-1", "not-opted-in")]]}
    answers["ec2", "describe-regions"] = regions
    for name, home, expected in [
        ("p/a", "eu-central-1", ("✓", "nothing stands in the way")), ("pp/a", None, ("✓", "nothing stands in the way")),
        ("p/a", "us-east-1", ("✗", "p/a is there, and is no replica of eu-central-1's. Move it")), ("p/a", None, ("✗", "no replica")),
    ]:
        listed = {"SecretList": [{"Name": name, **({"PrimaryRegion": home} if home else {})}]}
        row("secretsmanager list-secrets", listed, lambda: preflight.replicas("p", "eu-central-1", "eu-west-1"), expected)
    row("secretsmanager list-secrets", "UnrecognizedClientException", lambda: preflight.replicas("p", "eu-central-1", "eu-west-1"), ("?", "UnrecognizedClient"))
    answers["secretsmanager", "list-secrets"] = {"SecretList": []}
    free = ("✓", "nothing stands in the way")
    for region, answer, *expected in [
        ("eu-wets-1", regions, ("✗", "there is no such region, and no secret would be made. Correct ReplicaRegions")),
        ("ap-east-1", regions, ("✗", "the account has not enabled it. aws account enable-region --region-name ap-east-1")),
        ("eu-south-1", regions, free),
        ("eu-wets-1", "UnauthorizedOperation", ("?", "could not be asked"), free),
    ]:
        row("ec2 describe-regions", answer, lambda region=region: preflight.replicas("p", "eu-central-1", region), *expected)

    def route(**to):
        return {"DestinationCidrBlock": "0.0.0.0/0", "State": "active", **to}

    local = {"DestinationCidrBlock": "10.0.0.0/16", "GatewayId": "local", "State": "active"}
    answers["ec2", "describe-subnets"] = {"Subnets": [{"SubnetId": "subnet-1", "VpcId": "vpc-1", "CidrBlock": "10.0.1.0/24"}]}
    for own, main_one, expected in [
        ([local, route(NatGatewayId="nat-1")], [local], ("✓", "subnet-1 leads to nat-1")),
        ([local, route(TransitGatewayId="tgw-1")], [local], ("✓", "subnet-1 leads to tgw-1")),
        ([local], [route(NatGatewayId="nat-1")], ("✗", "subnet-1 has no way to ACM. Give it a route")),
        (None, [local, route(NatGatewayId="nat-2")], ("✓", "subnet-1 leads to nat-2")),
        ([local, route(GatewayId="igw-1")], [local], ("✗", "subnet-1 leads to an internet gateway")),
        ([local, {**route(NatGatewayId="nat-1"), "State": "blackhole"}], [local], ("✗", "leads nowhere")),
    ]:
        tables = [{"Associations": [{"Main": True}], "Routes": main_one}]
        if own:
            tables.append({"Associations": [{"Main": False, "SubnetId": "subnet-1"}], "Routes": own})
        row("ec2 describe-route-tables", {"RouteTables": tables}, lambda: preflight.way_out(["subnet-1"]), expected)

    def https(*ranges, protocol="tcp", ports=(443, 443), groups=(), lists=()):
        rule = {"IpProtocol": protocol, "IpRanges": [{"CidrIp": one} for one in ranges], "UserIdGroupPairs": [{"GroupId": one} for one in groups],
                "PrefixListIds": [{"PrefixListId": one} for one in lists]}
        # A rule for every protocol has no ports.
        return rule if protocol == "-1" else {**rule, "FromPort": ports[0], "ToPort": ports[1]}

    def endpoint(service, dns=True):
        named = f"com.amazonaws.eu-central-1.{service}"
        return {"VpcEndpointId": "vpce-1", "ServiceName": named, "PrivateDnsEnabled": dns, "Groups": [{"GroupId": "sg-2"}]}

    everywhere, out, into = https("0.0.0.0/0"), ("✓", "sg-1 let HTTPS out"), ("✓", "the endpoint vpce-1 of ecs lets the functions in")
    shut, closed = ("✗", "sg-1 do not let HTTPS out to everywhere. Let TCP 443 out"), ("✗", "of ecs does not let the functions in. Let TCP 443 in from sg-1")
    for egress, endpoints, ingress, vpc, *expected in [
        ([everywhere], [], [], "vpc-1", out),
        ([https("0.0.0.0/0", protocol="-1")], [], [], "vpc-1", out),
        ([https("0.0.0.0/0", ports=(1, 1024))], [], [], "vpc-1", out),
        ([], [], [], "vpc-1", shut),
        ([https("0.0.0.0/0", ports=(80, 80))], [], [], "vpc-1", shut),
        ([https("0.0.0.0/0", protocol="udp")], [], [], "vpc-1", shut),
        ([https("10.0.0.0/16")], [], [], "vpc-1", shut),
        ([https("0.0.0.0/1"), https("128.0.0.0/1")], [], [], "vpc-1", out),
        ([https(lists=["pl-1"])], [], [], "vpc-1", ("?", "sg-1 let HTTPS out to prefix lists")),
        ([everywhere], [endpoint("ecs")], [https(lists=["pl-1"])], "vpc-1", out, ("?", "of ecs lets prefix lists in")),
        ([everywhere], [], [], "vpc-2", ("✗", "sg-1 belongs to vpc-2, the subnets to vpc-1. Choose"), out),
        ([everywhere], [endpoint("ecs")], [https(groups=["sg-1"])], "vpc-1", out, into),
        ([everywhere], [endpoint("ecs")], [https("10.0.0.0/16")], "vpc-1", out, into),
        ([everywhere], [endpoint("ecs")], [https("10.0.2.0/24")], "vpc-1", out, closed),
        ([everywhere], [endpoint("ecs")], [https("10.0.0.0/16", ports=(80, 80))], "vpc-1", out, closed),
        ([everywhere], [endpoint("ecs")], [https(groups=["sg-3"])], "vpc-1", out, closed),
        ([everywhere], [endpoint("ecs", dns=False), endpoint("sqs")], [], "vpc-1", out),
    ]:
        answers["ec2", "describe-vpc-endpoints"] = {"VpcEndpoints": endpoints}
        groups = [{"GroupId": "sg-1", "VpcId": vpc, "IpPermissionsEgress": egress, "IpPermissions": []},
                  {"GroupId": "sg-2", "VpcId": "vpc-1", "IpPermissionsEgress": [], "IpPermissions": ingress}]
        row("ec2 describe-security-groups", {"SecurityGroups": groups}, lambda: preflight.security_groups(["sg-1"], ["subnet-1"]), *expected)
    row("ec2 describe-security-groups", "InvalidGroup.NotFound", lambda: preflight.security_groups(["sg-1"], ["subnet-1"]), ("✗", "Correct VpcSecurityGroupIds"))
    row("ec2 describe-subnets", "InvalidSubnetID.NotFound", lambda: preflight.way_out(["subnet-1"]), ("✗", "Correct VpcSubnetIds"))

    def bucket(principal, action="s3:PutObject"):
        return {"Policy": json.dumps({"Statement": [{"Effect": "Allow", "Principal": principal, "Action": action}]})}

    answers["s3api", "head-bucket"] = answers["s3api", "list-objects-v2"] = None
    for answer, expected in [
        (bucket({"Service": "acm-pca.amazonaws.com"}), ("✓", "AWS Private CA may write to it")),
        (bucket("*"), ("✗", "does not let AWS Private CA write. Give it the policy CrlBucketPolicy")),
        (bucket({"Service": "acm-pca.amazonaws.com"}, "s3:GetObject"), ("✗", "does not let AWS Private CA write")),
        ("NoSuchBucketPolicy", ("✗", "does not let AWS Private CA write")),
    ]:
        row("s3api get-bucket-policy", answer, lambda: preflight.crl_bucket("crls"), ("✓", "it can be read"), expected)
    row("s3api head-bucket", "403", lambda: preflight.crl_bucket("crls"), ("?", "(403)"))

    def encrypted(algorithm, **key):
        default = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": algorithm, **key}, "BucketKeyEnabled": False}
        return {"ServerSideEncryptionConfiguration": {"Rules": [default]}}

    named = ("?", f"{KEY} encrypts it: see that its policy lets acm-pca.amazonaws.com and the role of p-issue-client-cert use kms:GenerateDataKey")
    for answer, expected in [
        (encrypted("AES256"), ("✓", "S3's own keys encrypt it")),
        ("ServerSideEncryptionConfigurationNotFoundError", ("✓", "S3's own keys encrypt it")),
        (encrypted("aws:kms", KMSMasterKeyID=KEY), named),
        (encrypted("aws:kms:dsse", KMSMasterKeyID=KEY), named),
        (encrypted("aws:kms"), ("✗", "with which AWS Private CA cannot write. Give it a key of your own, or SSE-S3")),
        (encrypted("aws:kms", KMSMasterKeyID=f"arn:aws:kms:eu-central-1:{ACCOUNT}:alias/aws/s3"), ("✗", "cannot write")),
        ("AccessDenied", ("?", "AccessDenied")),
    ]:
        row("s3api get-bucket-encryption", answer, lambda: preflight.encryption("crls", "p"), expected)

    row("elbv2 describe-listeners", {"Listeners": [{"Protocol": "HTTP"}]}, lambda: preflight.listener("x", []), ("✗", "it speaks HTTP. Only"))

    def standing(*modes):
        of = [{"ListenerArn": name, "Protocol": "HTTPS", "LoadBalancerArn": "b", "MutualAuthentication": {"Mode": mode}}
              for name, mode in zip("xyz", modes)]
        return lambda arguments: {"Listeners": of[:1] if "--listener-arns" in arguments else of}

    for modes, wanted, expected in [
        (("off", "verify", "off"), "x", ("✓", "its mode is off")),
        (("verify", "verify", "passthrough"), "x", ("✓", "its mode is verify")),
        (("off", "verify", "off"), "xz", ("✗", "two listeners at most, and y, z verify or are to. Take a listener of another")),
        (("off", "verify", "verify"), "x", ("✗", "y, z verify or are to")),
    ]:
        row("elbv2 describe-listeners", standing(*modes), lambda: preflight.listener("x", [*wanted]), expected)

    def chain(of):
        blocks = [f"-----BEGIN CERTIFICATE-----\n{place}\n-----END CERTIFICATE-----" for place in range(of)]
        return {"Certificate": blocks[0], "CertificateChain": "\n".join(blocks[1:])}

    for count, expected in [
        (25, ("✓", "are 25 certificates, and it holds 25")), (26, ("✗", "are 26 certificates, and it holds 25. Declare fewer")),
    ]:
        row("acm-pca get-certificate-authority-certificate", chain(count), lambda: preflight.trust_store({"certificate_authority_arns": ["ca"]}),
            expected)

    def key(**changes):
        return {"KeyMetadata": {"KeyState": "Enabled", "KeySpec": "SYMMETRIC_DEFAULT", "KeyUsage": "ENCRYPT_DECRYPT", **changes}}

    def statement(**changes):
        root = {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, "Action": "kms:*", "Resource": "*"}
        return {"Policy": json.dumps({"Statement": [{**root, **changes}]})}

    leaves = ("✓", "its policy leaves the decision to IAM")
    answers["kms", "get-key-policy"] = statement()
    for answer, *expected in [
        (key(), ("✓", "it is enabled"), leaves),
        (key(KeyState="PendingDeletion"), ("✗", "it is PendingDeletion. aws kms enable-key"), leaves),
        (key(KeySpec="RSA_2048"), ("✗", "it is not a symmetric key"), leaves),
        ("NotFoundException", ("✗", "there is none. Correct KmsKeyArn")),
    ]:
        row("kms describe-key", answer, lambda: preflight.kms_key(KEY), *expected)
    answers["kms", "describe-key"] = key()
    for changes in ({"Effect": "Deny"}, {"Principal": "*"}, {"Action": "kms:Decrypt"}, {"Condition": {"Bool": {"a": "b"}}}):
        row("kms get-key-policy", statement(**changes), lambda: preflight.kms_key(KEY), ("✓", ""), ("✗", "Add the statement of the default policy"))

    for owner, expected in [("mine", ("✓", "is that of the stack mine, which would be updated")), ("yours", ("✗", "of the stack yours, not of mine"))]:
        row("lambda get-function", {"Tags": {"aws:cloudformation:stack-name": owner}}, lambda: preflight.prefix("p", "mine"), expected)

    def stack(status="UPDATE_COMPLETE", **given):
        named = [{"ParameterKey": name, "ParameterValue": value} for name, value in {"Prefix": "p", "KmsKeyArn": "", **given}.items()]
        return {"Stacks": [{"StackId": f"arn:aws:cloudformation:eu-central-1:{ACCOUNT}:stack/mine/1", "StackStatus": status, "Parameters": named}]}

    kept, theirs = ("✓", "mine keeps its Prefix"), KEY.replace(ACCOUNT, "444455556666")
    left = "mine has Prefix=q: with p nobody would renew what it has"
    for answer, key, certain, *expected in [
        ("ValidationError", "", True, ("✓", "mine would be new")),
        (stack("REVIEW_IN_PROGRESS", Prefix="q"), "", True, ("✓", "mine has nothing yet")),
        (stack("ROLLBACK_COMPLETE", Prefix="q"), "", True, ("✓", "mine has nothing yet")),
        (stack(), "", True, kept),
        ({"Stacks": [{"StackStatus": "CREATE_COMPLETE"}]}, "", True, ("✗", "mine is a stack of something else. Choose another name")),
        (stack(Prefix="q"), "", True, ("✗", f"{left}. Leave Prefix=q, or deploy another stack")),
        (stack(Prefix="q"), "", False, ("?", f"{left}; is another stack meant?")),
        (stack(KmsKeyArn=KEY), KEY, True, kept),
        (stack(KmsKeyArn=KEY), "", True, kept, ("?", f"KmsKeyArn was {KEY}, and the secrets that are there keep it: leave it enabled")),
        (stack(), KEY, True, kept, ("?", "KmsKeyArn was empty")),
        (stack(KmsKeyArn=theirs), "", True, kept, ("?", "they could not be renewed: leave it in KmsKeyArn")),
        ("AccessDenied", "", True, ("?", "AccessDenied")),
    ]:
        wanted = {"Prefix": "p", "KmsKeyArn": key}
        row("cloudformation describe-stacks", answer, lambda: preflight.standing("mine", wanted, certain), *expected)

    def tagged(*secrets):
        return {"ResourceTagMappingList": [{"ResourceARN": f"arn:{place}", "Tags": [{"Key": "everleaf:certificate", "Value": secret}]}
                                           for place, secret in enumerate(secrets)]}

    for answer, *expected in [
        (tagged("p/a", "p/b", "q/a"), ("✓", "2 certificates are tagged for p, 1 for others")),
        (tagged("p/a", "p/a"), ("✗", "2 certificates are tagged for p/a: arn:0, arn:1. Leave the tag"), ("✓", "")),
        (tagged("a"), ("✗", "arn:0 is tagged a, which has no prefix. Tag it p/a"), ("✓", "")),
    ]:
        row("resourcegroupstaggingapi get-resources", answer, lambda: preflight.tags("p"), *expected)

    names = {"secretsmanager": "Secrets in each Region", "acm": "ACM certificates", "acm-pca": "Private certificates per private CA",
             "elasticloadbalancing": "Trust stores per account"}
    for limit in preflight.QUOTAS:
        def quota(value):
            return {"Quotas": [{"QuotaName": names[limit[1]], "QuotaCode": "L-1", "Value": value}, {"QuotaName": "Other", "Value": 0}]}

        needed = 20 if limit[1] == "elasticloadbalancing" else 100 * limit[3]
        for answer, expected in [
            (quota(needed), ("✓", f"are {needed}, and {needed} are needed")),
            (quota(needed - 1), ("✗", f"--quota-code L-1 --desired-value {needed}")),
            ({"Quotas": []}, ("?", "lists no quota of such a name")),
        ]:
            row("service-quotas list-service-quotas", answer, lambda: preflight.quota(*limit, 100, 20), expected)

    def limits(total):
        return {"AccountLimit": {"ConcurrentExecutions": total, "UnreservedConcurrentExecutions": total}}

    for total, reserved, expected in [
        (10, 0, ("✓", "10 executions at once")), (10, 1, ("✗", "100 of which AWS keeps: five functions cannot reserve 1 each")),
        (1000, 10, ("✓", "10 to be reserved")), (1000, 181, ("✗", "cannot reserve 181 each")),
    ]:
        row("lambda get-account-settings", limits(total), lambda: preflight.concurrency(reserved), expected)
    said("what only AWS answers is judged by its answers")


if __name__ == "__main__":
    main()
