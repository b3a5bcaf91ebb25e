"""template.yaml with a gradual deployment of the functions, for `make deploy GRADUAL=…`.

    python3 tools/gradual.py Canary10Percent5Minutes < template.yaml

Events then go to the alias `live` of each function, and CodeDeploy moves the alias from one version to the next, or back when an
alarm goes off: https://docs.aws.amazon.com/serverless-application-model/latest/developerguide/automating-updates-to-serverless-apps.html
SAM publishes a version where the template or the code changes, and none where only the value of a parameter does: events would go
on to the old value. So the time of the deployment is a tag of each function.
"""

import datetime
import re
import sys

# https://docs.aws.amazon.com/codedeploy/latest/userguide/deployment-configurations.html#deployment-configuration-lambda
TYPE = re.compile(r"Canary10Percent(5|10|15|30)Minutes|Linear10PercentEvery(1Minute|2Minutes|3Minutes|10Minutes)|AllAtOnce")


def gradual(template, how, now):
    head, start, rest = template.partition("Globals:\n  Function:\n")
    before, tags, after = rest.partition("    Tags: { ")
    assert start and tags, "template.yaml is not as this expects it"
    return f"""{head}{start}    AutoPublishAlias: live
    AutoPublishAliasAllProperties: true
    DeploymentPreference:
      Type: {how}
      Alarms: [!Ref FunctionErrors, !Ref FailuresWaiting]
{before}{tags}"everleaf:deployed": "{now:%Y-%m-%dT%H:%M:%SZ}", {after}"""


if __name__ == "__main__":
    if len(sys.argv) != 2 or not TYPE.fullmatch(sys.argv[1]):
        sys.exit("GRADUAL is how fast: Canary10Percent5Minutes (10, 15, 30), Linear10PercentEvery1Minute (2Minutes, 3Minutes, "
                 "10Minutes), or AllAtOnce")
    print(gradual(sys.stdin.read(), sys.argv[1], datetime.datetime.now(datetime.timezone.utc)), end="")
