"""What a person does by hand, by make and the AWS CLI against Local AWS: issue, renew, revoke, plan, status and redrive.

    .venv/bin/python tests/hand.py [directory of the binaries, target/debug when absent]
"""

import contextlib
import glob
import io
import json
import os
import re
import signal
import subprocess
import sys
import tempfile

from stack import ROOT, client_of, local_aws, said, until, wait_for

sys.path.insert(0, os.path.join(ROOT, "tools"))
# The AWS CLI of this environment goes before any other.
os.environ["PATH"] = f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
import hand  # noqa: E402
import redrive as tool  # noqa: E402

ACCOUNT = "eu-central-1:111122223333"


def main():
    help_of_the_tool()
    switches()
    with local_aws() as endpoint:
        issue(endpoint)
        redrive(endpoint)
        comes_back()
        stopped(endpoint)
        status(endpoint)
    print("8 passed, 0 failed")


def help_of_the_tool():
    for arguments, code in (["--help"], 0), ([], 0), (["nonsense"], 2):
        run = subprocess.run([sys.executable, "tools/hand.py", *arguments], cwd=ROOT, capture_output=True, text=True)
        assert run.returncode == code and run.stdout.endswith("`make help` shows their variables.\n") and not run.stderr, run
    told = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True).stdout
    refusal = subprocess.run([sys.executable, "tools/hand.py", "issue", "NONE"], cwd=ROOT, capture_output=True, text=True,
                             env={**os.environ, "NONE": ""}).stderr
    variables = refusal.split("there are ")[1].strip().split(", ")
    unsaid = [name for name in variables if f" {name}=" not in told]
    assert len(variables) > 20 and not unsaid, unsaid
    said("make help names every variable of make issue, and the tool says how it is called")


def switches():
    asked = []
    invoke, hand.invoke = hand.invoke, lambda function, request: asked.append(request) or {"outcome": "acted"}
    with contextlib.redirect_stdout(io.StringIO()):
        for given in {}, {"RETRY": "0"}, {"RETRY": "false"}, {"RETRY": "1"}, {"RETRY": "true"}:
            hand.renew({"NAME": "orders", **given})
    hand.invoke = invoke
    assert asked == [{"certificate": "orders"}] * 3 + [{"retry": "orders"}] * 2, asked
    for given, local in ("0", False), ("false", False), ("1", True):
        told = subprocess.run(["make", "-pn", "help", f"LOCAL={given}"], cwd=ROOT, capture_output=True, text=True).stdout
        assert ("AWS_ENDPOINT_URL := " in told) == local, given
    said("a switch that is 0 is off")


def command(endpoint, *arguments):
    # To a make that runs this test its own variables are said, not ours.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "AWS_"))}
    port = endpoint.rsplit(":", 1)[1]
    return ["make", *arguments, "LOCAL=1", f"PORT={port}"], {"cwd": ROOT, "text": True, "env": {**environment, "NAME": "hostname"}}


def make(endpoint, *arguments):
    words, how = command(endpoint, *arguments)
    return subprocess.run(words, capture_output=True, timeout=120, **how)


