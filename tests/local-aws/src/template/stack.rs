use regex_lite::Regex;
use serde_json::{Map, Value, json};

use super::TemplateError;
use crate::{ACCOUNT, REGION};

/// The template with everything that a reference in it can mean: CloudFormation's parameters, conditions and intrinsic functions,
/// and the resources that the SAM transform adds.
pub(super) struct Stack {
    pub(super) source: Value,
    name: String,
    parameters: Map<String, Value>,
    /// Those whose condition holds, and those that the SAM transform adds.
    pub(super) resources: Map<String, Value>,
}

impl Stack {
    pub(super) fn new(source: Value, name: &str, overrides: &[(&str, &str)]) -> Result<Self, TemplateError> {
        let mut stack = Self { source, name: name.to_owned(), parameters: Map::new(), resources: Map::new() };
        let declared = stack.source["Parameters"].as_object().cloned().unwrap_or_default();
        if let Some((unknown, _)) = overrides.iter().find(|(name, _)| !declared.contains_key(*name)) {
            return Err(TemplateError(format!("the template has no parameter {unknown}")));
        }
        let mut faults = Vec::new();
        for (id, parameter) in declared {
            let given = overrides.iter().find(|(overridden, _)| *overridden == id).map(|(_, value)| json!(value));
            let value = given.or_else(|| parameter.get("Default").cloned());
            let value = value.ok_or_else(|| TemplateError(format!("parameter {id} has no default: give it a value")))?;
            let text = string(&value).map_err(|error| error.within(format!("Parameters.{id}")))?;
            faults.extend(fault(&parameter, &text).map(|why| format!("{id}: {text:?} {why}")));
            let list = parameter["Type"].as_str().is_some_and(|kind| kind == "CommaDelimitedList" || kind.starts_with("List<"));
            let value = if list { text.split(',').map(|item| json!(item.trim())).collect() } else { json!(text) };
            stack.parameters.insert(id, value);
        }
        for rule in stack.source["Rules"].as_object().into_iter().flat_map(Map::values) {
            let applies = rule.get("RuleCondition").map_or(Ok(true), |condition| truth(&stack.resolved(condition)?))?;
            for assertion in rule["Assertions"].as_array().into_iter().flatten().filter(|_| applies) {
                if !truth(&stack.resolved(&assertion["Assert"])?)? {
                    faults.push(string(&assertion["AssertDescription"])?);
                }
            }
        }
        if !faults.is_empty() {
            return Err(TemplateError(faults.join("\n")));
        }
        for (id, resource) in stack.source["Resources"].as_object().cloned().unwrap_or_default() {
            if stack.exists(&resource)? {
                stack.insert(id, resource);
            }
        }
        Ok(stack)
    }

    /// Adds a resource with what the SAM transform makes of it, under the transform's names.
    fn insert(&mut self, id: String, mut resource: Value) {
        if resource["Type"] == "AWS::Serverless::Function" {
            let mut properties = self.source["Globals"]["Function"].clone();
            merge(&mut properties, &resource["Properties"]);
            let named = |kind: &str, name: Value| json!({"Type": kind, "Properties": {"Name": name}});
            self.resources.insert(format!("{id}Role"), json!({"Type": "AWS::IAM::Role"}));
            let on_failure = &properties["EventInvokeConfig"]["DestinationConfig"]["OnFailure"];
            if on_failure["Type"] == "SQS" && on_failure["Destination"].is_null() {
                self.resources.insert(on_failure_queue(&id), json!({"Type": "AWS::SQS::Queue"}));
            }
            for (event, declared) in properties["Events"].as_object().into_iter().flatten() {
                let own = format!("{id}{event}");
                let (kind, declared) = (&declared["Type"], &declared["Properties"]);
                let resource = match (kind.as_str(), &declared["Name"]) {
                    (Some("ScheduleV2"), Value::Null) => named("AWS::Scheduler::Schedule", json!(own)),
                    (Some("ScheduleV2"), name) => named("AWS::Scheduler::Schedule", name.clone()),
                    (Some("Schedule"), name) => named("AWS::Events::Rule", name.clone()),
                    _ => named("AWS::Events::Rule", declared["RuleName"].clone()),
                };
                let dead_letters = &declared["DeadLetterConfig"];
                if dead_letters["Type"] == "SQS" && dead_letters["Arn"].is_null() {
                    self.resources.insert(dead_letter_queue(&own, declared), json!({"Type": "AWS::SQS::Queue"}));
                }
                self.resources.insert(own, resource);
            }
            resource["Properties"] = properties;
        }
        self.resources.insert(id, resource);
    }

    pub(super) fn exists(&self, item: &Value) -> Result<bool, TemplateError> {
        item["Condition"].as_str().map_or(Ok(true), |condition| self.condition(condition))
    }

