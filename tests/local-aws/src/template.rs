//! The SAM template, read as CloudFormation and the SAM transform would: what is wired in there is what runs here.

mod stack;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use self::stack::{Stack, dead_letter_queue, from_yaml, many, on_failure_queue, string};
use crate::cloudwatch::Alarm;
use crate::events::{self, Expression, Notice, Pattern, Rule, Schedule, ScheduleSource, Target};
use crate::iam::{Condition, Statement};
use crate::lambda::{self, Runner};
use crate::{AwsError, LocalAws, dynamodb, s3};

#[derive(Clone, Debug)]
pub struct Template {
    pub stack: String,
    pub functions: Vec<Arc<Function>>,
    /// Each is an input of DynamoDB's `CreateTable`.
    pub tables: Vec<Value>,
    pub queues: Vec<Queue>,
    pub buckets: Vec<Bucket>,
    /// The functions that Secrets Manager may invoke.
    pub rotators: Vec<String>,
    pub alarms: Vec<Alarm>,
    /// The body of each.
    pub dashboards: Vec<Value>,
    pub notices: Vec<Notice>,
    pub outputs: BTreeMap<String, String>,
}

#[derive(Clone, Debug)]
pub struct Queue {
    pub arn: String,
    pub attributes: Vec<(String, String)>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Bucket {
    pub name: String,
    pub versioned: bool,
    /// Whether EventBridge hears of its objects.
    pub sends_events: bool,
}

#[derive(Clone, Debug)]
pub struct Function {
    pub logical_id: String,
    pub name: String,
    pub arn: String,
    pub binary: String,
    pub timeout: Duration,
    pub memory: u64,
    pub environment: BTreeMap<String, String>,
    pub retry_attempts: u32,
    pub max_event_age: Duration,
    pub on_failure_queue_arn: Option<String>,
    pub rules: Vec<Rule>,
    pub schedules: Vec<Schedule>,
    /// What its role may do.
    pub statements: Vec<Statement>,
}

/// What in the template cannot be read, and where it stands.
#[derive(Clone, Debug)]
pub struct TemplateError(String);

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TemplateError {}

impl Template {
    /// `parameters` override the template's defaults. Every fault of theirs is told at once, a line each.
    pub fn read(path: &Path, stack: &str, parameters: &[(&str, &str)]) -> Result<Self, TemplateError> {
        let text = std::fs::read_to_string(path).map_err(|error| TemplateError(format!("{}: {error}", path.display())))?;
        Self::parse(&text, stack, parameters).map_err(|error| error.within(path.display()))
    }

    pub fn parse(text: &str, stack: &str, parameters: &[(&str, &str)]) -> Result<Self, TemplateError> {
        let yaml = serde_yaml_ng::from_str(text).map_err(|error| TemplateError(error.to_string()))?;
        let source = Stack::new(from_yaml(yaml)?, stack, parameters)?;
        let (stack, outputs) = (stack.to_owned(), BTreeMap::new());
        let (functions, tables, queues, buckets, rotators) = (vec![], vec![], vec![], vec![], vec![]);
        let (alarms, dashboards, notices) = (vec![], vec![], vec![]);
        let mut template = Self { stack, functions, tables, queues, buckets, rotators, alarms, dashboards, notices, outputs };
        for (id, resource) in &source.resources {
            template.add(&source, id, resource).map_err(|error| error.within(format!("Resources.{id}")))?;
        }
        for (name, output) in source.source["Outputs"].as_object().into_iter().flatten() {
            if source.exists(output)? {
                let value = source.resolved(&output["Value"]).and_then(|value| string(&value));
                template.outputs.insert(name.clone(), value.map_err(|error| error.within(format!("Outputs.{name}")))?);
            }
        }
        Ok(template)
    }

    /// The function that runs this binary.
    pub fn function(&self, binary: &str) -> Option<&Arc<Function>> {
        self.functions.iter().find(|function| function.binary == binary)
    }

