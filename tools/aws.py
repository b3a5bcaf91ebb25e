"""The AWS CLI, and the stack's functions by it. Where it goes is the environment's business: AWS_ENDPOINT_URL, AWS_PROFILE, …"""

import json
import os
import subprocess
import tempfile

PREFIX = os.environ.get("PREFIX") or "everleaf"


class Refused(Exception):
    """What the AWS CLI or a function says no with: what we were doing, and the answer."""


def aws(*arguments):
    """The answer of one call, or None where AWS has none."""
    # Longer than any function runs, so that an answer is waited for and not asked for twice.
    command = ["aws", *arguments, "--output", "json", "--cli-read-timeout", "910"]
    if arguments[0] == "sqs" and "AWS_ENDPOINT_URL" in os.environ:
        # The first version of the CLI overlooks the variable for SQS alone.
        command += ["--endpoint-url", os.environ["AWS_ENDPOINT_URL"]]
    environment = {**os.environ, "AWS_PAGER": ""}
    if "AWS_REGION" in environment:
        # Nor does the first version read this one, which is the second version's own.
        environment["AWS_DEFAULT_REGION"] = environment["AWS_REGION"]
    try:
        run = subprocess.run(command, capture_output=True, text=True, env=environment)
    except FileNotFoundError:
        raise Refused("there is no AWS CLI: install it, and see that `aws` is on the PATH") from None
    if run.returncode:
        raise Refused(f"aws {arguments[0]} {arguments[1]}: {run.stderr.strip()}")
    return json.loads(run.stdout) if run.stdout.strip() else None


def invoke(function, request):
    """A function's answer. Its own refusal is `Refused` as it words it."""
    with tempfile.TemporaryDirectory() as directory:
        payload, answer = os.path.join(directory, "payload"), os.path.join(directory, "answer")
        with open(payload, "w") as file:
            json.dump(request, file)
        # A file of bytes means the same to both versions of the CLI; a text does not.
        called = aws("lambda", "invoke", "--function-name", function, "--payload", f"fileb://{payload}", answer)
        with open(answer) as file:
            body = json.load(file)
    if "FunctionError" in called:
        raise Refused(f"{function}: {body.get('errorMessage', body)}")
    return body