def issue(endpoint):
    order = ["issue", "NAME=orders", "CN=orders", "O=Example Ltd; 'x' $HOME", "SAN=dns:orders.example.internal", "SERVICES=payments/orders",
             "HOURS=240", "RENEW_BEFORE_HOURS=60", "WINDOW=daily 22:00-04:00"]
    issued = make(endpoint, *order)
    assert issued.returncode == 0 and issued.stdout.startswith("outcome                    issued\n"), issued
    assert make(endpoint, *order).stdout.startswith("outcome                    unchanged\n")
    serial = issued.stdout.split("serial_number")[1].split()[0]

    refusals = [
        (["issue", "NAME=orders", "DAY=30"], "no variable DAY here; there are C, CA,"),
        (["issue", "CN=orders"], "name: is missing"),
        (["issue", "NAME=x", "DAYS=soon"], 'validity: {"days":"soon"} is not understood'),
        (["issue", "NAME=x", "CN=x", "USAGE=any", "DAYS=4000"], "usage: `any` is not one of client, server, client-and-server; validity: 4000"),
        (["issue", "NAME=x", "CSR=/none"], "No such file or directory: '/none'"),
        (["issue", "NAME=orders", "CN=others"], "replace"),
        (["renew"], 'give one of {"sweep": true}'),
        (["renew", "NAME=none"], "neither the table nor a secret knows it"),
        (["plan", "NAME=none"], "the table does not know it"),
        (["revoke", "NAME=orders"], "serial_number: is missing"),
        (["renew", "NAME=orders", "RETRY=maybe"], "RETRY is 1 or 0, not `maybe`"),
        (["renew", "NAME=orders", "PREFIX=other"], "Function not found: arn:aws:lambda:eu-central-1:111122223333:function:other-renew-on-expiry"),
    ]
    for words, why in refusals:
        refused = make(endpoint, *words)
        assert refused.returncode != 0 and why in refused.stderr and not refused.stdout, (words, refused)
    said("what is wrong with a request is said as the function words it, and make fails")

    plan = make(endpoint, "plan", "NAME=orders")
    assert plan.returncode == 0 and plan.stdout.startswith("orders: nothing to do; next look "), plan
    assert make(endpoint, "plan").stdout.startswith("Nothing is due: ")
    assert make(endpoint, "renew", "NAME=orders").stdout.startswith("outcome      unchanged\n")
    dry = make(endpoint, "revoke", "NAME=orders", f"SERIAL={serial}", "REASON=SUPERSEDED", "DRY_RUN=1")
    assert dry.returncode == 0 and dry.stdout.startswith("outcome                    planned\n"), dry
    revoked = make(endpoint, "revoke", "NAME=orders", f"SERIAL={serial}", "REASON=KEY_COMPROMISE")
    assert revoked.returncode == 0 and "revoked" in revoked.stdout, revoked
    said("a certificate is issued, planned for, looked at and revoked by hand")


