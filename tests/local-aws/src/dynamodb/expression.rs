//! The language of conditions, filters, key conditions, updates and projections.
//! <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Expressions.html>

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use super::invalid;
use super::value::{Scalar, canonical, compare, content, kind, length, strings};
use crate::AwsError;

/// The expressions of one request, and the names and values that they refer to.
pub(super) struct Expressions<'a> {
    input: &'a Value,
    values: BTreeMap<&'a str, Value>,
    unused: RefCell<BTreeSet<&'a str>>,
    any: Cell<bool>,
}

#[derive(Clone, PartialEq)]
pub(super) enum Expression {
    Path(Path),
    Value(Value),
    /// A function, a comparison, `BETWEEN`, `IN`, `AND`, `OR`, `NOT`, `+`, `-`: by its own name.
    Call(String, Vec<Self>),
}

#[derive(Clone, PartialEq)]
pub(super) struct Path(Vec<Step>);

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Name(String),
    Index(usize),
}

/// One test of a key condition, the attribute first.
pub(super) struct KeyTest<'a> {
    pub(super) attribute: &'a str,
    pub(super) operator: &'a str,
    pub(super) values: Vec<&'a Value>,
}

/// What to do to which path: the section's keyword, and its operand where it has one.
pub(super) struct Update(Vec<(String, Path, Option<Expression>)>);

impl<'a> Expressions<'a> {
    pub(super) fn new(input: &'a Value) -> Result<Self, AwsError> {
        let mut unused = BTreeSet::new();
        let mut values = BTreeMap::new();
        for member in ["ExpressionAttributeNames", "ExpressionAttributeValues"] {
            if input[member].as_object().is_some_and(Map::is_empty) {
                return Err(invalid(format!("{member} must not be empty")));
            }
            unused.extend(input[member].as_object().into_iter().flatten().map(|(name, _)| name.as_str()));
        }
        for (name, value) in input["ExpressionAttributeValues"].as_object().into_iter().flatten() {
            let wrong = |error| invalid(format!("ExpressionAttributeValues contains invalid value: {error} for key {name}"));
            values.insert(name.as_str(), canonical(value).map_err(wrong)?);
        }
        Ok(Self { input, values, unused: RefCell::new(unused), any: Cell::new(false) })
    }

    pub(super) fn condition(&self, member: &str) -> Result<Option<Expression>, AwsError> {
        self.parse(member, |parser| parser.or())
    }

    pub(super) fn update(&self) -> Result<Option<Update>, AwsError> {
        self.parse("UpdateExpression", |parser| parser.update())
    }

    pub(super) fn projection(&self) -> Result<Option<Vec<Path>>, AwsError> {
        self.parse("ProjectionExpression", |parser| {
            let paths = parser.list(Parser::path)?;
            let overlap = paths.iter().enumerate().find_map(|(place, path)| path.overlap(&paths[..place]));
            overlap.map_or(Ok(paths), Err)
        })
    }

    /// Call it when all expressions are read: what none of them used is an error.
    pub(super) fn finish(self) -> Result<(), AwsError> {
        let unused = self.unused.into_inner();
        for (member, sign) in [("ExpressionAttributeNames", '#'), ("ExpressionAttributeValues", ':')] {
            let names = unused.iter().filter(|name| name.starts_with(sign)).copied().collect::<Vec<_>>().join(", ");
            if !names.is_empty() {
                return Err(invalid(match self.any.get() {
                    true => format!("Value provided in {member} unused in expressions: keys: {{{names}}}"),
                    false => format!("{member} can only be specified when using expressions"),
                }));
            }
        }
        Ok(())
    }

    fn parse<T>(&self, member: &str, rule: impl FnOnce(&mut Parser<'_, '_>) -> Result<T, String>) -> Result<Option<T>, AwsError> {
        let Some(text) = self.input[member].as_str() else { return Ok(None) };
        self.any.set(true);
        let mut parser =
            Parser { tokens: tokens(text), at: 0, group: (0, 0), updates: member == "UpdateExpression", scope: self };
        let parsed = match parser.tokens.is_empty() {
            true => Err("The expression can not be empty;".to_owned()),
            false => rule(&mut parser),
        };
        let whole = parsed.and_then(|parsed| if parser.peek().is_empty() { Ok(parsed) } else { Err(parser.syntax_error()) });
        whole.map(Some).map_err(|error| invalid(format!("Invalid {member}: {error}")))
    }
}

/// Names with their `#`, values with their `:`, keywords, numbers and signs.
fn tokens(text: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let in_word = |character: char| character.is_ascii_alphanumeric() || character == '_';
        let length = match first {
            _ if in_word(first) || "#:".contains(first) => rest[1..].find(|c| !in_word(c)).map_or(rest.len(), |end| end + 1),
            '<' | '>' if rest[1..].starts_with('=') || rest.starts_with("<>") => 2,
            _ => first.len_utf8(),
        };
        tokens.push(&rest[..length]);
        rest = rest[length..].trim_start();
    }
    tokens
}