    fn condition(&self, name: &str) -> Result<bool, TemplateError> {
        match self.source["Conditions"].get(name) {
            Some(condition) => truth(&self.resolved(condition)?).map_err(|error| error.within(format!("Conditions.{name}"))),
            None => Err(TemplateError(format!("no condition {name}"))),
        }
    }

    pub(super) fn resolved(&self, value: &Value) -> Result<Value, TemplateError> {
        Ok(self.resolve(value)?.unwrap_or_default())
    }

    /// `None` is `AWS::NoValue`: the property or list item is as if it were not there.
    fn resolve(&self, value: &Value) -> Result<Option<Value>, TemplateError> {
        Ok(Some(match value {
            Value::Object(map) => match map.iter().next() {
                Some((function, argument)) if map.len() == 1 && is_intrinsic(function, argument) => {
                    return self.intrinsic(function, argument);
                }
                _ => {
                    let mut resolved = Map::new();
                    for (key, value) in map {
                        if let Some(value) = self.resolve(value).map_err(|error| error.within(key))? {
                            resolved.insert(key.clone(), value);
                        }
                    }
                    Value::Object(resolved)
                }
            },
            Value::Array(items) => {
                Value::Array(items.iter().filter_map(|item| self.resolve(item).transpose()).collect::<Result<_, _>>()?)
            }
            scalar => scalar.clone(),
        }))
    }

    /// <https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/intrinsic-function-reference.html>
    fn intrinsic(&self, function: &str, argument: &Value) -> Result<Option<Value>, TemplateError> {
        let unfit = || TemplateError(format!("Local AWS cannot evaluate {function} of {argument}"));
        if let ("Ref", Value::String(name)) = (function, argument) {
            return if name == "AWS::NoValue" { Ok(None) } else { self.reference(name).map(Some) };
        }
        if let ("Fn::If", [Value::String(condition), yes, no]) = (function, list(argument)) {
            return self.resolve(if self.condition(condition)? { yes } else { no });
        }
        if let ("Fn::Sub", Value::String(text)) = (function, argument) {
            return self.substitute(text, &Value::Null).map(Some);
        }
        if let ("Fn::Sub", [Value::String(text), names]) = (function, list(argument)) {
            return self.substitute(text, &self.resolved(names)?).map(Some);
        }
        let argument = self.resolved(argument)?;
        let values = list(&argument);
        Ok(Some(match (function, values) {
            ("Condition", _) => json!(self.condition(argument.as_str().ok_or_else(unfit)?)?),
            ("Fn::Equals", [left, right]) => json!(string(left)? == string(right)?),
            ("Fn::Not", [value]) => json!(!truth(value)?),
            ("Fn::And" | "Fn::Or", [_, _, ..]) => {
                let values = values.iter().map(truth).collect::<Result<Vec<_>, _>>()?;
                json!(if function == "Fn::And" { values.iter().all(|value| *value) } else { values.contains(&true) })
            }
            ("Fn::GetAtt", [Value::String(id), Value::String(attribute)]) => self.attribute(id, attribute)?,
            ("Fn::GetAtt", []) => {
                let (id, attribute) = argument.as_str().and_then(|text| text.split_once('.')).ok_or_else(unfit)?;
                self.attribute(id, attribute)?
            }
            ("Fn::Join", [Value::String(separator), Value::Array(parts)]) => {
                json!(parts.iter().map(string).collect::<Result<Vec<_>, _>>()?.join(separator))
            }
            ("Fn::Split", [Value::String(separator), Value::String(text)]) => {
                text.split(separator.as_str()).map(Value::from).collect()
            }
            ("Fn::Contains", [Value::Array(items), item]) => json!(items.contains(item)),
            ("Fn::Select", [index, Value::Array(items)]) => {
                let index = string(index)?.parse::<usize>().map_err(|_| unfit())?;
                items.get(index).cloned().ok_or_else(unfit)?
            }
            ("Fn::FindInMap", [Value::String(map), first, second]) => {
                self.source["Mappings"][map][string(first)?].get(string(second)?).cloned().ok_or_else(unfit)?
            }
            _ => return Err(unfit()),
        }))
    }