def redrive(endpoint):
    sqs = client_of(endpoint, "sqs")
    queue = sqs.get_queue_url(QueueName="everleaf-failures")["QueueUrl"]
    function = f"arn:aws:lambda:{ACCOUNT}:function:everleaf-"

    def send(body, **attributes):
        told = {name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()}
        return sqs.send_message(QueueUrl=queue, MessageBody=body, MessageAttributes=told)["MessageId"]

    def record(target, request):
        return json.dumps({"version": "1.0", "requestContext": {"functionArn": target, "condition": "RetriesExhausted"},
                           "requestPayload": request, "responsePayload": {"errorType": "Retryable"}})

    def waiting():
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        counts = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=names)["Attributes"]
        return [counts[name] for name in names]

    def by_hand(name, **more):
        return send(record(function + "issue-client-cert:$LATEST", {**more, "name": name, "subject": {"common_name": name}}))

    event = json.load(open(os.path.join(ROOT, "events", "force-redeploy.certificate-current.json")))
    sent = [
        send(record(function + "force-redeploy:$LATEST", event)),
        send(json.dumps(event), RULE_ARN="arn:aws:events:x", TARGET_ARN=function + "force-redeploy", ERROR_CODE="THROTTLING"),
        send('{"sweep": true}', SCHEDULE_ARN="arn:aws:scheduler:x", TARGET_ARN=function + "renew-on-expiry", ERROR_CODE="AWS.Lambda.Throttling"),
    ]
    functions = ["everleaf-force-redeploy"] * 2 + ["everleaf-renew-on-expiry"]
    detail = json.dumps({"detail-type": "Certificate Current", "detail": event["detail"]})
    done = make(endpoint, "redrive")
    listed, lines = done.stdout.splitlines()[:3], done.stdout.splitlines()[3:]
    assert done.returncode == 0 and lines == [
        *(f"✓ {name}: {which} has done it" for name, which in zip(sent, functions)), "3 done, 0 left in everleaf-failures"], done
    assert [re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", "TIME", line) for line in listed] == [
        f"{sent[0]}  TIME  everleaf-force-redeploy: {detail}", f"{sent[1]}  TIME  everleaf-force-redeploy: {detail}",
        f'{sent[2]}  TIME  everleaf-renew-on-expiry: {{"sweep": true}}'], listed
    assert waiting() == ["0", "0"]
    said("what waits is listed, and what Lambda, a rule and the Scheduler left of events goes to its function")

    secrets = client_of(endpoint, "secretsmanager")

    def issued(name):
        return secrets.list_secrets(Filters=[{"Key": "name", "Values": [f"everleaf/{name}"]}])["SecretList"]

    names = [by_hand("one", csr="-----BEGIN " + 5000 * "\n"), by_hand("two"), by_hand("three")]
    event_too = send(record(function + "force-redeploy:$LATEST", event))
    left = make(endpoint, "redrive")
    assert left.returncode != 0 and left.stdout.endswith("1 done, 3 left in everleaf-failures\n") and f"✓ {event_too}: " in left.stdout, left
    for name in names:
        assert f"✗ {name} stays: it was asked for by hand. If it is still wanted: make redrive ID={name}, or ALL=1\n" in left.stdout, left
    assert '"name": "one", "subject": {"common_name": "one"}}\n' in left.stdout and max(map(len, left.stdout.splitlines())) < 600, left
    assert waiting() == ["3", "0"] and not issued("two")
    for given, why in ([["ID=none"], "there is no none in everleaf-failures"], [["ALL=all"], "ALL is 1 or 0, not `all`"],
                       [["IDS=x"], "no variable IDS here; there are ALL, ID"]):
        refused = make(endpoint, "redrive", *given)
        assert refused.returncode != 0 and why in refused.stderr and waiting() == ["3", "0"], refused
    chosen = make(endpoint, "redrive", f"ID={names[1]}")
    assert chosen.returncode != 0 and f"✓ {names[1]}: everleaf-issue-client-cert has done it" in chosen.stdout, chosen
    assert issued("two") and not issued("three") and waiting() == ["2", "0"]
    every = make(endpoint, "redrive", "ALL=1")
    assert f"✗ {names[0]} stays: everleaf-issue-client-cert: failed to " in every.stdout and issued("three"), every
    sqs.purge_queue(QueueUrl=queue)
    said("what was asked for by hand goes to its function only when somebody says so")

    kept = [
        (send(record(function + "issue-client-cert:$LATEST", {"name": "no"})), "failed to accept the request: subject: is empty"),
        (send(record(f"arn:aws:lambda:{ACCOUNT}:function:other-issue-client-cert:$LATEST", {})), "is no function of the stack everleaf"),
        (send("{}", TARGET_ARN="arn:aws:sqs:x"), "arn:aws:sqs:x is no function of the stack everleaf"),
        (send("rubbish"), "it is neither a record of Lambda nor an input that EventBridge could not deliver"),
        (send('{"sweep": true}'), "it is neither a record of Lambda nor an input that EventBridge could not deliver"),
    ]
    send('{"sweep": true}', TARGET_ARN=function + "renew-on-expiry")
    again = make(endpoint, "redrive", "ALL=1")
    assert again.returncode != 0 and again.stdout.endswith("1 done, 5 left in everleaf-failures\n"), again
    for message, why in kept:
        [line] = [line for line in again.stdout.splitlines() if line.startswith(f"✗ {message} stays: ")]
        assert why in line, line
    assert waiting() == ["5", "0"], "what stays is there for the next who looks"
    sqs.purge_queue(QueueUrl=queue)
    said("what fails again, or is not for this stack, stays in the queue")


def comes_back():
    """Who takes longer than messages are hidden is handed them again."""
    message = {"MessageId": "m", "ReceiptHandle": "", "Attributes": {"SentTimestamp": "0"}, "Body": "rubbish"}
    received = []

    def aws(_, operation, *rest):
        if operation == "receive-message":
            received.append(rest)
            assert len(received) < 5, "it does not end"
        return {"get-queue-url": {"QueueUrl": "queue"}, "receive-message": {"Messages": [message]}}.get(operation)

    kept, tool.aws = tool.aws, aws
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.suppress(SystemExit):
        tool.main({})
    tool.aws = kept
    assert printed.getvalue().endswith("0 done, 1 left in everleaf-failures\n"), printed.getvalue()
    said("redrive ends also when what stays comes back meanwhile")