/// The functions, whether they belong to updates, and their numbers of operands.
const FUNCTIONS: &[(&str, bool, usize)] = &[
    ("attribute_exists", false, 1),
    ("attribute_not_exists", false, 1),
    ("attribute_type", false, 2),
    ("begins_with", false, 2),
    ("contains", false, 2),
    ("if_not_exists", true, 2),
    ("list_append", true, 2),
    ("size", false, 1),
];

struct Parser<'a, 'b> {
    tokens: Vec<&'a str>,
    at: usize,
    /// Where the parentheses closed last stand.
    group: (usize, usize),
    updates: bool,
    scope: &'a Expressions<'b>,
}

impl<'a> Parser<'a, '_> {
    /// The next token; empty at the end.
    fn peek(&self) -> &'a str {
        self.tokens.get(self.at).copied().unwrap_or_default()
    }

    fn eat(&mut self, token: &str) -> bool {
        let found = self.peek().eq_ignore_ascii_case(token);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, token: &str) -> Result<(), String> {
        if self.eat(token) { Ok(()) } else { Err(self.syntax_error()) }
    }

    fn syntax_error(&self) -> String {
        let end = self.tokens.len();
        let near = self.tokens[self.at.saturating_sub(1).min(end)..(self.at + 2).min(end)].join(" ");
        format!("Syntax error; token: \"{}\", near: \"{near}\"", if self.at < end { self.peek() } else { "<EOF>" })
    }

    fn list<T>(&mut self, rule: fn(&mut Self) -> Result<T, String>) -> Result<Vec<T>, String> {
        let mut members = vec![rule(self)?];
        while self.eat(",") {
            members.push(rule(self)?);
        }
        Ok(members)
    }

    fn or(&mut self) -> Result<Expression, String> {
        self.joined("OR", |parser| parser.joined("AND", Self::not))
    }

    fn joined(&mut self, operator: &str, rule: fn(&mut Self) -> Result<Expression, String>) -> Result<Expression, String> {
        let mut left = rule(self)?;
        while self.eat(operator) {
            left = Expression::Call(operator.to_owned(), vec![left, rule(self)?]);
        }
        Ok(left)
    }

    fn not(&mut self) -> Result<Expression, String> {
        if self.eat("NOT") {
            return Ok(Expression::Call("NOT".into(), vec![self.not()?]));
        }
        let start = self.at;
        if !self.eat("(") {
            return self.test();
        }
        let inner = self.or()?;
        self.expect(")")?;
        if self.group == (start + 1, self.at - 1) {
            return Err("The expression has redundant parentheses;".into());
        }
        self.group = (start, self.at);
        Ok(inner)
    }

    fn test(&mut self) -> Result<Expression, String> {
        let mut operands = vec![self.operand()?];
        let operator = self.peek().to_uppercase();
        let start = self.at;
        self.at += 1;
        match operator.as_str() {
            "=" | "<>" | "<" | "<=" | ">" | ">=" => operands.push(self.operand()?),
            "BETWEEN" => {
                operands.push(self.operand()?);
                self.expect("AND")?;
                operands.push(self.operand()?);
            }
            "IN" => {
                self.expect("(")?;
                operands.extend(self.list(Self::operand)?);
                self.expect(")")?;
            }
            _ => {
                self.at = start;
                return match operands.pop() {
                    Some(Expression::Call(name, _)) if name == "size" => Err(misused(&name)),
                    Some(call @ Expression::Call(..)) => Ok(call),
                    _ => Err(self.syntax_error()),
                };
            }
        }
        call(&operator, operands)
    }

    fn operand(&mut self) -> Result<Expression, String> {
        let name = self.peek();
        if name.starts_with(':') {
            return self.value().map(Expression::Value);
        }
        if self.tokens.get(self.at + 1) != Some(&"(") {
            return self.path().map(Expression::Path);
        }
        self.at += 2;
        let operands = self.list(Self::operand)?;
        self.expect(")")?;
        match FUNCTIONS.iter().find(|(function, updates, _)| *function == name && *updates == self.updates) {
            None => Err(format!("Invalid function name; function: {name}")),
            Some((.., number)) if *number != operands.len() => Err(format!(
                "Incorrect number of operands for operator or function; operator or function: {name}, number of operands: {}",
                operands.len()
            )),
            Some(_) => call(name, operands),
        }
    }

    fn value(&mut self) -> Result<Value, String> {
        let name = self.peek();
        self.at += 1;
        self.scope.unused.borrow_mut().remove(name);
        let value = self.scope.values.get(name).cloned();
        value.ok_or_else(|| format!("An expression attribute value used in expression is not defined; attribute value: {name}"))
    }

    fn path(&mut self) -> Result<Path, String> {
        let mut steps = vec![self.name()?];
        loop {
            if self.eat(".") {
                steps.push(self.name()?);
            } else if self.eat("[") {
                steps.push(Step::Index(self.peek().parse().map_err(|_| self.syntax_error())?));
                self.at += 1;
                self.expect("]")?;
            } else {
                return Ok(Path(steps));
            }
        }
    }

    fn name(&mut self) -> Result<Step, String> {
        let name = self.peek();
        if name.starts_with('#') {
            self.at += 1;
            self.scope.unused.borrow_mut().remove(name);
            let found = self.scope.input["ExpressionAttributeNames"][name].as_str().map(str::to_owned);
            let missing = "An expression attribute name used in the document path is not defined; attribute name:";
            return found.map(Step::Name).ok_or_else(|| format!("{missing} {name}"));
        }
        if !name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_') {
            return Err(self.syntax_error());
        }
        if RESERVED.contains(name.to_uppercase().as_str()) {
            return Err(format!("Attribute name is a reserved keyword; reserved keyword: {name}"));
        }
        self.at += 1;
        Ok(Step::Name(name.to_owned()))
    }

    fn update(&mut self) -> Result<Update, String> {
        let mut actions: Vec<(String, Path, Option<Expression>)> = Vec::new();
        while !self.peek().is_empty() {
            let section = self.peek().to_uppercase();
            if actions.iter().any(|(earlier, ..)| *earlier == section) {
                return Err(format!("The \"{section}\" section can only be used once in an update expression;"));
            }
            let rule: fn(&mut Self) -> _ = match section.as_str() {
                "SET" => Self::set,
                "REMOVE" => |parser| Ok((parser.path()?, None)),
                "ADD" | "DELETE" => |parser| Ok((parser.path()?, Some(Expression::Value(parser.value()?)))),
                _ => return Err(self.syntax_error()),
            };
            self.at += 1;
            for (path, operand) in self.list(rule)? {
                match (section.as_str(), &operand) {
                    ("ADD", Some(Expression::Value(value))) if matches!(kind(value), "N" | "SS" | "NS" | "BS") => {}
                    ("DELETE", Some(Expression::Value(value))) if matches!(kind(value), "SS" | "NS" | "BS") => {}
                    ("ADD" | "DELETE", Some(Expression::Value(value))) => return Err(wrong_type("operator", &section, value)),
                    _ => {}
                }
                let others: Vec<_> = actions.iter().map(|(_, path, _)| path.clone()).collect();
                if let Some(error) = path.overlap(&others) {
                    return Err(error);
                }
                actions.push((section.clone(), path, operand));
            }
        }
        Ok(Update(actions))
    }

    fn set(&mut self) -> Result<(Path, Option<Expression>), String> {
        let path = self.path()?;
        self.expect("=")?;
        let left = self.operand()?;
        let sign = self.peek();
        if !self.eat("+") && !self.eat("-") {
            return Ok((path, Some(left)));
        }
        let right = self.operand()?;
        Ok((path, Some(call(sign, vec![left, right])?)))
    }
}