    fn add(&mut self, stack: &Stack, id: &str, resource: &Value) -> Result<(), TemplateError> {
        match resource["Type"].as_str().unwrap_or_default() {
            "AWS::Serverless::Function" => self.functions.push(Arc::new(function(stack, id, resource)?)),
            "AWS::DynamoDB::Table" => {
                let mut table = stack.resolved(&resource["Properties"])?;
                table["TableName"] = json!(stack.name(id)?);
                self.tables.push(table);
            }
            "AWS::SQS::Queue" => {
                let properties = stack.resolved(&resource["Properties"])?;
                let settings =
                    properties.as_object().into_iter().flatten().filter(|(name, _)| *name != "QueueName" && *name != "Tags");
                // An object, such as a redrive policy, is JSON in a text for SQS.
                let attributes =
                    settings.map(|(name, value)| (name.clone(), string(value).unwrap_or_else(|_| value.to_string())));
                self.queues.push(Queue { arn: string(&stack.attribute(id, "Arn")?)?, attributes: attributes.collect() });
            }
            "AWS::S3::Bucket" => {
                let properties = stack.resolved(&resource["Properties"])?;
                let notifications = &properties["NotificationConfiguration"];
                refuse(notifications, &["LambdaConfigurations", "QueueConfigurations", "TopicConfigurations"])?;
                let enabled = &notifications["EventBridgeConfiguration"]["EventBridgeEnabled"];
                self.buckets.push(Bucket {
                    name: stack.name(id)?,
                    versioned: properties["VersioningConfiguration"]["Status"] == "Enabled",
                    sends_events: *enabled == true || *enabled == "true",
                });
            }
            "AWS::Lambda::Permission" => {
                let properties = stack.resolved(&resource["Properties"])?;
                if properties["Principal"] == "secretsmanager.amazonaws.com" {
                    self.rotators.push(string(&properties["FunctionName"])?);
                }
            }
            "AWS::CloudWatch::Alarm" => {
                self.alarms.push(Alarm::parse(id, &stack.resolved(&resource["Properties"])?).map_err(TemplateError)?);
            }
            "AWS::CloudWatch::Dashboard" => {
                let body = string(&stack.resolved(&resource["Properties"]["DashboardBody"])?)?;
                self.dashboards.push(serde_json::from_str(&body).map_err(|error| TemplateError(error.to_string()))?);
            }
            "AWS::Events::Rule" if resource["Properties"]["Targets"][0].get("InputTransformer").is_some() => {
                self.notices.push(notice(&stack.resolved(&resource["Properties"])?)?);
            }
            kind @ ("AWS::Lambda::Function" | "AWS::Lambda::EventInvokeConfig" | "AWS::Lambda::EventSourceMapping") => {
                return Err(TemplateError(format!("Local AWS reads functions only as AWS::Serverless::Function, not {kind}")));
            }
            kind => {
                let properties = stack.resolved(&resource["Properties"])?.to_string();
                let invokes = matches!(kind, "AWS::Events::Rule" | "AWS::Scheduler::Schedule");
                if invokes && properties.contains("arn:aws:lambda:") {
                    return Err(TemplateError("Local AWS reads what invokes a function only from the function's Events".into()));
                }
            }
        }
        Ok(())
    }
}

impl LocalAws {
    /// Deploys a stack; `runner` says what runs each function.
    pub fn deploy(&self, template: &Template, runner: impl Fn(&Arc<Function>) -> Runner) -> Result<(), AwsError> {
        self.world(|world, now| {
            for table in &template.tables {
                dynamodb::call(world, now, "CreateTable", table)?;
            }
            for Queue { arn, attributes } in &template.queues {
                let attributes: Vec<(&str, &str)> =
                    attributes.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
                world.sqs.create_queue(now, arn, &attributes)?;
            }
            for Bucket { name, versioned, sends_events } in &template.buckets {
                s3::add_bucket(world, name, *versioned, *sends_events);
            }
            world.lambda.rotators.extend(template.rotators.iter().cloned());
            world.cloudwatch.alarms.extend(template.alarms.iter().cloned());
            world.events.notices.extend(template.notices.iter().cloned());
            for function in &template.functions {
                let deployed = lambda::Function { config: function.clone(), runner: runner(function) };
                world.lambda.functions.insert(function.name.clone(), deployed);
                world.events.rules.extend(function.rules.iter().cloned());
                function.schedules.iter().for_each(|schedule| events::start(world, now, schedule.clone()));
            }
            Ok(())
        })
    }
}

impl LocalAws {
    /// Gives the function that runs this binary another role.
    pub fn set_role(&self, binary: &str, statements: Vec<Statement>) {
        self.world(|world, _| {
            for function in world.lambda.functions.values_mut().filter(|function| function.config.binary == binary) {
                Arc::make_mut(&mut function.config).statements = statements.clone();
            }
        });
    }

