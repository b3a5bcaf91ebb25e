"""What a person asks of a stack: make issue, renew, revoke, plan, status and ask.

    python3 tools/hand.py COMMAND VARIABLE…

Each variable is named here and has its value in the environment, which is how make hands over what stands on its command line:

    NAME=orders CN=orders python3 tools/hand.py issue NAME CN

is `make issue NAME=orders CN=orders`. Without variables `issue` says what it lacks, and a variable that a command does not know is
refused with a list of those that it knows. Little else is judged here: whether a value will do is what the functions say.
"""

import json
import os
import sys
import tempfile

from aws import PREFIX, Refused, aws, invoke

# What is said to make itself, and not to the stack.
ANYWHERE = {"LOCAL", "PORT", "PREFIX", "AWS_ENDPOINT_URL", "AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION"}


def issue(given):
    subject = {"CN": "common_name", "O": "organization", "OU": "organizational_unit", "C": "country", "ST": "state", "L": "locality"}
    texts = {"NAME": "name", "KEY_ALGORITHM": "key_algorithm", "USAGE": "usage", "CA": "certificate_authority_arn",
             "CANARY": "canary", "WINDOW": "maintenance_window", "KEY_FORMAT": "key_format"}
    switches = {"IMPORT_TO_ACM": "import_to_acm", "PAUSED": "paused", "REPLACE": "replace", "DRY_RUN": "dry_run"}
    lifetime = {"DAYS": "days", "HOURS": "hours", "END": "end"}
    before = {"RENEW_BEFORE_DAYS": "days", "RENEW_BEFORE_HOURS": "hours"}
    check(given, {*subject, *texts, *switches, *lifetime, *before, "SAN", "SERVICES", "CSR"})

    request = members(given, texts) | members(given, switches, switch)
    request["subject"] = members(given, subject)
    request["subject_alternative_names"] = words(given.get("SAN"))
    request["validity"] = members(given, lifetime, number)
    request["renew_before"] = members(given, before, number)
    request["services"] = [service(word) for word in words(given.get("SERVICES"))]
    if "CSR" in given:
        with open(given["CSR"]) as file:
            request["csr"] = file.read()
    show(invoke(f"{PREFIX}-issue-client-cert", {name: value for name, value in request.items() if value not in ({}, [])}))


def renew(given):
    check(given, {"NAME", "RETRY"})
    show(invoke(f"{PREFIX}-renew-on-expiry", members(given, {"NAME": "retry" if flag(given, "RETRY") else "certificate"})))


def revoke(given):
    texts = {"NAME": "revoke", "SERIAL": "serial_number", "REASON": "reason", "CA": "certificate_authority_arn"}
    switches = {"DRY_RUN": "dry_run"}
    check(given, {*texts, *switches})
    show(invoke(f"{PREFIX}-issue-client-cert", members(given, texts) | members(given, switches, switch)))


def ask(given):
    check(given, {"FUNCTION", "REQUEST"})
    answer = invoke(f"{PREFIX}-{given.get('FUNCTION', '')}", json.loads(given.get("REQUEST", "{}")))
    print(json.dumps(answer, indent=4))


def plan(given):
    check(given, {"NAME"})
    answer = invoke(f"{PREFIX}-renew-on-expiry", {"plan": True, **members(given, {"NAME": "certificate"})})
    print(answer["text"] or f"Nothing is due: {answer['looked_at']} certificates were looked at.\n", end="", flush=True)
    if answer["failed"]:
        raise Refused("what could not be looked at: " + "; ".join(answer["failed"]))


def status(given):
    check(given, set())
    invoke(f"{PREFIX}-renew-on-expiry", {"report": True})
    told = aws("lambda", "get-function-configuration", "--function-name", f"{PREFIX}-refresh-truststore")
    bucket = told["Environment"]["Variables"]["EVERLEAF_BUCKET"]
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "report.json")
        aws("s3api", "get-object", "--bucket", bucket, "--key", "report/report.json", path)
        with open(path) as file:
            print(fleet(json.load(file)))


# What needs somebody stands first.
STATES = ["expired", "attention", "paused", "waiting", "due", "not-issued", "good"]


def fleet(report):
    """The report as a table."""
    def rank(certificate):
        state = certificate["state"]
        return STATES.index(state) if state in STATES else -1, certificate.get("not_after") or "", certificate["certificate"]

    rows = [("CERTIFICATE", "STATE", "EXPIRES", "RENEWS", "SERVICES", "")]
    for one in sorted(report["certificates"], key=rank):
        until, renews = day(one.get("not_after")), day(one.get("renews_at"))
        rows.append((one["certificate"], one["state"], until, renews, ", ".join(one["services"]), one["reason"]))
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip() for row in rows]
    counts = ", ".join(f"{count} {state}" for state, count in report["counts"].items() if count) or "none"
    at = report["generated_at"][:16].replace("T", " ")
    lines += ["", f"{report['prefix']} in {report['region']} at {at} UTC: {counts}"]
    return "\n".join(lines)


def day(time):
    return (time or "-")[:10]


def members(given, fields, read=str):
    return {member: read(given[name]) for name, member in fields.items() if name in given}


def number(text):
    """What is none goes as it is: the function says what it wants."""
    return int(text) if text.isdigit() else text


def switch(text):
    return {"1": True, "true": True, "0": False, "false": False}.get(text, text)


def flag(given, name):
    """A switch that no function sees, so that it is judged here."""
    told = switch(given.get(name, "0"))
    if not isinstance(told, bool):
        raise Refused(f"{name} is 1 or 0, not `{told}`")
    return told


def words(text):
    return (text or "").replace(",", " ").split()


def service(word):
    name, equals, reload = word.partition("=")
    return {"service": name, "reload": reload} if equals else name


def values(variables):
    return {variable: os.environ[variable] for variable in variables if variable not in ANYWHERE}


def check(given, known):
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise Refused(f"no variable {', '.join(unknown)} here; there are {', '.join(sorted(known)) or 'none'}")


def show(answer):
    width = max(map(len, answer))
    for name, told in sorted(answer.items(), key=lambda member: member[0] != "outcome"):
        if isinstance(told, list) and all(isinstance(item, str) for item in told):
            told = "; ".join(told) or "-"
        print(f"{name:<{width}}  {told if isinstance(told, str) else json.dumps(told)}")


COMMANDS = {command.__name__: command for command in (issue, renew, revoke, plan, status, ask)}

if __name__ == "__main__":
    name, *variables = sys.argv[1:] or ["--help"]
    if name not in COMMANDS:
        print(f"{__doc__.strip()}\n\nThe commands are {', '.join(COMMANDS)}. `make help` shows their variables.")
        sys.exit(0 if name == "--help" else 2)
    try:
        COMMANDS[name](values(variables))
    except (Refused, OSError, json.JSONDecodeError) as refusal:
        sys.exit(f"make {name}: {refusal}")