    fn substitute(&self, text: &str, names: &Value) -> Result<Value, TemplateError> {
        let mut result = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            let (name, after) = after.split_once('}').ok_or_else(|| TemplateError(format!("no closing brace in {text:?}")))?;
            result.push_str(before);
            result.push_str(&match (name.strip_prefix('!'), names.get(name), name.split_once('.')) {
                (Some(literal), ..) => format!("${{{literal}}}"),
                (_, Some(value), _) => string(value)?,
                (_, _, Some((id, attribute))) => string(&self.attribute(id, attribute)?)?,
                _ => string(&self.reference(name)?)?,
            });
            rest = after;
        }
        Ok(json!(result + rest))
    }

    fn reference(&self, name: &str) -> Result<Value, TemplateError> {
        Ok(json!(match name {
            "AWS::Region" => REGION.to_owned(),
            "AWS::AccountId" => ACCOUNT.to_owned(),
            "AWS::Partition" => "aws".to_owned(),
            "AWS::URLSuffix" => "amazonaws.com".to_owned(),
            "AWS::StackName" => self.name.clone(),
            "AWS::StackId" => format!("arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/{0}/{1}", self.name, random(&self.name)),
            _ => match (self.parameters.get(name), name.strip_suffix(".DestinationQueue")) {
                (Some(value), _) => return Ok(value.clone()),
                (None, Some(function)) => return self.reference(&on_failure_queue(function)),
                _ => match self.kind(name)? {
                    "AWS::SQS::Queue" => format!("https://sqs.{REGION}.amazonaws.com/{ACCOUNT}/{}", self.name(name)?),
                    "AWS::SNS::Topic" => return self.attribute(name, "Arn"),
                    _ => self.name(name)?,
                },
            },
        }))
    }

    pub(super) fn attribute(&self, id: &str, attribute: &str) -> Result<Value, TemplateError> {
        if let Some(attribute) = attribute.strip_prefix("DestinationQueue.") {
            return self.attribute(&on_failure_queue(id), attribute);
        }
        let (kind, name) = (self.kind(id)?, self.name(id)?);
        let regional = |service: &str, prefix: &str| json!(format!("arn:aws:{service}:{REGION}:{ACCOUNT}:{prefix}{name}"));
        Ok(match (kind, attribute) {
            ("AWS::Serverless::Function", "Arn") => regional("lambda", "function:"),
            ("AWS::DynamoDB::Table", "Arn") => regional("dynamodb", "table/"),
            ("AWS::SQS::Queue", "Arn") => regional("sqs", ""),
            ("AWS::SNS::Topic", "Arn" | "TopicArn") => regional("sns", ""),
            ("AWS::KMS::Key", "Arn") => regional("kms", "key/"),
            ("AWS::Events::Rule", "Arn") => regional("events", "rule/"),
            ("AWS::Scheduler::Schedule", "Arn") => regional("scheduler", "schedule/default/"),
            ("AWS::Logs::LogGroup", "Arn") => json!(format!("arn:aws:logs:{REGION}:{ACCOUNT}:log-group:{name}:*")),
            ("AWS::CloudWatch::Alarm", "Arn") => regional("cloudwatch", "alarm:"),
            ("AWS::IAM::Role", "Arn") => json!(format!("arn:aws:iam::{ACCOUNT}:role/{name}")),
            ("AWS::S3::Bucket", "Arn") => json!(format!("arn:aws:s3:::{name}")),
            ("AWS::SQS::Queue", "QueueName") | ("AWS::SNS::Topic", "TopicName") | ("AWS::KMS::Key", "KeyId") => json!(name),
            ("AWS::SQS::Queue", "QueueUrl") => self.reference(id)?,
            _ => return Err(TemplateError(format!("Local AWS does not know the attribute {attribute} of {id} ({kind})"))),
        })
    }

    fn kind(&self, id: &str) -> Result<&str, TemplateError> {
        let resource =
            self.resources.get(id).ok_or_else(|| TemplateError(format!("{id} is neither a parameter nor a resource")))?;
        resource["Type"].as_str().ok_or_else(|| TemplateError(format!("{id} has no Type")))
    }

    /// The name it is given, or one as CloudFormation makes it.
    pub(super) fn name(&self, id: &str) -> Result<String, TemplateError> {
        let property = match self.kind(id)? {
            "AWS::Serverless::Function" => "FunctionName",
            "AWS::DynamoDB::Table" => "TableName",
            "AWS::SQS::Queue" => "QueueName",
            "AWS::SNS::Topic" => "TopicName",
            "AWS::KMS::Alias" => "AliasName",
            "AWS::IAM::Role" => "RoleName",
            "AWS::Logs::LogGroup" => "LogGroupName",
            "AWS::CloudWatch::Alarm" => "AlarmName",
            "AWS::S3::Bucket" => "BucketName",
            _ => "Name",
        };
        if let Some(name) = self.resolve(&self.resources[id]["Properties"][property])?.filter(|name| !name.is_null()) {
            return string(&name);
        }
        let random = random(&format!("{}/{id}", self.name));
        Ok(match self.kind(id)? {
            "AWS::KMS::Key" => format!("{}-{}-4000-8000-{}", &random[..8], &random[8..12], &random[..12]).to_lowercase(),
            "AWS::S3::Bucket" => format!("{}-{id}-{random}", self.name).to_lowercase(),
            _ => format!("{}-{id}-{random}", self.name),
        })
    }
}

