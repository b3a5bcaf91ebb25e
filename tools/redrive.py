"""make redrive: says what waits in the stack's failure queue, sends it to its function again, and takes out what has succeeded.

An event only says that something is so, and each function then looks at the world anew: an old one does no harm. What a person
asked for does what it says, however old it is. It is sent only where ID names it, or with ALL=1.

Safe to stop at any moment: what was not deleted comes back by itself.
"""

import contextlib
import datetime
import json
import re
import sys

from aws import PREFIX, Refused, aws, invoke
from hand import check, flag, values, words

# Longer than any function runs, so that nobody else is handed a message meanwhile.
HIDDEN = "960"
# What the schedules of the stack send, which is no event, and as harmless.
SCHEDULED = {"sweep": True}, {"refresh": True}


def main(given):
    check(given, {"ID", "ALL"})
    named, everything = words(given.get("ID")), flag(given, "ALL")
    queue = aws("sqs", "get-queue-url", "--queue-name", f"{PREFIX}-failures")["QueueUrl"]
    done, kept = 0, {}
    try:
        # What is handed out once more has come back while this was going on: then all of it has been seen.
        more = True
        while more:
            received = receive(queue)
            more = not received.keys() <= kept.keys()
            kept |= received
        waiting = sorted(kept.values(), key=sent)
        for message in waiting:
            print(f"{message['MessageId']}  {sent(message):%Y-%m-%d %H:%M} UTC  {line(message)}", flush=True)
        if unknown := [name for name in named if name not in kept]:
            raise Refused(f"there is no {', '.join(unknown)} in {PREFIX}-failures")
        for message in waiting:
            name = message["MessageId"]
            try:
                function, request = read(message)
                if not (everything or name in named or repeatable(request)):
                    raise Refused(f"it was asked for by hand. If it is still wanted: make redrive ID={name}, or ALL=1")
                # Its time began when it was received, and those before it may have taken long.
                hide(queue, message, HIDDEN)
                invoke(function, request)
                aws("sqs", "delete-message", "--queue-url", queue, "--receipt-handle", message["ReceiptHandle"])
            except Refused as refusal:
                print(f"✗ {name} stays: {refusal}", flush=True)
                continue
            del kept[name]
            done += 1
            print(f"✓ {name}: {function} has done it", flush=True)
    finally:
        # What stays is there for the next who looks, not only in a quarter of an hour.
        for message in kept.values():
            with contextlib.suppress(Refused):
                hide(queue, message, "0")
    print(f"{done} done, {len(kept)} left in {PREFIX}-failures", flush=True)
    if kept:
        sys.exit("make redrive: see to what is said above, then run it again")


def receive(queue):
    """Some messages by their ids; none when all are hidden."""
    # The wait asks all of the queue's servers: without it some messages are not seen.
    answer = aws("sqs", "receive-message", "--queue-url", queue, "--max-number-of-messages", "10", "--wait-time-seconds", "2",
                 "--visibility-timeout", HIDDEN, "--message-attribute-names", "All", "--attribute-names", "SentTimestamp")
    return {message["MessageId"]: message for message in (answer or {}).get("Messages", [])}


def hide(queue, message, seconds):
    aws("sqs", "change-message-visibility", "--queue-url", queue, "--receipt-handle", message["ReceiptHandle"],
        "--visibility-timeout", seconds)


def sent(message):
    return datetime.datetime.fromtimestamp(int(message["Attributes"]["SentTimestamp"]) / 1000, datetime.timezone.utc)


def read(message):
    """The function and its input. Lambda leaves a record that holds the input; EventBridge and its Scheduler leave the input itself,
    and say in attributes what it was for."""
    attributes = {name: told["StringValue"] for name, told in message.get("MessageAttributes", {}).items() if "StringValue" in told}
    try:
        body = json.loads(message["Body"])
        if "TARGET_ARN" in attributes:
            target, request = attributes["TARGET_ARN"], body
        else:
            target, request = body["requestContext"]["functionArn"], body["requestPayload"]
    except (ValueError, KeyError, TypeError):
        raise Refused("it is neither a record of Lambda nor an input that EventBridge could not deliver; look at it, then delete it") from None
    # Whoever may write to the queue must not choose what is invoked.
    name = re.fullmatch(r"arn:[^:]+:lambda:[^:]+:\d+:function:([^:]+)(:.*)?", target)
    if not name or not name[1].startswith(f"{PREFIX}-"):
        raise Refused(f"{target} is no function of the stack {PREFIX}; look at it, then delete it")
    return name[1], request


def repeatable(request):
    return isinstance(request, dict) and ("detail-type" in request or request in SCHEDULED)


def line(message):
    """The function and its input, of which a CSR would fill the screen."""
    try:
        function, request = read(message)
    except Refused as refusal:
        return str(refusal)
    if isinstance(request, dict) and "detail-type" in request:
        request = {name: request.get(name) for name in ("detail-type", "detail")}
    text = re.sub(r'((?:[^"\\]|\\.){100})(?:[^"\\]|\\.)+', r"\1…", json.dumps(request))
    return f"{function}: {text if len(text) <= 500 else text[:500] + '…'}"


if __name__ == "__main__":
    try:
        main(values(sys.argv[1:]))
    except Refused as refusal:
        sys.exit(f"make redrive: {refusal}")
    except KeyboardInterrupt:
        sys.exit("make redrive: stopped; what was not done is still in the queue")
