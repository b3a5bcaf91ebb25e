use std::fmt;

use serde_json::{Value, json};

/// An event pattern: <https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-create-pattern-operators.html>. `cidr` is not
/// read: no event of Everleaf carries an address.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: String,
    root: Fields,
}

/// Every field must match, and one of each `$or`.
#[derive(Clone, Debug)]
struct Fields {
    fields: Vec<(String, Node)>,
    alternatives: Vec<Vec<Self>>,
}

#[derive(Clone, Debug)]
enum Node {
    Inside(Fields),
    Leaf(Vec<Matcher>),
}

#[derive(Clone, Debug)]
enum Matcher {
    Is(Value),
    IsIgnoringCase(String),
    Prefix(Text),
    Suffix(Text),
    /// What stands between the asterisks.
    Wildcard(Vec<String>),
    Numeric(Vec<(String, f64)>),
    Exists(bool),
    AnythingBut(Vec<Self>),
}

#[derive(Clone, Debug)]
struct Text {
    text: String,
    ignoring_case: bool,
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Pattern {
    pub fn parse(pattern: &Value) -> Result<Self, String> {
        Ok(Self { text: pattern.to_string(), root: Fields::parse(pattern)? })
    }

    pub fn matches(&self, event: &Value) -> bool {
        self.root.matches(event)
    }
}

impl Fields {
    fn parse(pattern: &Value) -> Result<Self, String> {
        let Some(map) = pattern.as_object().filter(|map| !map.is_empty()) else {
            return Err(format!("{pattern} is not an object with fields"));
        };
        let (mut fields, mut alternatives) = (Vec::new(), Vec::new());
        for (name, value) in map {
            match value {
                Value::Array(several) if name == "$or" && several.len() > 1 => {
                    alternatives.push(several.iter().map(Self::parse).collect::<Result<_, _>>()?);
                }
                Value::Array(matchers) if !matchers.is_empty() => {
                    let matchers = matchers.iter().map(Matcher::parse).collect::<Result<_, _>>();
                    fields.push((name.clone(), Node::Leaf(matchers.map_err(|error| format!("{name}: {error}"))?)));
                }
                Value::Object(_) => {
                    fields.push((name.clone(), Node::Inside(Self::parse(value).map_err(|error| format!("{name}: {error}"))?)));
                }
                _ => return Err(format!("{name} must be an object or a filled array")),
            }
        }
        Ok(Self { fields, alternatives })
    }