/// A call of what can be used so; refuses what can be told without an item.
fn call(name: &str, operands: Vec<Expression>) -> Result<Expression, String> {
    let needs_path = matches!(name, "attribute_exists" | "attribute_not_exists" | "if_not_exists");
    if needs_path && !matches!(operands[0], Expression::Path(_)) {
        return Err(format!("Operator or function requires a document path; operator or function: {name}"));
    }
    for operand in &operands {
        match (name, operand) {
            (_, Expression::Call(inner, _)) if !["size", "if_not_exists", "list_append"].contains(&inner.as_str()) => {
                return Err(misused(inner));
            }
            ("<" | "<=" | ">" | ">=" | "BETWEEN", Expression::Value(value)) if !matches!(kind(value), "S" | "N" | "B") => {
                return Err(wrong_type("operator", name, value));
            }
            ("begins_with", Expression::Value(value)) if !matches!(kind(value), "S" | "B") => {
                return Err(wrong_type("operator or function", name, value));
            }
            ("+" | "-", Expression::Value(value)) if kind(value) != "N" => {
                return Err(wrong_type("operator or function", name, value));
            }
            _ => {}
        }
    }
    if let ("BETWEEN", [_, Expression::Value(low), Expression::Value(high)]) = (name, &operands[..]) {
        let rule = match compare(low, high) {
            Some(Ordering::Less | Ordering::Equal) => return Ok(Expression::Call(name.to_owned(), operands)),
            Some(Ordering::Greater) => "upper bound to be greater than or equal to lower bound",
            None => "same data type for lower and upper bounds",
        };
        let shown = |value| format!("AttributeValue: {{{}:{}}}", kind(value), content(value).as_str().unwrap_or_default());
        let bounds = format!("lower bound operand: {}, upper bound operand: {}", shown(low), shown(high));
        return Err(format!("The BETWEEN operator requires {rule}; {bounds}"));
    }
    Ok(Expression::Call(name.to_owned(), operands))
}