def stopped(endpoint):
    sqs = client_of(endpoint, "sqs")
    queue = sqs.get_queue_url(QueueName="everleaf-failures")["QueueUrl"]
    request = {"name": "stopped", "subject": {"common_name": "stopped"}}
    sqs.send_message(QueueUrl=queue, MessageBody=json.dumps({"requestPayload": request, "requestContext": {
        "functionArn": f"arn:aws:lambda:{ACCOUNT}:function:everleaf-issue-client-cert:$LATEST"}}))

    def count(name):
        return sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=[name])["Attributes"][name] == "1"

    words, how = command(endpoint, "redrive", "ALL=1")
    with tempfile.TemporaryDirectory() as directory:
        how["env"]["TMPDIR"] = directory
        # What a shell runs in the background ignores Ctrl-C, and so does all that it starts.
        running = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
                                   preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), **how)
        wait_for("the function is about to be invoked", lambda: glob.glob(os.path.join(directory, "*", "payload")))
        assert count("ApproximateNumberOfMessagesNotVisible")
        # As Ctrl-C does it: to all processes of the terminal.
        os.killpg(running.pid, signal.SIGINT)
        out, error = running.communicate(timeout=60)
    assert running.returncode != 0 and "stopped; what was not done is still in the queue" in error, (out, error)
    assert count("ApproximateNumberOfMessages")
    until("what a stopped redrive had in hand is in the queue", lambda: make(endpoint, "redrive", "ALL=1").returncode == 0, patience=60)


def status(endpoint):
    """The report is written by the test, in the place of renew-on-expiry."""
    report = {
        "prefix": "everleaf", "region": "eu-central-1", "generated_at": "2026-11-26T21:00:00Z",
        "counts": {"good": 2, "due": 1, "attention": 1, "expired": 0},
        "certificates": [
            {"certificate": "orders", "state": "good", "reason": "", "not_after": "2026-12-26T20:00:00Z",
             "renews_at": "2026-12-16T20:00:00Z", "services": ["payments/orders"]},
            {"certificate": "billing", "state": "good", "reason": "", "not_after": "2026-12-20T20:00:00Z",
             "renews_at": "2026-12-10T20:00:00Z", "services": ["payments/billing", "payments/orders"]},
            {"certificate": "gateway", "state": "due", "reason": "replaced by the next sweep", "not_after": "2026-11-30T20:00:00Z",
             "renews_at": "2026-11-25T20:00:00Z", "services": []},
            {"certificate": "clients", "state": "attention", "reason": "the CA is disabled", "services": []},
        ],
        "trust_stores": [],
    }
    told = client_of(endpoint, "lambda").get_function_configuration(FunctionName="everleaf-refresh-truststore")
    client_of(endpoint, "s3").put_object(Bucket=told["Environment"]["Variables"]["EVERLEAF_BUCKET"], Key="report/report.json",
                                         Body=json.dumps(report).encode())
    os.environ.update(AWS_ENDPOINT_URL=endpoint, AWS_REGION="eu-central-1", AWS_ACCESS_KEY_ID="local", AWS_SECRET_ACCESS_KEY="local")
    asked, printed = [], io.StringIO()
    hand.invoke = lambda function, request: asked.append((function, request))
    with contextlib.redirect_stdout(printed):
        hand.status({})
    assert asked == [("everleaf-renew-on-expiry", {"report": True})]
    assert printed.getvalue() == """\
CERTIFICATE  STATE      EXPIRES     RENEWS      SERVICES
clients      attention  -           -                                              the CA is disabled
gateway      due        2026-11-30  2026-11-25                                     replaced by the next sweep
billing      good       2026-12-20  2026-12-10  payments/billing, payments/orders
orders       good       2026-12-26  2026-12-16  payments/orders

everleaf in eu-central-1 at 2026-11-26 21:00 UTC: 2 good, 1 due, 1 attention
""", printed.getvalue()
    said("the fleet is a table, and what needs a person stands first")


if __name__ == "__main__":
    main()