    /// Updates a stack whose parameters changed what its functions are told: their environment and roles, and the key of its
    /// tables. Nothing else of a template is updated here.
    pub fn update(&self, template: &Template, runner: impl Fn(&Arc<Function>) -> Runner) {
        self.world(|world, _| {
            for table in &template.tables {
                world.dynamodb.encrypt(table["TableName"].as_str().unwrap_or_default(), dynamodb::kms_key(table));
            }
            for function in &template.functions {
                let deployed = lambda::Function { config: function.clone(), runner: runner(function) };
                world.lambda.functions.insert(function.name.clone(), deployed);
            }
        });
    }
}

impl TemplateError {
    fn within(self, place: impl fmt::Display) -> Self {
        Self(format!("{place}: {}", self.0))
    }
}

fn function(stack: &Stack, id: &str, resource: &Value) -> Result<Function, TemplateError> {
    let properties = stack.resolved(&resource["Properties"])?;
    refuse(&properties, &["Role", "DeadLetterQueue"])?;
    let (name, arn) = (stack.name(id)?, string(&stack.attribute(id, "Arn")?)?);
    let binary = string(&stack.resolved(&resource["Metadata"]["BuildProperties"]["Binary"])?);
    let mut environment = BTreeMap::new();
    for (name, value) in properties["Environment"]["Variables"].as_object().into_iter().flatten() {
        environment.insert(name.clone(), string(value).map_err(|error| error.within(format!("Environment {name}")))?);
    }
    let invoke = &properties["EventInvokeConfig"];
    let on_failure = &invoke["DestinationConfig"]["OnFailure"];
    let on_failure_queue_arn = match (&on_failure["Type"], &on_failure["Destination"]) {
        (_, Value::String(arn)) => Some(arn.clone()),
        (Value::String(kind), _) if kind == "SQS" => Some(string(&stack.attribute(&on_failure_queue(id), "Arn")?)?),
        (Value::Null, Value::Null) => None,
        _ => return Err(TemplateError("EventInvokeConfig: Local AWS has only queues as on-failure destinations".into())),
    };
    let mut statements = policies(&properties["Policies"]).map_err(|error| error.within("Policies"))?;
    if let Some(queue) = &on_failure_queue_arn {
        let (actions, resources) = (vec!["sqs:SendMessage".into()], vec![queue.clone()]);
        statements.push(Statement { allow: true, actions, resources, conditions: vec![] });
    }
    let mut function = Function {
        logical_id: id.to_owned(),
        name,
        arn,
        binary: binary.map_err(|error| error.within("Metadata.BuildProperties.Binary"))?,
        timeout: Duration::from_secs(number(&properties, "Timeout", 3)?),
        memory: number(&properties, "MemorySize", 128)?,
        environment,
        retry_attempts: u32::try_from(number(invoke, "MaximumRetryAttempts", 2)?).unwrap_or(2),
        max_event_age: Duration::from_secs(number(invoke, "MaximumEventAgeInSeconds", 21_600)?),
        on_failure_queue_arn,
        rules: vec![],
        schedules: vec![],
        statements,
    };
    for (name, declared) in properties["Events"].as_object().into_iter().flatten() {
        event(stack, &mut function, name, declared).map_err(|error| error.within(format!("Events.{name}")))?;
    }
    Ok(function)
}

fn event(stack: &Stack, function: &mut Function, event: &str, declared: &Value) -> Result<(), TemplateError> {
    let (kind, declared) = (declared["Type"].as_str().unwrap_or_default(), &declared["Properties"]);
    let id = format!("{}{event}", function.logical_id);
    let (name, arn) = (stack.name(&id)?, string(&stack.attribute(&id, "Arn")?)?);
    refuse(declared, &["InputPath", "InputTransformer", "StartDate", "EndDate", "GroupName"])?;
    for (property, only) in [("EventBusName", "default"), ("ScheduleExpressionTimezone", "UTC")] {
        if declared.get(property).is_some_and(|value| value != only) {
            return Err(TemplateError(format!("Local AWS has no {property} but {only}")));
        }
    }
    let input = declared.get("Input").map(|input| {
        let invalid = |reason: &dyn fmt::Display| TemplateError(format!("Input: {reason}"));
        match input.as_str() {
            Some(text) if text.contains("<aws.scheduler.") => Err(invalid(&"Local AWS fills in no <aws.scheduler.…>")),
            Some(text) => serde_json::from_str(text).map_err(|error| invalid(&error)),
            None => Err(invalid(&"must be a text that holds JSON")),
        }
    });
    let input = input.transpose()?;
    let dead_letters = &declared["DeadLetterConfig"];
    let dead_letter_queue_arn = match (&dead_letters["Arn"], &dead_letters["Type"]) {
        (Value::String(arn), _) => Some(arn.clone()),
        (_, Value::Null) => None,
        _ => Some(string(&stack.attribute(&dead_letter_queue(&id, declared), "Arn")?)?),
    };
    let enabled = declared["State"] != "DISABLED" && declared["Enabled"] != false && declared["Enabled"] != "false";
    let retry_policy = declared["RetryPolicy"].clone();
    let target = Target { function: function.name.clone(), input, enabled, retry_policy, dead_letter_queue_arn };
    let (source, expression) = match kind {
        "EventBridgeRule" | "CloudWatchEvent" => {
            let pattern = Pattern::parse(&declared["Pattern"]).map_err(|error| TemplateError(error).within("Pattern"))?;
            function.rules.push(Rule { name, arn, pattern, target });
            return Ok(());
        }
        "Schedule" => (ScheduleSource::Rule, &declared["Schedule"]),
        "ScheduleV2" => (ScheduleSource::Scheduler, &declared["ScheduleExpression"]),
        _ => return Err(TemplateError(format!("Local AWS does not know events of the type {kind:?}"))),
    };
    let expression = Expression::parse(&string(expression)?).map_err(TemplateError)?;
    function.schedules.push(Schedule { name, arn, source, expression, target });
    Ok(())
}

/// A rule of its own, whose one target is a topic.
fn notice(properties: &Value) -> Result<Notice, TemplateError> {
    refuse(properties, &["EventBusName", "ScheduleExpression", "State"])?;
    let [target] = properties["Targets"].as_array().map_or(&[][..], Vec::as_slice) else {
        return Err(TemplateError("Local AWS reads a rule with one target only".into()));
    };
    let (transformer, topic) = (&target["InputTransformer"], string(&target["Arn"])?);
    if !topic.contains(":sns:") {
        return Err(TemplateError(format!("Local AWS writes messages for topics only, not for {topic}")));
    }
    let path = |(name, path): (&String, &Value)| Ok((name.clone(), string(path)?));
    Ok(Notice {
        pattern: Pattern::parse(&properties["EventPattern"]).map_err(TemplateError)?,
        topic,
        paths: transformer["InputPathsMap"].as_object().into_iter().flatten().map(path).collect::<Result<_, TemplateError>>()?,
        template: string(&transformer["InputTemplate"])?,
    })
}

fn policies(policies: &Value) -> Result<Vec<Statement>, TemplateError> {
    let mut statements = Vec::new();
    for policy in many(policies) {
        match policy {
            // They allow only what Local AWS has no service for.
            Value::String(managed)
                if managed.ends_with("AWSXRayDaemonWriteAccess") || managed.ends_with("AWSLambdaBasicExecutionRole") => {}
            Value::Object(document) if document.contains_key("Statement") => {
                for statement in many(&document["Statement"]) {
                    refuse(statement, &["NotAction", "NotResource"])?;
                    statements.push(Statement {
                        allow: statement["Effect"] == "Allow",
                        actions: many(&statement["Action"]).map(string).collect::<Result<_, _>>()?,
                        resources: many(&statement["Resource"]).map(string).collect::<Result<_, _>>()?,
                        conditions: Condition::read(&statement["Condition"]).map_err(TemplateError)?,
                    });
                }
            }
            _ => return Err(TemplateError(format!("Local AWS reads only statements, not {policy}"))),
        }
    }
    Ok(statements)
}

/// What would change what happens is never passed over in silence.
fn refuse(properties: &Value, unread: &[&str]) -> Result<(), TemplateError> {
    match unread.iter().find(|name| properties.get(**name).is_some()) {
        Some(name) => Err(TemplateError(format!("Local AWS does not read {name}"))),
        None => Ok(()),
    }
}

fn number(properties: &Value, name: &str, default: u64) -> Result<u64, TemplateError> {
    let Some(value) = properties.get(name) else { return Ok(default) };
    string(value)?.parse().map_err(|_| TemplateError(format!("{name} must be a number, not {value}")))
}

#[cfg(test)]
mod example;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::iam::{Need, allows};