fn misused(function: &str) -> String {
    format!("The function is not allowed to be used this way in an expression; function: {function}")
}

fn wrong_type(what: &str, name: &str, value: &Value) -> String {
    format!("Incorrect operand type for operator or function; {what}: {name}, operand type: {}", kind(value))
}

const NO_ATTRIBUTE: &str = "The provided expression refers to an attribute that does not exist in the item";
const WRONG_TYPE: &str = "An operand in the update expression has an incorrect data type";
const NO_PARENT: &str = "The document path provided in the update expression is invalid for update";

impl Expression {
    /// Whether the condition is true of an item; of one that does not exist, ask with an empty one.
    pub(super) fn holds(&self, item: &Map<String, Value>) -> bool {
        use Ordering::{Equal, Greater, Less};
        let Self::Call(name, operands) = self else { return false };
        match (name.as_str(), &operands[..]) {
            ("AND", [left, right]) => return left.holds(item) && right.holds(item),
            ("OR", [left, right]) => return left.holds(item) || right.holds(item),
            ("NOT", [inner]) => return !inner.holds(item),
            _ => {}
        }
        let values: Vec<_> = operands.iter().map(|operand| operand.value(item).ok().flatten()).collect();
        let Some(first) = values[0].as_deref() else { return matches!(name.as_str(), "attribute_not_exists" | "<>") };
        let ordered = |other: usize| compare(first, values[other].as_deref()?);
        let second = values.get(1).and_then(Option::as_deref);
        match name.as_str() {
            "attribute_exists" => true,
            "=" => second == Some(first),
            "<>" => second != Some(first),
            "IN" => values[1..].iter().any(|value| value.as_deref() == Some(first)),
            "<" => ordered(1) == Some(Less),
            "<=" => matches!(ordered(1), Some(Less | Equal)),
            ">" => ordered(1) == Some(Greater),
            ">=" => matches!(ordered(1), Some(Greater | Equal)),
            "BETWEEN" => matches!(ordered(1), Some(Greater | Equal)) && matches!(ordered(2), Some(Less | Equal)),
            "attribute_type" => second.is_some_and(|wanted| content(wanted) == kind(first)),
            "begins_with" => {
                Scalar::of(first).zip(second.and_then(Scalar::of)).is_some_and(|(text, start)| text.starts_with(&start))
            }
            "contains" => second.is_some_and(|part| contains(first, part)),
            _ => false,
        }
    }

    /// The attributes it looks at.
    pub(super) fn attributes(&self) -> Vec<&str> {
        match self {
            Self::Path(path) => vec![path.head()],
            Self::Value(_) => Vec::new(),
            Self::Call(_, operands) => operands.iter().flat_map(Self::attributes).collect(),
        }
    }

    /// A key condition as its tests.
    pub(super) fn key_tests(&self) -> Result<Vec<KeyTest<'_>>, String> {
        let Self::Call(name, operands) = self else { return Ok(Vec::new()) };
        let (operator, path, values) = match (name.as_str(), &operands[..]) {
            ("AND", [left, right]) => return Ok(left.key_tests()?.into_iter().chain(right.key_tests()?).collect()),
            ("<", [value @ Self::Value(_), path]) => (">", path, std::slice::from_ref(value)),
            ("<=", [value @ Self::Value(_), path]) => (">=", path, std::slice::from_ref(value)),
            (">", [value @ Self::Value(_), path]) => ("<", path, std::slice::from_ref(value)),
            (">=", [value @ Self::Value(_), path]) => ("<=", path, std::slice::from_ref(value)),
            ("=", [value @ Self::Value(_), path]) => ("=", path, std::slice::from_ref(value)),
            ("=" | "<" | "<=" | ">" | ">=" | "BETWEEN" | "begins_with", [path, values @ ..]) => (name.as_str(), path, values),
            _ => return Err(format!("Invalid operator used in KeyConditionExpression: {name}")),
        };
        let values = values.iter().map(|value| if let Self::Value(value) = value { Some(value) } else { None });
        match (path, values.collect::<Option<_>>()) {
            (Self::Path(Path(steps)), _) if steps.len() > 1 => {
                Err("KeyConditionExpressions cannot have conditions on nested attributes".into())
            }
            (Self::Path(path), Some(values)) => Ok(vec![KeyTest { attribute: path.head(), operator, values }]),
            (Self::Path(_), None) => {
                Err("Invalid condition in KeyConditionExpression: Multiple attribute names used in one condition".into())
            }
            _ => Err("Invalid condition in KeyConditionExpression: No key attribute specified".into()),
        }
    }

    fn value<'a>(&'a self, item: &'a Map<String, Value>) -> Result<Option<Cow<'a, Value>>, String> {
        let (name, operands) = match self {
            Self::Path(path) => return Ok(path.get(item).map(Cow::Borrowed)),
            Self::Value(value) => return Ok(Some(Cow::Borrowed(value))),
            Self::Call(name, operands) => (name.as_str(), operands),
        };
        let first = operands[0].value(item)?;
        match (name, first) {
            ("size", first) => {
                Ok(first.and_then(|value| length(&value)).map(|length| Cow::Owned(json!({ "N": length.to_string() }))))
            }
            ("if_not_exists", None) => operands[1].value(item),
            ("if_not_exists", first) => Ok(first),
            (_, first) => {
                let (first, second) = (first.ok_or(NO_ATTRIBUTE)?, operands[1].value(item)?.ok_or(NO_ATTRIBUTE)?);
                Ok(Some(Cow::Owned(combined(name, &first, &second)?)))
            }
        }
    }
}

