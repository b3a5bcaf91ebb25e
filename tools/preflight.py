"""make preflight: what is missing in the account before a deployment, each with its remedy. It reads, and changes nothing.

    python3 tools/preflight.py PROGRAM [form]

With `form` it judges the parameters alone and asks nobody, which is how `make deploy` begins.
✓ holds, ✗ is missing, ? could not be asked. The parameters are those of PARAMETERS='Name=Value …', or of the samconfig.toml that
`make deploy` has left; the program judges their form as the functions would. Each check is a function that yields marked lines.
"""

import datetime
import ipaddress
import json
import os
import re
import shlex
import subprocess
import sys

from aws import Refused, aws

TEMPLATES = {"EndEntityCertificate", "EndEntityClientAuthCertificate", "EndEntityServerAuthCertificate"}
# Codes that tell nothing of what was asked for: whatever answers here does not know the operation.
NO_OPERATION = {"UnknownOperationException", "InvalidAction", "NotImplemented"}
NO_AUTHORITY = ("ResourceNotFoundException", "InvalidArnException")
CERTIFICATE = re.compile("-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.S)


class Unasked(Exception):
    """Why something could not be asked."""


class Absent(Exception):
    """AWS has said that there is none."""


def ask(*arguments, absent=()):
    """AWS's answer. `absent` are the codes by which it says that there is none."""
    try:
        return aws(*arguments)
    except Refused as refusal:
        code = re.search(r"\(([\w.]+)\) when calling the", str(refusal))
        if code and code[1] in absent:
            raise Absent from None
        if code and code[1] in NO_OPERATION:
            raise Unasked(f"what answers here knows no {arguments[0]} {arguments[1]}") from None
        raise Unasked(str(refusal)) from None


def good(text):
    return "✓", text


def bad(text, remedy):
    return "✗", f"{text}. {remedy}"


def main(program):
    given, source, stack, region = deployment()
    wanted = {**defaults(), **given}
    marks = []

    def check(what, lines):
        try:
            for mark, text in lines:
                marks.append(mark)
                print(f"{mark} {what}: {text}", flush=True)
        except Unasked as why:
            marks.append("?")
            print(f"? {what}: could not be asked: {why}", flush=True)

    check("parameters", parameters(program, given, source))
    check("credentials", credentials(region))
    # Where the parameters cannot be read, or nobody is known, what follows would only repeat it.
    if "✗" not in marks:
        check("organization", organization(region))
        if not wanted["IssuingCaArn"]:
            check("issuing CA", [good("none, so the stack will only look after ACM's certificates")])
        for arn, purpose in authorities(wanted).items():
            check(f"{purpose} CA {arn}", authority(arn, purpose, wanted, region))
            if purpose == "issuing":
                check(f"permission of CA {arn}", permitted(arn))
                check(f"ACM's permission on CA {arn}", acm_permitted(arn))
        for arn in filter(None, wanted["CrlBucketArns"].split(",")):
            check(f"CRL bucket {arn}", crl_bucket(arn.split(":::")[1]))
            check(f"encryption of {arn}", encryption(arn.split(":::")[1], wanted["Prefix"]))
        for store in declared(wanted):
            check(f"trust store {store['name']}", trust_store(store))
        for arn in listeners(wanted):
            check(f"listener {arn}", listener(arn, listeners(wanted)))
        if wanted["KmsKeyArn"]:
            check(f"KMS key {wanted['KmsKeyArn']}", kms_key(wanted["KmsKeyArn"]))
        for other in filter(None, wanted["ReplicaRegions"].split(",")):
            check(f"replicas in {other}", replicas(wanted["Prefix"], region, other))
        if wanted["VpcSubnetIds"]:
            subnets = wanted["VpcSubnetIds"].split(",")
            check("way out of the VPC", way_out(subnets))
            check("security groups", security_groups(wanted["VpcSecurityGroupIds"].split(","), subnets))
        check("stack", standing(stack, wanted, certain=source != "PARAMETERS"))
        check("prefix", prefix(wanted["Prefix"], stack))
        check("secrets", secrets(wanted["Prefix"]))
        check("tags in ACM", tags(wanted["Prefix"]))
        planned = int(os.environ.get("CERTIFICATES") or 100)
        for limit in QUOTAS:
            check(f"quota of {limit[0]}", quota(*limit, planned, len(declared(wanted))))
        check("concurrency", concurrency(int(wanted.get("ReservedConcurrency", 0))))
        check("pace", pace(int(wanted["HourlyBudget"]), planned))
    if "✗" in marks:
        raise Refused(f"{marks.count('✗')} to be mended before a deployment")


def form(program):
    """What needs no account: whether the parameters that a deployment would take from samconfig.toml will do."""
    try:
        given, source, _, _ = deployment()
    except Refused as why:
        print(f"? parameters: not judged: {why}")
        return
    faults = [text for mark, text in parameters(program, given, source) if mark == "✗"]
    if faults:
        raise Refused("\n".join(["nothing was deployed", *(f"✗ parameters: {fault}" for fault in faults)]))


def deployment():
    """The parameters and where they stand, the name of the stack, and its region."""
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    path = os.environ.get("SAMCONFIG") or "samconfig.toml"
    stack, words, source, configured = "everleaf", [], "the template's defaults", None
    if os.environ.get("PARAMETERS"):
        words, source = shlex.split(os.environ["PARAMETERS"]), "PARAMETERS"
    elif os.path.exists(path):
        try:
            import tomllib
        except ImportError:
            raise Refused(f"to read {path} use Python 3.11 or later, or give PARAMETERS='Name=Value …'") from None
        with open(path, "rb") as file:
            deploy = tomllib.load(file).get("default", {}).get("deploy", {}).get("parameters", {})
        overrides = deploy.get("parameter_overrides", [])
        words, source = shlex.split(overrides) if isinstance(overrides, str) else overrides, path
        stack, configured = deploy.get("stack_name", stack), deploy.get("region")
    region = configured or region or subprocess.run(["aws", "configure", "get", "region"], capture_output=True, text=True).stdout.strip()
    if region:
        os.environ["AWS_REGION"] = os.environ["AWS_DEFAULT_REGION"] = region
    return dict(word.partition("=")[::2] for word in words), source, stack, region


def template():
    with open("template.yaml") as file:
        return file.read()


def defaults():
    """Of the parameters, as the template has them: each name is two spaces in, what is said of it four."""
    found, name = {}, None
    for line in template().split("\nParameters:\n")[1].split("\nRules:\n")[0].splitlines():
        if named := re.fullmatch(r"  (\w+):", line):
            name = named[1]
        elif default := re.fullmatch(r"    Default: (.*)", line):
            found[name] = default[1].strip('"')
    return found


def parameters(program, given, source):
    if not os.path.exists(program):
        raise Unasked(f"{program} is not built: cargo build --locked -p workflow --bin parameters")
    run = subprocess.run([program, *(f"{name}={value}" for name, value in given.items())], capture_output=True, text=True)
    if run.returncode == 0:
        yield good(f"{source} will do")
        return
    # The functions speak of their variables, and several of them of the same one.
    names = dict(re.findall(r"(EVERLEAF_\w+): !Ref (\w+)", template()))
    faults = re.sub(r"; (?=EVERLEAF_)", "\n", run.stdout.replace("settings: ", "") or run.stderr)
    faults = re.sub(r"EVERLEAF_\w+", lambda name: names.get(name[0], name[0]), faults)
    for fault in dict.fromkeys(faults.strip().splitlines()):
        yield bad(fault, f"Mend it in {source}")


def credentials(region):
    if not region:
        yield bad("no region is chosen", "Set AWS_REGION, or run `aws configure`")
        return
    try:
        yield good(f"{ask('sts', 'get-caller-identity')['Arn']} in {region}")
    except Unasked as why:
        if "knows no" in str(why):
            raise
        yield bad(str(why), "Run `aws configure` or `aws sso login`, or set AWS_PROFILE")


def needed():
    """The actions that the template's policies allow."""
    text = template()
    stated = re.findall(r"Action: *(\[[^]]*\]|[^\s,]+)", text) + re.findall(r"^ +- ([a-z0-9-]+:[A-Z]\w+)$", text, re.MULTILINE)
    return sorted(set(re.findall(r"[a-z0-9-]+:[A-Z]\w+", "\n".join(stated))))


def organization(region):
    """What a service control policy denies whoever asks here, it denies the functions too, but for conditions on who asks:
    <https://docs.aws.amazon.com/IAM/latest/APIReference/API_OrganizationsDecisionDetail.html>."""
    caller = ask("sts", "get-caller-identity")["Arn"]
    # A session is no principal of IAM's; its role is.
    role = re.fullmatch(r"arn:[\w-]+:sts::\d+:assumed-role/([^/]+)/.+", caller)
    principal = ask("iam", "get-role", "--role-name", role[1])["Role"]["Arn"] if role else caller
    here = f"ContextKeyName=aws:RequestedRegion,ContextKeyValues={region},ContextKeyType=string"
    asked = ("--policy-source-arn", principal, "--context-entries", here, "--action-names", *needed())
    simulated = ask("iam", "simulate-principal-policy", *asked)["EvaluationResults"]
    denied = [one["EvalActionName"] for one in simulated if not one.get("OrganizationsDecisionDetail", {}).get("AllowedByOrganizations", True)]
    if denied:
        what = f"IAM's simulation says that a service control policy denies {principal} {', '.join(sorted(denied))}"
        yield "?", f"{what}; ask whoever runs the organization whether it denies the functions' roles too"
    else:
        yield good(f"IAM's simulation knows no service control policy that denies {principal} any of {len(simulated)} actions of the template's policies")


def declared(wanted):
    return json.loads(wanted["TrustStores"] or "[]")


def authorities(wanted):
    """What each CA of the parameters is to be for, by ARN."""
    found = {arn: "trusted" for store in declared(wanted) for arn in store.get("certificate_authority_arns", [])}
    for pair in filter(None, wanted["RetiredCas"].split(",")):
        retired, successor = pair.split("=")
        found |= {retired: "retired", successor: "issuing"}
    issuing = [wanted["IssuingCaArn"], *wanted["AllowedCaArns"].split(",")]
    return {**found, **{arn: "issuing" for arn in issuing if arn and found.get(arn) != "retired"}}


def authority(arn, purpose, wanted, region):
    place = arn.split(":")[3]
    if place != region:
        yield bad(f"it is in {place}, and the stack would be in {region}", "Deploy there, or name a CA of this region")
        return
    try:
        ca = ask("acm-pca", "describe-certificate-authority", "--certificate-authority-arn", arn,
                 absent=NO_AUTHORITY)["CertificateAuthority"]
    except Absent:
        yield bad("there is none", "Correct the ARN; examples/private-ca.yaml makes a CA")
        return
    if ca["Status"] != "ACTIVE" and purpose != "retired":
        remedies = {
            "DISABLED": f"aws acm-pca update-certificate-authority --certificate-authority-arn {arn} --status ACTIVE",
            "DELETED": f"aws acm-pca restore-certificate-authority --certificate-authority-arn {arn}",
            "CREATING": "Wait a minute, and have its CSR signed",
            "PENDING_CERTIFICATE": "Have its CSR signed, then aws acm-pca import-certificate-authority-certificate",
        }
        yield bad(f"it is {ca['Status']}", remedies.get(ca["Status"], "Name another CA"))
        return
    if purpose == "issuing":
        yield from issues(ca, int(wanted["MaxValidityDays"]))
    crl = ca.get("RevocationConfiguration", {}).get("CrlConfiguration", {})
    if not crl.get("Enabled"):
        yield good("it publishes no CRL")
        return
    bucket = f"arn:{arn.split(':')[1]}:s3:::{crl['S3BucketName']}"
    if bucket in wanted["CrlBucketArns"].split(","):
        yield good(f"its CRLs are in {bucket}")
    else:
        yield bad("CrlBucketArns does not name the bucket of its CRLs: nothing can be revoked", f"Add {bucket}")


def issues(ca, longest):
    days = (time_of(ca["NotAfter"]) - datetime.datetime.now(datetime.timezone.utc)).days
    key, mode = ca["CertificateAuthorityConfiguration"]["KeyAlgorithm"], ca.get("UsageMode", "GENERAL_PURPOSE")
    if days < 90:
        yield bad(f"it expires in {days} days", "Set up its successor, and move to it as the README's \"Changing the CA\" says")
    else:
        yield good(f"it is active, {key}, {mode}, and has {days} days left"
                   + ("; AWS refuses what would outlast it" if days < longest else ""))
    if mode == "SHORT_LIVED_CERTIFICATE" and longest > 7:
        yield bad(f"its certificates last at most 7 days, and MaxValidityDays is {longest}", "Set MaxValidityDays=7")


def time_of(time):
    """The first version of the CLI may write seconds."""
    if isinstance(time, (int, float)):
        return datetime.datetime.fromtimestamp(time, datetime.timezone.utc)
    return datetime.datetime.fromisoformat(time.replace("Z", "+00:00"))


def permitted(arn):
    """An account's own CA issues for whom IAM lets; another account's for whom its policy lets, by the templates that it names."""
    own = ask("sts", "get-caller-identity")["Account"] == arn.split(":")[4]
    try:
        policy = json.loads(ask("acm-pca", "get-policy", "--resource-arn", arn, absent=("ResourceNotFoundException",))["Policy"])
    except Absent:
        if own:
            yield good("the stack may issue: the CA is the account's own")
            return
        raise Unasked("it is another account's, and its policy is not shown; ask its owner which templates the share allows") from None
    statements = [statement for statement in policy["Statement"] if "acm-pca:IssueCertificate" in many(statement["Action"])]
    if any(statement["Effect"] == "Deny" for statement in statements):
        yield bad("its policy denies acm-pca:IssueCertificate", "See that the denial spares the stack's roles")
        return
    conditions = [condition for statement in statements for condition in statement.get("Condition", {}).values()]
    allowed = {arn.split("/")[1] for condition in conditions for arn in many(condition.get("acm-pca:TemplateArn", []))}
    missing = set() if own else TEMPLATES - allowed
    if missing:
        yield bad(f"its policy does not let this account issue by {', '.join(sorted(missing))}", "Have its owner add them to the share")
    else:
        yield good("the stack may issue by all three templates")


def acm_permitted(arn):
    """ACM issues and renews by a permission of its own, which the CA's owner may see:
    <https://docs.aws.amazon.com/privateca/latest/userguide/assign-permissions.html>."""
    permissions = ask("acm-pca", "list-permissions", "--certificate-authority-arn", arn)["Permissions"]
    granted = {action for one in permissions if one["Principal"] == "acm.amazonaws.com" for action in one["Actions"]}
    actions = ["IssueCertificate", "GetCertificate", "ListPermissions"]
    if granted.issuperset(actions):
        yield good("ACM may issue and renew from it")
    else:
        yield good("ACM may not renew from it, which its own certificates alone need: aws acm-pca create-permission "
                   f"--certificate-authority-arn {arn} --principal acm.amazonaws.com --actions {' '.join(actions)}")


def many(value):
    return value if isinstance(value, list) else [value]


def crl_bucket(bucket):
    try:
        ask("s3api", "head-bucket", "--bucket", bucket, absent=("404",))
    except Absent:
        yield bad("there is none", "Make it again, or the CA cannot publish what was revoked; examples/private-ca.yaml has one")
        return
    ask("s3api", "list-objects-v2", "--bucket", bucket, "--max-keys", "1")
    yield good("it can be read")
    try:
        policy = json.loads(ask("s3api", "get-bucket-policy", "--bucket", bucket, absent=("NoSuchBucketPolicy",))["Policy"])
    except Absent:
        policy = {"Statement": []}
    writers = [statement["Principal"].get("Service", []) for statement in policy["Statement"] if statement["Effect"] == "Allow"
               and isinstance(statement["Principal"], dict) and {"s3:PutObject", "s3:*"} & set(many(statement["Action"]))]
    if any("acm-pca.amazonaws.com" in many(writer) for writer in writers):
        yield good("AWS Private CA may write to it")
    else:
        yield bad("its policy does not let AWS Private CA write", "Give it the policy CrlBucketPolicy of examples/private-ca.yaml")


def encryption(bucket, name):
    """Who writes or reads there needs its key too: <https://docs.aws.amazon.com/privateca/latest/userguide/crl-planning.html#crl-encryption>."""
    try:
        answer = ask("s3api", "get-bucket-encryption", "--bucket", bucket, absent=("ServerSideEncryptionConfigurationNotFoundError",))
        rules = answer["ServerSideEncryptionConfiguration"]["Rules"]
    except Absent:
        rules = []
    defaults = [rule["ApplyServerSideEncryptionByDefault"] for rule in rules if "ApplyServerSideEncryptionByDefault" in rule]
    keys = [one.get("KMSMasterKeyID", "alias/aws/s3") for one in defaults if one["SSEAlgorithm"].startswith("aws:kms")]
    if not keys:
        yield good("S3's own keys encrypt it")
    elif keys[0].endswith("alias/aws/s3"):
        yield bad("the key that AWS manages for S3 encrypts it, with which AWS Private CA cannot write", "Give it a key of your own, or SSE-S3")
    else:
        yield "?", (f"{keys[0]} encrypts it: see that its policy lets acm-pca.amazonaws.com and the role of {name}-issue-client-cert use "
                    f"kms:GenerateDataKey and kms:Decrypt, and that of {name}-refresh-truststore kms:Decrypt")


def listeners(wanted):
    return [listener["listener_arn"] for store in declared(wanted) for listener in store.get("listeners", [])]


def trust_store(store):
    """What its CAs take of it. What lies under trust/extra/, and CAs that pairs still need, come on top."""
    certificates = set()
    for arn in store.get("certificate_authority_arns", []):
        try:
            held = ask("acm-pca", "get-certificate-authority-certificate", "--certificate-authority-arn", arn,
                       absent=(*NO_AUTHORITY, "InvalidStateException"))
        except Absent:
            raise Unasked(f"{arn} has no certificate to count") from None
        certificates |= set(CERTIFICATE.findall(held["Certificate"] + held.get("CertificateChain", "")))
    if len(certificates) > 25:
        yield bad(f"its CAs and their chains are {len(certificates)} certificates, and it holds 25",
                  "Declare fewer CAs, or another trust store for some")
    else:
        yield good(f"its CAs and their chains are {len(certificates)} certificates, and it holds 25")


def listener(arn, declared_arns):
    try:
        [found] = ask("elbv2", "describe-listeners", "--listener-arns", arn, absent=("ListenerNotFound",))["Listeners"]
    except Absent:
        yield bad("there is none", "Correct the ARN in TrustStores, or make the listener first")
        return
    if found["Protocol"] != "HTTPS":
        yield bad(f"it speaks {found['Protocol']}", "Only an HTTPS listener of an Application Load Balancer verifies clients")
        return
    beside = ask("elbv2", "describe-listeners", "--load-balancer-arn", found["LoadBalancerArn"])["Listeners"]
    verifying = [one["ListenerArn"] for one in beside if one["ListenerArn"] in declared_arns or mode(one) == "verify"]
    others = [other for other in verifying if other != arn]
    if len(others) > 1:
        yield bad(f"its load balancer verifies clients on two listeners at most, and {', '.join(others)} verify or are to",
                  "Take a listener of another load balancer, or turn verification off on one")
    else:
        yield good(f"it speaks HTTPS, and its mode is {mode(found)}")


def mode(one):
    return one.get("MutualAuthentication", {}).get("Mode", "off")


def kms_key(arn):
    try:
        key = ask("kms", "describe-key", "--key-id", arn, absent=("NotFoundException",))["KeyMetadata"]
    except Absent:
        yield bad("there is none", "Correct KmsKeyArn, or leave it empty for the keys that AWS manages")
        return
    if key["KeyState"] != "Enabled":
        yield bad(f"it is {key['KeyState']}", f"aws kms enable-key --key-id {arn}")
    elif key.get("KeySpec", "SYMMETRIC_DEFAULT") != "SYMMETRIC_DEFAULT" or key.get("KeyUsage") != "ENCRYPT_DECRYPT":
        yield bad("it is not a symmetric key for encryption", "Secrets Manager and DynamoDB take no other")
    else:
        yield good("it is enabled")
    policy = json.loads(ask("kms", "get-key-policy", "--key-id", arn, "--policy-name", "default")["Policy"])
    root = {f"arn:{arn.split(':')[1]}:iam::{arn.split(':')[4]}:root", arn.split(":")[4]}
    if any(statement["Effect"] == "Allow" and "Condition" not in statement and isinstance(statement["Principal"], dict)
           and root & set(many(statement["Principal"].get("AWS", []))) and "kms:*" in many(statement["Action"])
           for statement in policy["Statement"]):
        yield good("its policy leaves the decision to IAM")
    else:
        yield bad("its policy does not leave the decision to IAM", "Add the statement of the default policy: Allow kms:* to the account's root")


def replicas(name, home, region):
    """A replica cannot be made where there is no such region, or where a secret of its name stands already."""
    try:
        known = {one["RegionName"]: one.get("OptInStatus") for one in ask("ec2", "describe-regions", "--all-regions")["Regions"]}
        if region not in known:
            yield bad("there is no such region, and no secret would be made", "Correct ReplicaRegions")
            return
        if known[region] == "not-opted-in":
            yield bad("the account has not enabled it", f"aws account enable-region --region-name {region}")
            return
    except Unasked as why:
        yield "?", f"whether there is such a region could not be asked: {why}"
    wrong = [secret["Name"] for secret in secrets_under(name, "--region", region) if secret.get("PrimaryRegion") != home]
    for secret in wrong:
        yield bad(f"{secret} is there, and is no replica of {home}'s", "Move it, or choose another Prefix")
    if not wrong:
        yield good(f"the region answers, and nothing stands in the way under {name}/")


def way_out(subnets):
    """ACM has no endpoint in a VPC, and a function has no public address:
    <https://docs.aws.amazon.com/lambda/latest/dg/configuration-vpc-internet.html>."""
    try:
        found = ask("ec2", "describe-subnets", "--subnet-ids", *subnets, absent=("InvalidSubnetID.NotFound",))["Subnets"]
    except Absent:
        yield bad(f"one of {', '.join(subnets)} is not there", "Correct VpcSubnetIds")
        return
    vpc = found[0]["VpcId"]
    tables = ask("ec2", "describe-route-tables", "--filters", f"Name=vpc-id,Values={vpc}")["RouteTables"]

    def table_of(subnet):
        """The subnet's own; where it has none, the VPC's."""
        associations = [(one, table) for table in tables for one in table["Associations"]]
        own = [table for one, table in associations if one.get("SubnetId") == subnet]
        return (own or [table for one, table in associations if one["Main"]])[0]

    for subnet in subnets:
        out = [route for route in table_of(subnet)["Routes"] if route.get("DestinationCidrBlock") == "0.0.0.0/0"]
        if not out:
            yield bad(f"{subnet} has no way to ACM", "Give it a route 0.0.0.0/0 to a NAT gateway")
        elif out[0].get("GatewayId", "").startswith("igw-"):
            yield bad(f"{subnet} leads to an internet gateway, which lets no function out", "Choose a subnet that leads to a NAT gateway")
        elif out[0]["State"] == "blackhole":
            yield bad(f"the route of {subnet} leads nowhere: what it names is gone", "Route 0.0.0.0/0 to a NAT gateway")
        else:
            # A route has one target, under the name of its kind.
            yield good(f"{subnet} leads to {next(target for kind, target in out[0].items() if kind.endswith(('Id', 'Arn')))}")


# What the functions call by an interface endpoint, where a VPC has one. For DynamoDB and S3 it has gateways.
ENDPOINTS = {"acm-pca", "ecs", "elasticloadbalancing", "events", "secretsmanager"}


def for_https(rules):
    return [rule for rule in rules if rule["IpProtocol"] == "-1" or rule["IpProtocol"] == "tcp" and rule["FromPort"] <= 443 <= rule["ToPort"]]


def ranges(rules):
    return list(ipaddress.collapse_addresses(ipaddress.ip_network(one["CidrIp"]) for rule in rules for one in rule["IpRanges"]))


def security_groups(wanted, subnets):
    """They let the functions out to ACM, and those of the endpoints let them in:
    <https://docs.aws.amazon.com/vpc/latest/privatelink/create-interface-endpoint.html>."""
    inside = ask("ec2", "describe-subnets", "--subnet-ids", *subnets)["Subnets"]
    vpc, networks = inside[0]["VpcId"], [ipaddress.ip_network(subnet["CidrBlock"]) for subnet in inside]
    every = ask("ec2", "describe-vpc-endpoints", "--filters", f"Name=vpc-id,Values={vpc}", "Name=vpc-endpoint-type,Values=Interface")["VpcEndpoints"]
    # Without private DNS nobody is led to it.
    endpoints = [one for one in every if one["PrivateDnsEnabled"] and one["ServiceName"].rpartition(".")[2] in ENDPOINTS]
    theirs = {group["GroupId"] for endpoint in endpoints for group in endpoint["Groups"]}
    try:
        found = ask("ec2", "describe-security-groups", "--group-ids", *sorted({*wanted, *theirs}), absent=("InvalidGroup.NotFound",))
    except Absent:
        yield bad(f"one of {', '.join(wanted)} is not there", "Correct VpcSecurityGroupIds")
        return
    groups = {group["GroupId"]: group for group in found["SecurityGroups"]}
    for group in wanted:
        if groups[group]["VpcId"] != vpc:
            yield bad(f"{group} belongs to {groups[group]['VpcId']}, the subnets to {vpc}", "Choose security groups of the subnets' VPC")
    out = for_https(rule for group in wanted for rule in groups[group]["IpPermissionsEgress"])
    if ipaddress.ip_network("0.0.0.0/0") in ranges(out):
        yield good(f"{', '.join(wanted)} let HTTPS out")
    elif any(rule.get("PrefixListIds") for rule in out):
        yield "?", f"{', '.join(wanted)} let HTTPS out to prefix lists: whether ACM's addresses are in them is not known here"
    else:
        remedy = "Let TCP 443 out to 0.0.0.0/0: ACM has no endpoint, and no fixed addresses"
        yield bad(f"{', '.join(wanted)} do not let HTTPS out to everywhere", remedy)
    for endpoint in endpoints:
        into = for_https(rule for group in endpoint["Groups"] for rule in groups[group["GroupId"]]["IpPermissions"])
        named = any(one["GroupId"] in wanted for rule in into for one in rule["UserIdGroupPairs"])
        admitted = all(any(network.subnet_of(one) for one in ranges(into)) for network in networks)
        what = f"the endpoint {endpoint['VpcEndpointId']} of {endpoint['ServiceName'].rpartition('.')[2]}"
        if named or admitted:
            yield good(f"{what} lets the functions in")
        elif any(rule.get("PrefixListIds") for rule in into):
            yield "?", f"{what} lets prefix lists in: whether the subnets are in them is not known here"
        else:
            yield bad(f"{what} does not let the functions in", f"Let TCP 443 in from {', '.join(wanted)} in its security groups")


def standing(stack, wanted, certain):
    """What a stack that is there does not take along. Parameters that are given by hand may be another's."""
    try:
        [found] = ask("cloudformation", "describe-stacks", "--stack-name", stack, absent=("ValidationError",))["Stacks"]
    except Absent:
        yield good(f"{stack} would be new")
        return
    # Of a creation that failed nothing is left.
    if found["StackStatus"] in ("REVIEW_IN_PROGRESS", "ROLLBACK_COMPLETE"):
        yield good(f"{stack} has nothing yet")
        return
    there = {one["ParameterKey"]: one["ParameterValue"] for one in found.get("Parameters", [])}
    if "Prefix" not in there:
        yield bad(f"{stack} is a stack of something else", "Choose another name for this one")
        return
    if there["Prefix"] == wanted["Prefix"]:
        yield good(f"{stack} keeps its Prefix")
    else:
        what = f"{stack} has Prefix={there['Prefix']}: with {wanted['Prefix']} nobody would renew what it has"
        yield bad(what, f"Leave Prefix={there['Prefix']}, or deploy another stack") if certain else ("?", f"{what}; is another stack meant?")
        return
    key = there.get("KmsKeyArn", "")
    if key != wanted["KmsKeyArn"] and not key:
        yield "?", "KmsKeyArn was empty, and the secrets that are there keep the key that AWS manages"
    elif key != wanted["KmsKeyArn"]:
        own = key.split(":")[4] == found["StackId"].split(":")[4]
        then = "leave it enabled" if own else "it is another account's, and they could not be renewed: leave it in KmsKeyArn"
        yield "?", f"KmsKeyArn was {key}, and the secrets that are there keep it: {then}"


def prefix(name, stack):
    try:
        found = ask("lambda", "get-function", "--function-name", f"{name}-issue-client-cert", absent=("ResourceNotFoundException",))
    except Absent:
        yield good(f"{name} is free")
        return
    owner = found.get("Tags", {}).get("aws:cloudformation:stack-name")
    if owner is None:
        raise Unasked(f"the function {name}-issue-client-cert is there, and has no tag that says of which stack")
    if owner == stack:
        yield good(f"{name} is that of the stack {stack}, which would be updated")
    else:
        yield bad(f"{name} is that of the stack {owner}, not of {stack}", "Choose another Prefix, or deploy to that stack")


def secrets_under(name, *where):
    """The filter finds parts of names too."""
    listed = ask("secretsmanager", "list-secrets", *where, "--filters", f"Key=name,Values={name}/")["SecretList"]
    return [secret for secret in listed if secret["Name"].startswith(f"{name}/")]


def secrets(name):
    """What stands under the prefix and is not Everleaf's would be in its way."""
    inside = secrets_under(name)
    tagged = {secret["Name"]: tag["Value"] for secret in inside for tag in secret.get("Tags", []) if tag["Key"] == "everleaf:certificate"}
    wrong = [secret for secret in inside if tagged.get(secret["Name"]) != secret["Name"]]
    for secret in wrong:
        if secret["Name"] in tagged:
            yield bad(f"{secret['Name']} is tagged as {tagged[secret['Name']]}", "Correct its tag everleaf:certificate")
        else:
            yield bad(f"{secret['Name']} is there without the tag everleaf:certificate", "Move it, or choose another Prefix")
    if not wrong:
        yield good(f"{len(inside)} under {name}/, all of them Everleaf's" if inside else f"none under {name}/")


def tags(name):
    mapped = ask("resourcegroupstaggingapi", "get-resources", "--resource-type-filters", "acm:certificate",
                 "--tag-filters", "Key=everleaf:certificate")["ResourceTagMappingList"]
    held = {}
    for resource in mapped:
        secret = next(tag["Value"] for tag in resource["Tags"] if tag["Key"] == "everleaf:certificate")
        held.setdefault(secret, []).append(resource["ResourceARN"])
    ours = {secret: arns for secret, arns in held.items() if secret.startswith(f"{name}/")}
    for secret, arns in ours.items():
        if len(arns) > 1:
            yield bad(f"{len(arns)} certificates are tagged for {secret}: {', '.join(arns)}", "Leave the tag everleaf:certificate to one")
    for secret in held:
        if "/" not in secret:
            yield bad(f"{held[secret][0]} is tagged {secret}, which has no prefix", f"Tag it {name}/{secret}")
    yield good(f"{len(ours)} certificates are tagged for {name}, {len(held) - len(ours)} for others")


# What is counted, where, what the quota is called there, and how many of it a certificate and a trust store take. A CA counts all
# that it ever issued: a year of the shortest lifetime is 78 each.
QUOTAS = [
    ("secrets", "secretsmanager", r"^secrets", 1, 0),
    ("certificates in ACM", "acm", r"^(acm|imported) certificates$", 1, 0),
    ("certificates of a CA", "acm-pca", r"certificates per .*ca|certificates per .*certificate authority", 78, 0),
    ("trust stores", "elasticloadbalancing", r"^trust stores", 0, 1),
]


def quota(what, service, called, by_certificate, by_store, certificates, stores):
    answer = ask("service-quotas", "list-service-quotas", "--service-code", service)
    found = [quota for quota in answer["Quotas"] if re.search(called, quota["QuotaName"].lower())]
    if not found:
        raise Unasked(f"{service} lists no quota of such a name; look at the console of Service Quotas")
    needed = by_certificate * certificates + by_store * stores
    for one in found:
        if one["Value"] < needed:
            yield bad(f"{one['QuotaName']} are {one['Value']:.0f}, and {needed} are needed", f"aws service-quotas "
                      f"request-service-quota-increase --service-code {service} --quota-code {one['QuotaCode']} --desired-value {needed}")
        else:
            yield good(f"{one['QuotaName']} are {one['Value']:.0f}, and {needed} are needed")


def concurrency(reserved):
    """AWS keeps some of it for functions that reserve none: a new account has not a single one to reserve."""
    limits = ask("lambda", "get-account-settings")["AccountLimit"]
    total, free = limits["ConcurrentExecutions"], limits["UnreservedConcurrentExecutions"]
    if reserved and free - 5 * reserved < 100:
        yield bad(f"of {total} executions {free} are unreserved, 100 of which AWS keeps: five functions cannot reserve {reserved} each",
                  "Leave ReservedConcurrency at 0, or ask for more: aws service-quotas request-service-quota-increase "
                  "--service-code lambda --quota-code L-B99A9384 --desired-value 1000")
    else:
        yield good(f"{total} executions at once, {free} of them unreserved, {reserved or 'none'} to be reserved")


def pace(budget, certificates):
    hours = -(-certificates // budget)
    if hours > 240:
        yield bad(f"at {budget} an hour {certificates} certificates are replaced in {hours} h, more than the last third of 30 days",
                  "Raise HourlyBudget")
    else:
        yield good(f"HourlyBudget {budget} replaces {certificates} certificates in {hours} h")


if __name__ == "__main__":
    what = {"form": ("deploy", form)}.get("".join(sys.argv[2:]), ("preflight", main))
    try:
        what[1](sys.argv[1])
    except Refused as refusal:
        sys.exit(f"make {what[0]}: {refusal}")