pub(super) fn on_failure_queue(function: &str) -> String {
    format!("{function}EventInvokeConfigOnFailureQueue")
}

pub(super) fn dead_letter_queue(event: &str, declared: &Value) -> String {
    declared["DeadLetterConfig"]["QueueLogicalId"].as_str().map_or_else(|| format!("{event}Queue"), str::to_owned)
}

/// Short forms become long ones: `!Sub x` is `{"Fn::Sub": "x"}`.
pub(super) fn from_yaml(yaml: serde_yaml_ng::Value) -> Result<Value, TemplateError> {
    use serde_yaml_ng::Value as Yaml;
    Ok(match yaml {
        Yaml::Sequence(items) => Value::Array(items.into_iter().map(from_yaml).collect::<Result<_, _>>()?),
        Yaml::Mapping(entries) => {
            let entry = |(key, value): (Yaml, Yaml)| {
                let key = string(&from_yaml(key)?)?;
                from_yaml(value).map(|value| (key, value))
            };
            Value::Object(entries.into_iter().map(entry).collect::<Result<_, _>>()?)
        }
        Yaml::Tagged(tagged) => {
            let tag = tagged.tag.to_string();
            let name = tag.trim_start_matches('!');
            let function = if matches!(name, "Ref" | "Condition") { name.to_owned() } else { format!("Fn::{name}") };
            json!({function: from_yaml(tagged.value)?})
        }
        scalar => serde_json::to_value(scalar).map_err(|error| TemplateError(error.to_string()))?,
    })
}

/// Why a parameter may not have this value.
/// <https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/parameters-section-structure.html>
fn fault(parameter: &Value, text: &str) -> Option<String> {
    let allowed: Vec<String> = many(&parameter["AllowedValues"]).filter_map(|value| string(value).ok()).collect();
    if !allowed.is_empty() && !allowed.iter().any(|allowed| allowed == text) {
        return Some(format!("must be one of {}", allowed.join(", ")));
    }
    if let Some(pattern) = parameter["AllowedPattern"].as_str() {
        let whole = match Regex::new(&format!("^(?:{pattern})$")) {
            Ok(whole) => whole,
            Err(error) => return Some(format!("is held against a pattern that Local AWS does not read: {error}")),
        };
        let items: Vec<&str> = if parameter["Type"] == "CommaDelimitedList" { text.split(',').collect() } else { vec![text] };
        if !items.iter().all(|item| whole.is_match(item)) {
            let wanted = parameter["ConstraintDescription"].as_str().unwrap_or(pattern);
            return Some(format!("must be {wanted}"));
        }
    }
    let limit = |name: &str| parameter[name].as_f64().or_else(|| parameter[name].as_str()?.parse().ok());
    let (size, unit, limits) = if parameter["Type"] == "Number" {
        let Ok(number) = text.parse::<f64>() else { return Some("must be a number".to_owned()) };
        (number, "", ["MinValue", "MaxValue"])
    } else {
        (text.chars().count() as f64, " characters long", ["MinLength", "MaxLength"])
    };
    match limits.map(limit) {
        [Some(least), _] if size < least => Some(format!("must be at least {least}{unit}")),
        [_, Some(most)] if size > most => Some(format!("must be at most {most}{unit}")),
        _ => None,
    }
}

fn is_intrinsic(name: &str, argument: &Value) -> bool {
    // An IAM statement has a `Condition` too, which is an object.
    name == "Ref" || name.starts_with("Fn::") || name == "Condition" && argument.is_string()
}

/// SAM's rule for `Globals`: maps merge, lists add up, the rest is replaced.
fn merge(base: &mut Value, over: &Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                merge(base.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (Value::Array(base), Value::Array(over)) => base.extend(over.iter().cloned()),
        (base, over) => *base = over.clone(),
    }
}

/// Twelve letters and digits as CloudFormation ends its names with, the same at each start.
fn random(seed: &str) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    seed.bytes().for_each(|byte| hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let digit = |place: u32| char::from(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"[(hash.rotate_left(place * 5) % 36) as usize]);
    (0..12).map(digit).collect()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// IAM and SAM take one item for a list of one.
pub(super) fn many(value: &Value) -> impl Iterator<Item = &Value> {
    let one = (!value.is_array() && !value.is_null()).then_some(value);
    list(value).iter().chain(one)
}

pub(super) fn string(value: &Value) -> Result<String, TemplateError> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(_) | Value::Bool(_) => Ok(value.to_string()),
        _ => Err(TemplateError(format!("{value} is not a text"))),
    }
}

fn truth(value: &Value) -> Result<bool, TemplateError> {
    value.as_bool().ok_or_else(|| TemplateError(format!("{value} is not a condition")))
}