    /// Of an array of objects one element has to satisfy all fields.
    fn matches(&self, event: &Value) -> bool {
        if let Value::Array(elements) = event {
            return elements.iter().any(|element| self.matches(element));
        }
        self.fields.iter().all(|(name, node)| match node {
            Node::Inside(fields) => fields.matches(&event[name.as_str()]),
            Node::Leaf(matchers) => {
                let leaves = leaves(event.get(name));
                matchers.iter().any(|matcher| match matcher {
                    Matcher::Exists(wanted) => leaves.is_empty() != *wanted,
                    _ => leaves.iter().any(|leaf| matcher.matches(leaf)),
                })
            }
        }) && self.alternatives.iter().all(|any| any.iter().any(|fields| fields.matches(event)))
    }
}

/// The values a field has: those of an array are alternatives, and an object or an empty array has none.
fn leaves(value: Option<&Value>) -> Vec<&Value> {
    match value {
        None | Some(Value::Object(_)) => Vec::new(),
        Some(Value::Array(elements)) => elements.iter().flat_map(|element| leaves(Some(element))).collect(),
        Some(scalar) => vec![scalar],
    }
}

impl Matcher {
    fn parse(matcher: &Value) -> Result<Self, String> {
        let operator = match matcher {
            Value::Object(map) if map.len() == 1 => map.iter().next(),
            Value::Object(_) | Value::Array(_) => return Err(format!("{matcher} is neither a value nor one operator")),
            _ => return Ok(Self::Is(matcher.clone())),
        };
        let Some((operator, operand)) = operator else { return Err("an empty object matches nothing".into()) };
        let unfit = || format!("{operator} cannot be {operand}");
        match (operator.as_str(), operand) {
            ("prefix", _) => Text::parse(operand).map(Self::Prefix),
            ("suffix", _) => Text::parse(operand).map(Self::Suffix),
            ("equals-ignore-case", Value::String(text)) => Ok(Self::IsIgnoringCase(text.to_lowercase())),
            ("wildcard", Value::String(text)) => wildcard(text).map(Self::Wildcard),
            ("exists", Value::Bool(wanted)) => Ok(Self::Exists(*wanted)),
            ("numeric", Value::Array(parts)) if matches!(parts.len(), 2 | 4) => {
                let pair = |pair: &[Value]| match pair {
                    [Value::String(comparison), Value::Number(number)]
                        if ["=", "<", "<=", ">", ">="].contains(&comparison.as_str()) =>
                    {
                        Some((comparison.clone(), number.as_f64()?))
                    }
                    _ => None,
                };
                parts.chunks(2).map(pair).collect::<Option<_>>().map(Self::Numeric).ok_or_else(unfit)
            }
            ("anything-but", Value::Object(map)) => {
                let Some((operator, operand)) = map.iter().next().filter(|(operator, _)| {
                    map.len() == 1 && ["prefix", "suffix", "equals-ignore-case", "wildcard"].contains(&operator.as_str())
                }) else {
                    return Err(unfit());
                };
                let operands = operand.as_array().cloned().unwrap_or_else(|| vec![operand.clone()]);
                operands
                    .iter()
                    .map(|operand| Self::parse(&json!({operator: operand})))
                    .collect::<Result<_, _>>()
                    .map(Self::AnythingBut)
            }
            ("anything-but", Value::Array(values)) if !values.is_empty() => {
                let fits = values.iter().all(Value::is_string) || values.iter().all(Value::is_number);
                fits.then(|| Self::AnythingBut(values.iter().cloned().map(Self::Is).collect())).ok_or_else(unfit)
            }
            ("anything-but", Value::String(_) | Value::Number(_)) => Ok(Self::AnythingBut(vec![Self::Is(operand.clone())])),
            ("cidr", _) => Err("Local AWS does not match cidr".into()),
            ("equals-ignore-case" | "wildcard" | "exists" | "numeric" | "anything-but", _) => Err(unfit()),
            _ => Err(format!("unrecognized match type {operator}")),
        }
    }

    fn matches(&self, value: &Value) -> bool {
        let text = value.as_str();
        match self {
            Self::Is(wanted) => value == wanted,
            Self::IsIgnoringCase(wanted) => text.is_some_and(|text| text.to_lowercase() == *wanted),
            Self::Prefix(prefix) => text.is_some_and(|text| prefix.fold(text).starts_with(&prefix.text)),
            Self::Suffix(suffix) => text.is_some_and(|text| suffix.fold(text).ends_with(&suffix.text)),
            Self::Wildcard(pieces) => text.is_some_and(|text| fits(pieces, text)),
            Self::Numeric(comparisons) => value.as_f64().is_some_and(|number| {
                comparisons.iter().all(|(comparison, limit)| match comparison.as_str() {
                    "<" => number < *limit,
                    "<=" => number <= *limit,
                    ">" => number > *limit,
                    ">=" => number >= *limit,
                    _ => number == *limit,
                })
            }),
            Self::Exists(_) => true,
            Self::AnythingBut(matchers) => !matchers.iter().any(|matcher| matcher.matches(value)),
        }
    }
}

impl Text {
    fn parse(operand: &Value) -> Result<Self, String> {
        match (operand, &operand["equals-ignore-case"]) {
            (Value::String(text), _) => Ok(Self { text: text.clone(), ignoring_case: false }),
            (_, Value::String(text)) => Ok(Self { text: text.to_lowercase(), ignoring_case: true }),
            _ => Err(format!("{operand} is not a text")),
        }
    }

