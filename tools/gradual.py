"""template.yaml with a gradual deployment of the functions, for `make deploy GRADUAL=…`.

    python3 tools/gradual.py Canary10Percent5Minutes < template.yaml

Events then go to the alias `live` of each function, and CodeDeploy moves the alias from one version to the next, or back when an
alarm goes off: https://docs.aws.amazon.com/serverless-application-model/latest/developerguide/automating-updates-to-serverless-apps.html
SAM publishes a version where the template or the code changes, and none where only the value of a parameter does: events would go
on to the old value. So the time of the deployment is a variable of each function, which no function reads. Lambda publishes none
where nothing that belongs to a version differs, which a tag does not: https://docs.aws.amazon.com/lambda/latest/dg/configuration-versions.html
The role of CodeDeploy is our own, because SAM's has no permissions boundary.
"""

import datetime
import re
import sys

# https://docs.aws.amazon.com/codedeploy/latest/userguide/deployment-configurations.html#deployment-configuration-lambda
TYPE = re.compile(r"Canary10Percent(5|10|15|30)Minutes|Linear10PercentEvery(1Minute|2Minutes|3Minutes|10Minutes)|AllAtOnce")


ROLE = """
  Deployer:
    Type: AWS::IAM::Role
    Properties:
      PermissionsBoundary: !If [HasBoundary, !Ref PermissionsBoundaryArn, !Ref AWS::NoValue]
      AssumeRolePolicyDocument:
        Version: "2012-10-17"
        Statement:
          - Effect: Allow
            Principal: { Service: !Sub "codedeploy.${AWS::URLSuffix}" }
            Action: sts:AssumeRole
      ManagedPolicyArns: [!Sub "arn:${AWS::Partition}:iam::aws:policy/service-role/AWSCodeDeployRoleForLambda"]
      Tags: [{ Key: "everleaf:prefix", Value: !Ref Prefix }]
"""


def gradual(template, how, now):
    head, start, rest = template.partition("Globals:\n  Function:\n")
    before, variables, after = rest.partition("    Environment:\n      Variables:\n")
    between, resources, after = after.partition("\nResources:\n")
    assert start and variables and resources, "template.yaml is not as this expects it"
    return f"""{head}{start}    AutoPublishAlias: live
    AutoPublishAliasAllProperties: true
    DeploymentPreference:
      Type: {how}
      Role: !GetAtt Deployer.Arn
      Alarms: [!Ref FunctionErrors, !Ref FailuresWaiting]
{before}{variables}        EVERLEAF_DEPLOYED: "{now:%Y-%m-%dT%H:%M:%SZ}"
{between}{resources}{ROLE[1:]}
{after}"""


if __name__ == "__main__":
    if len(sys.argv) != 2 or not TYPE.fullmatch(sys.argv[1]):
        sys.exit("GRADUAL is how fast: Canary10Percent5Minutes (10, 15, 30), Linear10PercentEvery1Minute (2Minutes, 3Minutes, "
                 "10Minutes), or AllAtOnce")
    print(gradual(sys.stdin.read(), sys.argv[1], datetime.datetime.now(datetime.timezone.utc)), end="")