fn contains(whole: &Value, part: &Value) -> bool {
    match (kind(whole), content(whole)) {
        ("L", Value::Array(members)) => members.contains(part),
        (set, Value::Array(members)) => set.strip_suffix('S') == Some(kind(part)) && members.contains(content(part)),
        ("S", Value::String(whole)) => kind(part) == "S" && content(part).as_str().is_some_and(|part| whole.contains(part)),
        _ => false,
    }
}

fn combined(name: &str, left: &Value, right: &Value) -> Result<Value, String> {
    match (name, Scalar::of(left), Scalar::of(right)) {
        ("+", Some(Scalar::N(a)), Some(Scalar::N(b))) => Ok(json!({ "N": a.plus(b)?.to_string() })),
        ("-", Some(Scalar::N(a)), Some(Scalar::N(b))) => Ok(json!({ "N": a.plus(b.negated())?.to_string() })),
        ("list_append", ..) if (kind(left), kind(right)) == ("L", "L") => {
            let members: Vec<_> = [left, right].into_iter().filter_map(|list| list["L"].as_array()).flatten().collect();
            Ok(json!({ "L": members }))
        }
        _ => Err(WRONG_TYPE.into()),
    }
}

impl Path {
    pub(super) fn head(&self) -> &str {
        match &self.0[..] {
            [Step::Name(name), ..] => name,
            _ => "",
        }
    }

    fn get<'a>(&self, item: &'a Map<String, Value>) -> Option<&'a Value> {
        self.0[1..].iter().try_fold(item.get(self.head())?, child)
    }

    fn overlap(&self, others: &[Self]) -> Option<String> {
        let other = others.iter().find(|other| self.0.iter().zip(&other.0).all(|(a, b)| a == b))?;
        let (one, two) = (other.shown(), self.shown());
        let message = "Two document paths overlap with each other; must remove or rewrite one of these paths";
        Some(format!("{message}; path one: {one}, path two: {two}"))
    }

    fn shown(&self) -> String {
        let step = |step: &Step| match step {
            Step::Name(name) => name.clone(),
            Step::Index(index) => format!("[{index}]"),
        };
        format!("[{}]", self.0.iter().map(step).collect::<Vec<_>>().join(", "))
    }
}

fn child<'a>(value: &'a Value, step: &Step) -> Option<&'a Value> {
    match step {
        Step::Name(name) => value["M"].get(name),
        Step::Index(index) => value["L"].get(index),
    }
}

/// The parts of the item at the paths; list elements close up.
pub(super) fn project<'a>(item: &Map<String, Value>, paths: impl IntoIterator<Item = &'a Path>) -> Map<String, Value> {
    let paths: Vec<_> = paths.into_iter().map(|path| &path.0[..]).collect();
    let picked = pick(&json!({ "M": item }), &paths);
    picked.and_then(|mut item| item["M"].as_object_mut().map(std::mem::take)).unwrap_or_default()
}

fn pick(value: &Value, paths: &[&[Step]]) -> Option<Value> {
    let firsts: BTreeSet<_> = paths.iter().filter_map(|path| path.first()).collect();
    if paths.iter().any(|path| path.is_empty()) {
        return Some(value.clone());
    }
    let (mut members, mut elements) = (Map::new(), Vec::new());
    for first in firsts {
        let rest: Vec<_> = paths.iter().filter(|path| path[0] == *first).map(|path| &path[1..]).collect();
        match (first, child(value, first).and_then(|child| pick(child, &rest))) {
            (Step::Name(name), Some(picked)) => _ = members.insert(name.clone(), picked),
            (Step::Index(_), Some(picked)) => elements.push(picked),
            _ => {}
        }
    }
    match (members.is_empty(), elements.is_empty()) {
        (true, true) => None,
        (false, _) => Some(json!({ "M": members })),
        _ => Some(json!({ "L": elements })),
    }
}

