"""make redrive: what waits in the stack's failure queue goes to its function again, and leaves the queue when that has succeeded.

Safe to stop at any moment: what was not deleted comes back by itself, and each function takes a repeat.
"""

import json
import re
import sys

from aws import PREFIX, Refused, aws, invoke

# Longer than any function runs, so that nobody else is handed a message meanwhile.
HIDDEN = "960"


def main():
    queue = aws("sqs", "get-queue-url", "--queue-name", f"{PREFIX}-failures")["QueueUrl"]
    done, kept = 0, {}
    try:
        while message := receive(queue):
            name, handle = message["MessageId"], message["ReceiptHandle"]
            kept[name] = handle
            try:
                function, request, what = read(message)
                invoke(function, request)
                aws("sqs", "delete-message", "--queue-url", queue, "--receipt-handle", handle)
            except Refused as refusal:
                print(f"✗ {name} stays: {refusal}", flush=True)
                continue
            del kept[name]
            done += 1
            print(f"✓ {function}: {what}", flush=True)
    finally:
        # What stays is there for the next who looks, not only in a quarter of an hour.
        for handle in kept.values():
            aws("sqs", "change-message-visibility", "--queue-url", queue, "--receipt-handle", handle, "--visibility-timeout", "0")
    print(f"{done} done, {len(kept)} left in {PREFIX}-failures", flush=True)
    if kept:
        sys.exit("make redrive: see to what is said above, then run it again")


def receive(queue):
    # The wait asks all of the queue's servers: without it some messages are not seen.
    answer = aws("sqs", "receive-message", "--queue-url", queue, "--max-number-of-messages", "1", "--wait-time-seconds", "2",
                 "--visibility-timeout", HIDDEN, "--message-attribute-names", "All")
    return answer["Messages"][0] if answer and answer.get("Messages") else None


def read(message):
    """The function, its input, and what to call it. Lambda leaves a record that holds the input; EventBridge and its Scheduler
    leave the input itself, and say in attributes what it was for."""
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
    what = request.get("detail-type") or json.dumps(request) if isinstance(request, dict) else json.dumps(request)
    return name[1], request, what


if __name__ == "__main__":
    try:
        main()
    except Refused as refusal:
        sys.exit(f"make redrive: {refusal}")
    except KeyboardInterrupt:
        sys.exit("make redrive: stopped; what was not done is still in the queue")