    fn fold(&self, text: &str) -> String {
        if self.ignoring_case { text.to_lowercase() } else { text.to_owned() }
    }
}

/// `a*b\*c` gives `a` and `b*c`.
fn wildcard(text: &str) -> Result<Vec<String>, String> {
    let mut pieces = vec![String::new()];
    let mut rest = text.chars();
    while let Some(character) = rest.next() {
        let literal = match character {
            '*' if rest.as_str().starts_with('*') => return Err("consecutive wildcard characters".into()),
            '*' => {
                pieces.push(String::new());
                continue;
            }
            '\\' => rest.next().filter(|next| matches!(next, '*' | '\\')).ok_or("invalid escape character")?,
            _ => character,
        };
        if let Some(piece) = pieces.last_mut() {
            piece.push(literal);
        }
    }
    Ok(pieces)
}

fn fits(pieces: &[String], text: &str) -> bool {
    let [first, middle @ .., last] = pieces else { return pieces.first().is_some_and(|only| only == text) };
    let Some(mut rest) = text.strip_prefix(first.as_str()) else { return false };
    for piece in middle {
        match rest.find(piece.as_str()) {
            Some(at) => rest = &rest[at + piece.len()..],
            None => return false,
        }
    }
    rest.ends_with(last.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sample event of AWS's pages on patterns, with what their further examples need.
    fn event() -> Value {
        json!({
            "version": "0", "id": "6a7e8feb-b491-4cf7-a9f1-bf3703467718", "detail-type": "EC2 Instance State-change Notification",
            "source": "aws.ec2", "account": "111122223333", "time": "2017-12-22T18:43:48Z", "region": "us-west-1",
            "resources": ["arn:aws:ec2:us-west-1:123456789012:instance/i-1234567890abcdef0", "arn:aws:s3:::other"],
            "detail": {
                "instance-id": "i-1234567890abcdef0", "state": "running", "c-count": 5, "d-count": 30, "x-limit": 301.8,
                "FileName": "photo.PNG", "FilePath": "/usr/lib/x", "star": "2*2", "eventVersion": "", "responseElements": null,
                "exported": true, "services": [], "pairs": [{"name": "a", "size": 1}, {"name": "b", "size": 2}],
            },
        })
    }

    #[test]
    fn patterns_match_as_aws_documents_them() {
        let rows = [
            (
                json!({"detail-type": ["EC2 Instance State-change Notification"], "detail": {"state": ["initializing", "running"]}}),
                true,
            ),
            (json!({"source": ["aws.ec2"], "detail": {"state": ["stopped"]}}), false),
            (json!({"resources": ["arn:aws:ec2:us-west-1:123456789012:instance/i-1234567890abcdef0", "another"]}), true),
            (json!({"resources": ["another"]}), false),
            (json!({"detail": {"eventVersion": [""], "responseElements": [null]}}), true),
            (json!({"detail": {"eventVersion": [null]}}), false),
            (json!({"detail": {"missing": [null]}}), false),
            (json!({"detail": {"exported": [true]}}), true),
            (json!({"detail": {"exported": ["true"]}}), false),
            (json!({"time": [{"prefix": "2017-12-22"}]}), true),
            (json!({"time": [{"prefix": "2017-10-02"}]}), false),
            (json!({"source": [{"prefix": {"equals-ignore-case": "AWS.E"}}]}), true),
            (json!({"source": [{"prefix": "AWS.E"}]}), false),
            (json!({"detail": {"FileName": [{"suffix": ".png"}]}}), false),
            (json!({"detail": {"FileName": [{"suffix": {"equals-ignore-case": ".png"}}]}}), true),
            (json!({"detail": {"c-count": [{"suffix": "5"}]}}), false),
            (json!({"detail-type": [{"equals-ignore-case": "ec2 instance state-change notification"}]}), true),
            (json!({"detail": {"FilePath": [{"wildcard": "*/lib/*"}]}}), true),
            (json!({"detail": {"FilePath": [{"wildcard": "/usr*usr*"}]}}), false),
            (json!({"detail": {"FilePath": [{"wildcard": "/usr/lib/x"}]}}), true),
            (json!({"detail": {"FilePath": [{"wildcard": "*lib*lib*"}]}}), false),
            (json!({"detail": {"FilePath": [{"wildcard": "*lib"}]}}), false),
            (json!({"detail": {"star": [{"wildcard": "2\\**"}]}}), true),
            (json!({"detail": {"state": [{"wildcard": "run\\*"}]}}), false),
            (json!({"detail": {"state": [{"anything-but": "initializing"}]}}), true),
            (json!({"detail": {"state": [{"anything-but": ["stopped", "running"]}]}}), false),
            (json!({"detail": {"missing": [{"anything-but": "initializing"}]}}), false),
            (json!({"detail": {"x-limit": [{"anything-but": [100, 200, 300]}]}}), true),
            (json!({"detail": {"x-limit": [{"anything-but": 301.8}]}}), false),
            (json!({"detail": {"state": [{"anything-but": {"prefix": "init"}}]}}), true),
            (json!({"detail": {"state": [{"anything-but": {"prefix": ["init", "run"]}}]}}), false),
            (json!({"detail": {"FileName": [{"anything-but": {"suffix": ".png"}}]}}), true),
            (json!({"detail": {"state": [{"anything-but": {"equals-ignore-case": ["INITIALIZING", "RUNNING"]}}]}}), false),
            (json!({"detail": {"FilePath": [{"anything-but": {"wildcard": "*/lib/*"}}]}}), false),
            (json!({"detail": {"FilePath": [{"anything-but": {"wildcard": ["*/bin/*", "*.rs"]}}]}}), true),
            (json!({"resources": [{"anything-but": "arn:aws:s3:::other"}]}), true),
            (json!({"detail": {"c-count": [{"numeric": [">", 0, "<=", 5]}], "x-limit": [{"numeric": ["=", 3.018e2]}]}}), true),
            (json!({"detail": {"d-count": [{"numeric": ["<", 10]}]}}), false),
            (json!({"detail": {"state": [{"numeric": [">", 0]}]}}), false),
            (json!({"detail": {"state": [{"exists": true}], "missing": [{"exists": false}]}}), true),
            (json!({"detail": {"state": [{"exists": false}]}}), false),
            (json!({"detail": [{"exists": true}]}), false),
            (json!({"detail": {"services": [{"exists": true}]}}), false),
            (json!({"detail": {"c-count": [5, {"anything-but": 5}]}}), true),
            (json!({"detail": {"$or": [{"c-count": [{"numeric": [">", 5]}]}, {"d-count": [{"numeric": [">=", 30]}]}]}}), true),
            (json!({"source": ["aws.s3"], "$or": [{"region": ["us-west-1"]}, {"account": ["1"]}]}), false),
            (json!({"$or": [{"region": ["eu-west-1"]}, {"detail": {"state": ["stopped"]}}]}), false),
            (json!({"detail": {"pairs": {"name": ["a"], "size": [1]}}}), true),
            (json!({"detail": {"pairs": {"name": ["a"], "size": [2]}}}), false),
        ];
        for (pattern, expected) in rows {
            let parsed = Pattern::parse(&pattern).unwrap_or_else(|error| panic!("{pattern}: {error}"));
            assert_eq!(parsed.matches(&event()), expected, "{pattern}");
        }
    }

    #[test]
    fn a_pattern_that_aws_refuses_is_refused() {
        let rows = [
            json!({}),
            json!(["aws.acm"]),
            json!({"source": "aws.acm"}),
            json!({"source": []}),
            json!({"source": [["aws.acm"]]}),
            json!({"source": [{"contains": "acm"}]}),
            json!({"source": [{"prefix": 1}]}),
            json!({"source": [{"prefix": "a", "suffix": "b"}]}),
            json!({"source": [{"wildcard": "a**"}]}),
            json!({"source": [{"wildcard": "a\\b"}]}),
            json!({"source": [{"anything-but": {"exists": false}}]}),
            json!({"source": [{"anything-but": ["a", 1]}]}),
            json!({"detail": {"c-count": [{"numeric": ["between", 0]}]}}),
            json!({"detail": {"c-count": [{"numeric": [">"]}]}}),
            json!({"detail": {"address": [{"cidr": "10.0.0.0/24"}]}}),
            json!({"detail": {}}),
        ];
        for pattern in rows {
            assert!(Pattern::parse(&pattern).is_err(), "{pattern}");
        }
    }
}