impl Update {
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().map(|(_, path, _)| path)
    }

    /// Operands and places mean the item as it was: removals come last, and from the ends of lists.
    pub(super) fn apply(&self, item: &mut Map<String, Value>) -> Result<(), String> {
        let mut actions = Vec::new();
        for (section, path, operand) in &self.0 {
            let operand = match operand {
                Some(operand) => operand.value(item)?.ok_or(NO_ATTRIBUTE)?.into_owned(),
                None => Value::Null,
            };
            actions.push((section == "REMOVE", section.as_str(), path, operand));
        }
        actions.sort_by(|(removes, _, a, _), (other, _, b, _)| {
            removes.cmp(other).then_with(|| if *removes { b.0.cmp(&a.0) } else { a.0.cmp(&b.0) })
        });
        let mut root = json!({ "M": std::mem::take(item) });
        for (_, section, path, operand) in actions {
            let (last, parents) = path.0.split_last().ok_or(NO_PARENT)?;
            let parent = parents.iter().try_fold(&mut root, |value, step| match step {
                Step::Name(name) => value.get_mut("M")?.get_mut(name),
                Step::Index(index) => value.get_mut("L")?.get_mut(index),
            });
            let parent = parent.ok_or(NO_PARENT)?;
            let new = match (section, child(parent, last)) {
                ("REMOVE", _) | ("DELETE", None) => None,
                ("SET", _) | (_, None) => Some(operand),
                (_, Some(old)) => changed(section, old, &operand)?,
            };
            put(parent, last, new)?;
        }
        *item = root["M"].as_object_mut().map(std::mem::take).unwrap_or_default();
        Ok(())
    }
}

/// What `ADD` or `DELETE` makes of a value.
fn changed(section: &str, old: &Value, operand: &Value) -> Result<Option<Value>, String> {
    if kind(old) != kind(operand) {
        return Err(WRONG_TYPE.into());
    }
    if kind(old) == "N" {
        return combined("+", old, operand).map(Some);
    }
    let (mut members, given): (BTreeSet<_>, BTreeSet<_>) = (strings(content(old)).collect(), strings(content(operand)).collect());
    match section {
        "ADD" => members.extend(given),
        _ => members.retain(|member| !given.contains(member)),
    }
    if members.is_empty() { Ok(None) } else { canonical(&json!({ kind(old): members })).map(Some) }
}

fn put(parent: &mut Value, step: &Step, new: Option<Value>) -> Result<(), String> {
    match step {
        Step::Name(name) => {
            let members = parent.get_mut("M").and_then(Value::as_object_mut).ok_or(NO_PARENT)?;
            match new {
                Some(new) => _ = members.insert(name.clone(), new),
                None => _ = members.remove(name),
            }
        }
        Step::Index(index) => {
            let members = parent.get_mut("L").and_then(Value::as_array_mut).ok_or(NO_PARENT)?;
            let here = *index..members.len().min(index.saturating_add(1)).max(*index);
            match here.end <= members.len() {
                true => _ = members.splice(here, new),
                false => members.extend(new),
            }
        }
    }
    Ok(())
}

/// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/ReservedWords.html>
static RESERVED: LazyLock<HashSet<&str>> = LazyLock::new(|| include_str!("reserved_words.txt").split_whitespace().collect());

#[cfg(test)]
mod tests {
    use super::*;

    /// A request with the expression, in which `#n` stands for `name`, and a value for what its own text says.
    fn input(member: &str, text: &str) -> Value {
        let mut input = json!({ member: text });
        for token in tokens(text).into_iter().filter(|token| token.starts_with([':', '#'])) {
            let value = match &token[1..] {
                "true" => json!({ "BOOL": true }),
                "list" => json!({ "L": [{ "S": "new" }] }),
                "map" => json!({ "M": { "k": { "S": "v" } } }),
                "ab" => json!({ "SS": ["a", "b"] }),
                text if text.starts_with(|first: char| first.is_ascii_digit()) => json!({ "N": text }),
                text => json!({ "S": text }),
            };
            match token.starts_with('#') {
                true => input["ExpressionAttributeNames"][token] = json!("name"),
                false => input["ExpressionAttributeValues"][token] = value,
            }
        }
        input
    }

    fn item() -> Map<String, Value> {
        let item = json!({
            "id": { "S": "one" }, "name": { "S": "n" }, "n": { "N": "7" }, "flag": { "BOOL": true }, "ss": { "SS": ["a", "b", "c"] },
            "ls": { "L": [{ "S": "zero" }, { "N": "1" }, { "M": { "k": { "S": "v" } } }] },
            "m": { "M": { "name": { "S": "deep" }, "l": { "L": [{ "N": "1" }] } } },
        });
        item.as_object().unwrap().clone()
    }

    fn holds(input: &Value) -> Result<bool, AwsError> {
        let expressions = Expressions::new(input)?;
        let condition = expressions.condition("ConditionExpression")?;
        expressions.finish()?;
        Ok(condition.is_some_and(|condition| condition.holds(&item())))
    }

    fn updated(text: &str) -> Result<Map<String, Value>, String> {
        let input = input("UpdateExpression", text);
        let update = Expressions::new(&input).and_then(|expressions| expressions.update()).map_err(|error| error.message)?;
        let mut item = item();
        update.unwrap().apply(&mut item).map(|()| item)
    }