    pub(crate) const TEMPLATE: &str = r#"
Parameters:
  Prefix: { Type: String, Default: everleaf }
  Stage: { Type: String, Default: test, AllowedValues: [test, live] }
  Minutes: { Type: Number, Default: 2 }
  Names: { Type: CommaDelimitedList, Default: "a.example, b.example" }
Mappings:
  Sizes: { live: { memory: 512 }, test: { memory: 256 } }
Rules:
  Short:
    RuleCondition: !Equals [!Ref Stage, live]
    Assertions: [{ Assert: !Not [!Contains [!Ref Names, c.example]], AssertDescription: c.example is not live }]
Conditions:
  Live: !Equals [!Ref Stage, live]
  NotLive: !Not [!Condition Live]
  Odd: !And [!Condition Live, !Or [!Equals [a, b], !Condition NotLive]]
Globals:
  Function:
    Timeout: 60
    Environment: { Variables: { PREFIX: !Ref Prefix, LEVEL: info } }
    EventInvokeConfig: { MaximumEventAgeInSeconds: 3600 }
Resources:
  Key: { Type: AWS::KMS::Key, Properties: {} }
  Table:
    Type: AWS::DynamoDB::Table
    Properties:
      BillingMode: PAY_PER_REQUEST
      AttributeDefinitions: [{ AttributeName: id, AttributeType: S }]
      KeySchema: [{ AttributeName: id, KeyType: HASH }]
  Spare: { Type: AWS::SQS::Queue, Condition: Live, Properties: { MessageRetentionPeriod: 1209600 } }
  Renew:
    Type: AWS::Serverless::Function
    Metadata: { BuildMethod: rust-cargolambda, BuildProperties: { Binary: renew-on-expiry } }
    Properties:
      FunctionName: !Sub ${Prefix}-renew
      Timeout: !Ref Minutes
      MemorySize: !FindInMap [Sizes, !Ref Stage, memory]
      Environment:
        Variables:
          LEVEL: debug
          TABLE: !Ref Table
          KEY_ARN: !GetAtt Key.Arn
          NAMES: !Join ["|", !Ref Names]
          FIRST: !Select [0, !Split [".", !Select [1, !Ref Names]]]
          SUB: !Sub ["${Who}@${AWS::Region} ${!literal} ${Table.Arn}", { Who: !Ref Prefix }]
          ONLY_LIVE: !If [Live, "yes", !Ref AWS::NoValue]
          LONG: { "Fn::If": [NotLive, { "Fn::Sub": "not ${Stage}" }, "live"] }
          QUEUE: !GetAtt Renew.DestinationQueue.Arn
      EventInvokeConfig: { MaximumRetryAttempts: 1, DestinationConfig: { OnFailure: { Type: SQS } } }
      Policies:
        - AWSXRayDaemonWriteAccess
        - Statement:
            - { Effect: Allow, Action: [acm:DescribeCertificate, "acm:List*"], Resource: "*" }
            - Effect: Allow
              Action: secretsmanager:GetSecretValue
              Resource: !Sub arn:${AWS::Partition}:secretsmanager:${AWS::Region}:${AWS::AccountId}:secret:${Prefix}/*
            - { Effect: Deny, Action: acm:ListCertificates, Resource: "*" }
            - !If
              - Live
              - { Effect: Allow, Action: "ecs:*", Resource: "*" }
              - !Ref AWS::NoValue
      Events:
        Expiring:
          Type: EventBridgeRule
          Properties:
            Pattern: { source: [aws.acm], detail-type: [ACM Certificate Expired, { prefix: ACM Certificate Rev }] }
            RetryPolicy: { MaximumRetryAttempts: 20 }
            DeadLetterConfig: { Type: SQS, QueueLogicalId: RulesDlq }
        Hourly:
          Type: ScheduleV2
          Properties: { ScheduleExpression: rate(1 hour), Input: '{"sweep":true}', FlexibleTimeWindow: { Mode: "OFF" } }
        Daily:
          Type: Schedule
          Properties: { Schedule: cron(0 3 * * ? *), Enabled: !If [Live, true, false] }
Outputs:
  Function: { Value: !Ref Renew }
  Role: { Value: !GetAtt RenewRole.Arn }
  Spare: { Condition: Live, Value: !Ref Spare }
"#;

    fn renew(parameters: &[(&str, &str)]) -> Arc<Function> {
        Template::parse(TEMPLATE, "demo", parameters).unwrap().function("renew-on-expiry").unwrap().clone()
    }

    #[test]
    fn a_template_is_evaluated_as_cloudformation_would() {
        let template = Template::parse(TEMPLATE, "demo", &[]).unwrap();
        let function = renew(&[]);
        assert_eq!(function.arn, "arn:aws:lambda:eu-central-1:111122223333:function:everleaf-renew");
        assert_eq!((function.timeout, function.memory), (Duration::from_secs(2), 256));
        assert_eq!((function.retry_attempts, function.max_event_age), (1, Duration::from_secs(3600)));
        let variable = |name: &str| function.environment.get(name).map(String::as_str);
        let table = variable("TABLE").unwrap();
        assert!(table.starts_with("demo-Table-") && template.tables[0]["TableName"] == table, "{table}");
        assert!(variable("KEY_ARN").unwrap().starts_with("arn:aws:kms:eu-central-1:111122223333:key/"));
        assert_eq!((variable("PREFIX"), variable("LEVEL")), (Some("everleaf"), Some("debug")));
        assert_eq!((variable("NAMES"), variable("FIRST")), (Some("a.example|b.example"), Some("b")));
        let expected = format!("everleaf@eu-central-1 ${{literal}} arn:aws:dynamodb:eu-central-1:111122223333:table/{table}");
        assert_eq!(variable("SUB"), Some(expected.as_str()));
        assert_eq!((variable("ONLY_LIVE"), variable("LONG")), (None, Some("not test")));
        assert_eq!(variable("QUEUE"), function.on_failure_queue_arn.as_deref());
        assert_eq!(template.outputs.keys().collect::<Vec<_>>(), ["Function", "Role"]);
        assert_eq!(template.outputs["Function"], "everleaf-renew");
        assert!(template.outputs["Role"].starts_with("arn:aws:iam::111122223333:role/demo-RenewRole-"));
        assert_eq!(renew(&[("Stage", "live")]).environment["ONLY_LIVE"], "yes");
    }

    #[test]
    fn events_make_rules_schedules_and_queues() {
        let template = Template::parse(TEMPLATE, "demo", &[]).unwrap();
        let function = renew(&[]);
        let [rule] = function.rules.as_slice() else { panic!("{:?}", function.rules) };
        assert!(rule.pattern.matches(&json!({"source": "aws.acm", "detail-type": "ACM Certificate Revoked"})));
        assert_eq!(rule.target.retry_policy["MaximumRetryAttempts"], 20);
        let queues = [function.on_failure_queue_arn.clone().unwrap(), rule.target.dead_letter_queue_arn.clone().unwrap()];
        assert!(template.queues.iter().map(|queue| &queue.arn).eq(&queues), "{:?}", template.queues);
        assert!(queues[1].contains(":demo-RulesDlq-"));
        let schedules: Vec<_> =
            function.schedules.iter().map(|one| (one.source, one.target.enabled, one.target.input.clone())).collect();
        let hourly = (ScheduleSource::Scheduler, true, Some(json!({"sweep": true})));
        assert_eq!(schedules, [(ScheduleSource::Rule, false, None), hourly]);
        let live = Template::parse(TEMPLATE, "demo", &[("Stage", "live")]).unwrap();
        assert_eq!(live.queues.len(), 3);
        assert_eq!(live.queues[2].attributes, [("MessageRetentionPeriod".to_owned(), "1209600".to_owned())]);
    }

    #[test]
    fn a_queue_of_the_template_takes_the_place_of_the_transforms() {
        let own = TEMPLATE
            .replace("OnFailure: { Type: SQS }", "OnFailure: { Type: SQS, Destination: !GetAtt Spare.Arn }")
            .replace("Type: SQS, QueueLogicalId: RulesDlq", "Type: SQS, Arn: !GetAtt Spare.Arn")
            .replace("QUEUE: !GetAtt Renew.DestinationQueue.Arn", "QUEUE: !Ref Spare");
        let template = Template::parse(&own, "demo", &[("Stage", "live")]).unwrap();
        let [queue] = template.queues.as_slice() else { panic!("{:?}", template.queues) };
        let function = template.function("renew-on-expiry").unwrap();
        assert_eq!(function.on_failure_queue_arn.as_ref(), Some(&queue.arn));
        assert_eq!(function.rules[0].target.dead_letter_queue_arn.as_ref(), Some(&queue.arn));
        assert!(function.environment["QUEUE"].starts_with("https://sqs.eu-central-1.amazonaws.com/111122223333/demo-Spare-"));
    }

    #[test]
    fn buckets_keep_versions_and_send_events_where_the_template_says_so() {
        let buckets = r#"Resources:
  Plain: { Type: AWS::S3::Bucket }
  Bundles:
    Type: AWS::S3::Bucket
    Properties:
      BucketName: !Sub ${Prefix}-bundles
      VersioningConfiguration: { Status: Enabled }
      NotificationConfiguration: { EventBridgeConfiguration: { EventBridgeEnabled: true } }
  Policy: { Type: AWS::S3::BucketPolicy, Properties: { Bucket: !Ref Bundles, PolicyDocument: {} } }
"#;
        let text =
            TEMPLATE.replacen("Resources:\n", buckets, 1).replace("KEY_ARN: !GetAtt Key.Arn", "BUCKET: !GetAtt Bundles.Arn");
        let template = Template::parse(&text.replace("FIRST: ", "PLAIN: !Ref Plain\n          FIRST: "), "Demo", &[]).unwrap();
        let environment = &template.functions[0].environment;
        assert_eq!(environment["BUCKET"], "arn:aws:s3:::everleaf-bundles");
        assert!(environment["PLAIN"].starts_with("demo-plain-"), "{environment:?}");
        let bucket = |name: &str, on| Bucket { name: name.into(), versioned: on, sends_events: on };
        assert_eq!(template.buckets, [bucket("everleaf-bundles", true), bucket(&environment["PLAIN"], false)]);
        let topic = text.replace("EventBridgeConfiguration: {", "TopicConfigurations: {");
        assert!(Template::parse(&topic, "demo", &[]).unwrap_err().to_string().contains("Resources.Bundles"));
    }

    #[test]
    fn a_role_allows_what_its_statements_say() {
        let queue = renew(&[]).on_failure_queue_arn.clone().unwrap();
        let certificate = "arn:aws:acm:eu-central-1:111122223333:certificate/1";
        let secret = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:everleaf/web-AbCdEf";
        let rows = [
            ("test", "acm:DescribeCertificate", certificate, true),
            ("test", "ACM:listtagsforcertificate", certificate, true),
            ("test", "acm:ListCertificates", "*", false),
            ("test", "acm:RenewCertificate", certificate, false),
            ("test", "secretsmanager:GetSecretValue", secret, true),
            ("test", "secretsmanager:GetSecretValue", &secret.replace("everleaf", "another"), false),
            ("test", "sqs:SendMessage", &queue, true),
            ("test", "ecs:UpdateService", "*", false),
            ("live", "ecs:UpdateService", "*", true),
        ];
        for (stage, action, resource, allowed) in rows {
            let need = Need { action: action.into(), resource: resource.into(), context: BTreeMap::new() };
            assert_eq!(allows(&renew(&[("Stage", stage)]).statements, &need), allowed, "{stage} {action} {resource}");
        }
    }

    #[test]
    fn what_the_template_does_not_allow_of_a_parameter_is_refused_with_every_reason() {
        const TEMPLATE: &str = r#"
Parameters:
  Name: { Type: String, Default: a, AllowedPattern: "[a-z]*", ConstraintDescription: lower-case letters, MinLength: 1, MaxLength: 3 }
  Size: { Type: Number, Default: 4, MinValue: 2, MaxValue: 4 }
  Kind: { Type: String, Default: one, AllowedValues: [one, two] }
  Regions: { Type: CommaDelimitedList, Default: "", AllowedPattern: "([a-z]+-[0-9])?" }
Rules:
  Other:
    RuleCondition: !Equals [!Ref Kind, two]
    Assertions: [{ Assert: !Not [!Contains [!Ref Regions, b-2]], AssertDescription: two is not for b-2 }]
"#;
        let rows: [(&[(&str, &str)], &str); 9] = [
            (&[("Name", "abc"), ("Size", "2"), ("Kind", "two"), ("Regions", "a-1,c-3")], ""),
            (&[("Name", "A")], "Name: \"A\" must be lower-case letters"),
            (&[("Name", "abcd")], "Name: \"abcd\" must be at most 3 characters long"),
            (&[("Name", "")], "Name: \"\" must be at least 1 characters long"),
            (&[("Size", "1")], "Size: \"1\" must be at least 2"),
            (&[("Size", "x"), ("Kind", "three")], "Kind: \"three\" must be one of one, two\nSize: \"x\" must be a number"),
            (&[("Regions", "a-1,c")], "Regions: \"a-1,c\" must be ([a-z]+-[0-9])?"),
            (&[("Kind", "two"), ("Regions", "a-1,b-2")], "two is not for b-2"),
            (&[("Kind", "one"), ("Regions", "b-2")], ""),
        ];
        for (parameters, expected) in rows {
            let fault = Template::parse(TEMPLATE, "demo", parameters).err().map_or_else(String::new, |error| error.to_string());
            assert_eq!(fault, expected, "{parameters:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_an_error_that_names_it() {
        let rows = [
            ("KEY_ARN: !GetAtt Key.Arn", "KEY_ARN: !GetAtt Key.Size", "Key"),
            ("KEY_ARN: !GetAtt Key.Arn", "KEY_ARN: !Ref Nothing", "Nothing"),
            ("KEY_ARN: !GetAtt Key.Arn", "KEY_ARN: !Ref Spare", "Spare"),
            ("KEY_ARN: !GetAtt Key.Arn", "KEY_ARN: !Sub '${Nothing.Arn}'", "Nothing"),
            ("KEY_ARN: !GetAtt Key.Arn", "KEY_ARN: !ImportValue other", "Fn::ImportValue"),
            ("KEY_ARN: !GetAtt Key.Arn", "KEY_ARN: !If [Maybe, a, b]", "Maybe"),
            ("KEY_ARN: !GetAtt Key.Arn", "KEY_ARN: !FindInMap [Sizes, dev, memory]", "Fn::FindInMap"),
            ("KEY_ARN: !GetAtt Key.Arn", "KEY_ARN: [1]", "KEY_ARN"),
            ("        - AWSXRayDaemonWriteAccess", "        - AdministratorAccess", "AdministratorAccess"),
            ("source: [aws.acm]", "source: [{ contains: acm }]", "contains"),
            ("rate(1 hour)", "rate(1 fortnight)", "rate(1 fortnight)"),
            ("Type: ScheduleV2", "Type: Api", "Api"),
            ("Input: '", "GroupName: mine, Input: '", "GroupName"),
            ("Action: secretsmanager:GetSecretValue", "NotAction: secretsmanager:GetSecretValue", "NotAction"),
            (
                "Action: secretsmanager:GetSecretValue",
                "Condition: { DateLessThan: { a: b } }\n              Action: secretsmanager:GetSecretValue",
                "DateLessThan",
            ),
            ("MemorySize:", "Role: mine\n      MemorySize:", "Role"),
            (
                "Key: { Type: AWS::KMS::Key, Properties: {} }",
                "Key: { Type: AWS::KMS::Key, Properties: { X: !Ref Nothing } }",
                "Nothing",
            ),
            ("Outputs:", "  Rule: { Type: AWS::Events::Rule, Properties: { Targets: [!GetAtt Renew.Arn] } }\nOutputs:", "Rule"),
            ("Binary: renew-on-expiry", "Other: x", "Binary"),
            ("Timeout: !Ref Minutes", "Timeout: soon", "soon"),
            ("Default: everleaf", "Description: x", "Prefix"),
        ];
        for (from, to, named) in rows {
            assert!(TEMPLATE.contains(from), "{from}");
            let error = Template::parse(&TEMPLATE.replacen(from, to, 1), "demo", &[]).expect_err(to);
            assert!(error.to_string().contains(named), "{to}: {error}");
        }
        let names = ("Names", "a.example,c.example");
        assert!(Template::parse(TEMPLATE, "demo", &[names]).is_ok());
        let error = Template::parse(TEMPLATE, "demo", &[names, ("Stage", "live")]).unwrap_err();
        assert_eq!(error.to_string(), "c.example is not live");
        for (name, value) in [("Stage", "dev"), ("Unknown", "x")] {
            let error = Template::parse(TEMPLATE, "demo", &[(name, value)]).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}