    /// Lines of `expression => result`.
    fn cases(table: &str) -> impl Iterator<Item = (&str, &str)> {
        table.lines().filter_map(|line| line.trim().split_once(" => "))
    }

    #[test]
    fn conditions_hold_or_not() {
        let truths = "attribute_exists(id); attribute_not_exists(gone); attribute_not_exists(m.gone.k); attribute_exists(ls[2].k);
            attribute_exists(m.#n); attribute_type(flag, :BOOL); begins_with(id, :on); contains(id, :ne); contains(ss, :b);
            contains(ls, :1); contains(ls, :map); size(id) = :3; size(ls) >= :3; n = :7; n <> :8; gone <> :8; n < :10; n <= :7;
            n > :6; :6 < n; n BETWEEN :6 AND :10; n between :7 and :7; id IN (:x, :one); n = :7 AND id = :one; n = :0 OR id = :one;
            NOT n = :0; NOT (n = :7 AND id = :x); n = :7 OR n = :0 AND n = :1; (n = :0 OR id = :one) AND flag = :true;
            ((n = :7) AND (id = :one)); ls[1] = :1; m.l[0] = ls[1]; name_is_free <> id; m.#n = :deep";
        let falsehoods = "attribute_exists(gone); attribute_not_exists(id); attribute_exists(ls[3]); attribute_type(id, :N);
            begins_with(n, :s); begins_with(gone, :a); contains(ss, :z); contains(n, :7); size(n) = :1; size(gone) = :0; n = :seven;
            gone = :1; n < :7; n > :10; gone < :1; n < :one; n BETWEEN :8 AND :9; id IN (:x, :y); NOT n = :7; n = :7 AND id = :x";
        for (table, truth) in [(truths, true), (falsehoods, false)] {
            for text in table.split(';') {
                assert_eq!(holds(&input("ConditionExpression", text)), Ok(truth), "{text}");
            }
        }
    }

    #[test]
    fn what_aws_would_not_read_is_refused_with_its_words() {
        let table = r#"
            name = :x => Attribute name is a reserved keyword; reserved keyword: name
            m.Status = :x => Attribute name is a reserved keyword; reserved keyword: Status
            n = => Syntax error; token: "<EOF>", near: "="
            n = :7 id = :x => Syntax error; token: "id", near: ":7 id ="
            n == :7 => Syntax error; token: "=", near: "= = :7"
            n => Syntax error; token: "<EOF>", near: "n"
            ((n = :7)) => The expression has redundant parentheses;
            starts_with(id, :x) => Invalid function name; function: starts_with
            if_not_exists(id, :x) = :x => Invalid function name; function: if_not_exists
            size(id) => The function is not allowed to be used this way in an expression; function: size
            contains(id, :x) = :x => The function is not allowed to be used this way in an expression; function: contains
            contains(id) => Incorrect number of operands for operator or function; operator or function: contains, number of operands: 1
            attribute_exists(:x) => Operator or function requires a document path; operator or function: attribute_exists
            begins_with(id, :1) => Incorrect operand type for operator or function; operator or function: begins_with, operand type: N
            flag < :true => Incorrect operand type for operator or function; operator: <, operand type: BOOL
            n BETWEEN :9 AND :8 => The BETWEEN operator requires upper bound to be greater than or equal to lower bound; lower bound operand: AttributeValue: {N:9}, upper bound operand: AttributeValue: {N:8}"#;
        for (text, message) in cases(table) {
            let refused = invalid(format!("Invalid ConditionExpression: {message}"));
            assert_eq!(holds(&input("ConditionExpression", text)), Err(refused), "{text}");
        }
        let empty = "Invalid ConditionExpression: The expression can not be empty;";
        assert_eq!(holds(&input("ConditionExpression", " ")), Err(invalid(empty)));
    }

    #[test]
    fn every_name_and_value_must_be_defined_and_used() {
        let table = r##"
            { "ConditionExpression": "#a = :b" } => Invalid ConditionExpression: An expression attribute name used in the document path is not defined; attribute name: #a
            { "ConditionExpression": "a = :b" } => Invalid ConditionExpression: An expression attribute value used in expression is not defined; attribute value: :b
            { "ConditionExpression": "a = b", "ExpressionAttributeNames": { "#a": "a", "#b": "b" } } => Value provided in ExpressionAttributeNames unused in expressions: keys: {#a, #b}
            { "ConditionExpression": "a = b", "ExpressionAttributeValues": { ":a": { "S": "" } } } => Value provided in ExpressionAttributeValues unused in expressions: keys: {:a}
            { "ExpressionAttributeNames": { "#a": "a" } } => ExpressionAttributeNames can only be specified when using expressions
            { "ExpressionAttributeNames": {} } => ExpressionAttributeNames must not be empty
            { "ExpressionAttributeValues": { ":a": { "N": "x" } } } => ExpressionAttributeValues contains invalid value: The parameter cannot be converted to a numeric value: x for key :a"##;
        for (input, message) in cases(table) {
            assert_eq!(holds(&serde_json::from_str(input).unwrap()), Err(invalid(message)), "{input}");
        }
    }

    #[test]
    fn updates_change_what_they_name() {
        let table = r#"
            SET a = :x, m.#n = :y => {"a":{"S":"x"},"m":{"M":{"l":{"L":[{"N":"1"}]},"name":{"S":"y"}}}}
            SET n = n + :5 => {"n":{"N":"12"}}
            SET n = :5 - n => {"n":{"N":"-2"}}
            SET c = if_not_exists(c, :0) + :1, n = if_not_exists(n, :0) + :1 => {"c":{"N":"1"},"n":{"N":"8"}}
            SET ls = list_append(ls, :list) => {"ls":{"L":[{"S":"zero"},{"N":"1"},{"M":{"k":{"S":"v"}}},{"S":"new"}]}}
            SET a = list_append(if_not_exists(a, :list), :list) => {"a":{"L":[{"S":"new"},{"S":"new"}]}}
            SET ls[9] = :b, ls[8] = :a REMOVE ls[0], ls[1] => {"ls":{"L":[{"M":{"k":{"S":"v"}}},{"S":"a"},{"S":"b"}]}}
            SET ls[0] = :x REMOVE ls[7], m.l => {"ls":{"L":[{"S":"x"},{"N":"1"},{"M":{"k":{"S":"v"}}}]},"m":{"M":{"name":{"S":"deep"}}}}
            SET n = m.l[0], id = n REMOVE m => {"id":{"N":"7"},"m":null,"n":{"N":"1"}}
            ADD n :5, a :ab, ss :ab => {"a":{"SS":["a","b"]},"n":{"N":"12"}}
            set n = :1 remove id, gone add c :1 delete ss :ab => {"c":{"N":"1"},"id":null,"n":{"N":"1"},"ss":{"SS":["c"]}}
            DELETE gone :ab => {}"#;
        for (text, changed) in cases(table) {
            let (old, new) = (item(), updated(text).unwrap());
            let names: BTreeSet<_> = old.keys().chain(new.keys()).filter(|name| old.get(*name) != new.get(*name)).collect();
            let found: Map<_, _> =
                names.into_iter().map(|name| (name.clone(), new.get(name).cloned().unwrap_or_default())).collect();
            assert_eq!(Value::Object(found).to_string(), changed, "{text}");
        }
    }

    #[test]
    fn updates_that_cannot_be_done_are_refused() {
        let table = r#"
            SET a = gone + :1 => The provided expression refers to an attribute that does not exist in the item
            SET a = id + :1 => An operand in the update expression has an incorrect data type
            SET ls = list_append(ls, id) => An operand in the update expression has an incorrect data type
            ADD id :1 => An operand in the update expression has an incorrect data type
            DELETE ls :ab => An operand in the update expression has an incorrect data type
            SET gone.k = :x => The document path provided in the update expression is invalid for update
            SET id.k = :x => The document path provided in the update expression is invalid for update
            REMOVE ls.k => The document path provided in the update expression is invalid for update
            SET a = :1 SET b = :1 => Invalid UpdateExpression: The "SET" section can only be used once in an update expression;
            SET m = :1, m.k = :1 => Invalid UpdateExpression: Two document paths overlap with each other; must remove or rewrite one of these paths; path one: [m], path two: [m, k]
            SET a = :1 REMOVE a => Invalid UpdateExpression: Two document paths overlap with each other; must remove or rewrite one of these paths; path one: [a], path two: [a]
            ADD id :x => Invalid UpdateExpression: Incorrect operand type for operator or function; operator: ADD, operand type: S
            SET a = name => Invalid UpdateExpression: Attribute name is a reserved keyword; reserved keyword: name
            SET a = size(id) => Invalid UpdateExpression: Invalid function name; function: size
            SET a = if_not_exists(:1, :1) => Invalid UpdateExpression: Operator or function requires a document path; operator or function: if_not_exists
            SET a = :1 + :1 + :1 => Invalid UpdateExpression: Syntax error; token: "+", near: ":1 + :1"
            a = :1 => Invalid UpdateExpression: Syntax error; token: "a", near: "a =""#;
        for (text, message) in cases(table) {
            assert_eq!(updated(text), Err(message.to_owned()), "{text}");
        }
    }

    #[test]
    fn a_projection_keeps_the_shape_and_closes_lists_up() {
        let input = input("ProjectionExpression", "m.#n, ls[2].k, ls[0], gone, id");
        let paths = Expressions::new(&input).unwrap().projection().unwrap().unwrap();
        let list = json!({ "L": [{ "S": "zero" }, { "M": { "k": { "S": "v" } } }] });
        let picked = json!({ "id": { "S": "one" }, "m": { "M": { "name": { "S": "deep" } } }, "ls": list });
        assert_eq!(Value::Object(project(&item(), &paths)), picked);
    }
}
