//! Attribute values, kept as they stand on the wire: `{"S": "…"}`. Numbers and sets take one form as they arrive, so that equal
//! values are equal JSON.
//! <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/HowItWorks.NamingRulesDataTypes.html>

use std::cmp::Ordering;
use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value, json};

pub(super) fn canonical(value: &Value) -> Result<Value, String> {
    let members = value.as_object().into_iter().flatten().collect::<Vec<_>>();
    let [(kind, content)] = members[..] else {
        let wrong = if members.is_empty() { "is empty" } else { "has more than one datatypes set" };
        return Err(format!("Supplied AttributeValue {wrong}, must contain exactly one of the supported datatypes"));
    };
    let content = match (kind.as_str(), content) {
        ("S", Value::String(_)) | ("BOOL", Value::Bool(_)) | ("NULL", Value::Bool(true)) => content.clone(),
        ("B", Value::String(text)) => json!(BASE64_STANDARD.encode(decoded(text)?)),
        ("N", Value::String(text)) => json!(text.parse::<Number>()?.to_string()),
        ("SS" | "NS" | "BS", Value::Array(members)) => canonical_set(kind, members)?,
        ("L", Value::Array(members)) => members.iter().map(canonical).collect::<Result<Vec<_>, _>>()?.into(),
        ("M", Value::Object(_)) => canonical_item(content)?.into(),
        ("NULL", _) => return Err(invalid("Null attribute value types must have the value of true")),
        _ => return Err(format!("Unexpected value for the type {kind}")),
    };
    Ok(json!({ kind: content }))
}

/// The attributes of an item, or of a map.
pub(super) fn canonical_item(item: &Value) -> Result<Map<String, Value>, String> {
    let attributes = item.as_object().into_iter().flatten();
    attributes.map(|(name, value)| Ok((name.clone(), canonical(value)?))).collect()
}

fn canonical_set(kind: &str, members: &[Value]) -> Result<Value, String> {
    let mut members = members.iter().map(|member| canonical(&json!({ &kind[..1]: member }))).collect::<Result<Vec<_>, _>>()?;
    members.sort_by(|a, b| compare(a, b).unwrap_or(Ordering::Equal));
    let contents: Vec<_> = members.iter().map(|member| content(member).clone()).collect();
    match contents.windows(2).any(|pair| pair[0] == pair[1]) {
        _ if contents.is_empty() => Err(invalid("An string set  may not be empty")),
        true => Err(invalid("Input collection contains duplicates.")),
        false => Ok(contents.into()),
    }
}

/// `S`, `N`, `BOOL` …
pub(super) fn kind(value: &Value) -> &str {
    value.as_object().and_then(|members| members.keys().next()).map_or("", String::as_str)
}

pub(super) fn content(value: &Value) -> &Value {
    &value[kind(value)]
}

/// The order of two strings, numbers or binaries.
pub(super) fn compare(a: &Value, b: &Value) -> Option<Ordering> {
    let (a, b) = (Scalar::of(a)?, Scalar::of(b)?);
    (std::mem::discriminant(&a) == std::mem::discriminant(&b)).then(|| a.cmp(&b))
}

/// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/CapacityUnitCalculations.html>
pub(super) fn item_size(item: &Map<String, Value>) -> usize {
    item.iter().map(|(name, value)| name.len() + size(value)).sum()
}

fn size(value: &Value) -> usize {
    match (kind(value), content(value)) {
        ("N" | "NS", content) => strings(content).map(|text| text.trim_matches(['0', '.', '-']).len().div_ceil(2) + 1).sum(),
        ("B" | "BS", content) => strings(content).map(binary_length).sum(),
        ("L", Value::Array(members)) => 3 + members.iter().map(|member| 1 + size(member)).sum::<usize>(),
        ("M", Value::Object(members)) => 3 + members.len() + item_size(members),
        (_, Value::Bool(_)) => 1,
        (_, content) => strings(content).map(str::len).sum(),
    }
}

/// What the function `size` of expressions says.
pub(super) fn length(value: &Value) -> Option<usize> {
    match (kind(value), content(value)) {
        ("S", Value::String(text)) => Some(text.chars().count()),
        ("B", Value::String(text)) => Some(binary_length(text)),
        (_, Value::Array(members)) => Some(members.len()),
        (_, Value::Object(members)) => Some(members.len()),
        _ => None,
    }
}

fn binary_length(base64: &str) -> usize {
    base64.len() / 4 * 3 - base64.bytes().rev().take_while(|byte| *byte == b'=').count()
}

/// The string itself, or those of the list.
pub(super) fn strings(content: &Value) -> impl Iterator<Item = &str> {
    let members = content.as_array().into_iter().flatten();
    std::iter::once(content).chain(members).filter_map(Value::as_str)
}

/// What can be a key and be compared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Scalar {
    B(Vec<u8>),
    N(Number),
    S(Vec<u8>),
}

impl Scalar {
    pub(super) fn of(value: &Value) -> Option<Self> {
        let text = content(value).as_str()?;
        match kind(value) {
            "B" => Some(Self::B(decoded(text).ok()?)),
            "N" => Some(Self::N(text.parse().ok()?)),
            _ => Some(Self::S(text.into())),
        }
    }

    pub(super) fn starts_with(&self, prefix: &Self) -> bool {
        match (self, prefix) {
            (Self::S(text), Self::S(prefix)) | (Self::B(text), Self::B(prefix)) => text.starts_with(prefix),
            _ => false,
        }
    }

    /// The first value after all that start with this one.
    pub(super) fn after_prefix(&self) -> Option<Self> {
        let (Self::S(bytes) | Self::B(bytes)) = self else { return None };
        let end = bytes.iter().rposition(|byte| *byte < u8::MAX)?;
        let mut bytes = bytes[..=end].to_vec();
        bytes[end] += 1;
        Some(if matches!(self, Self::S(_)) { Self::S(bytes) } else { Self::B(bytes) })
    }
}

/// A decimal of up to 38 digits, kept so that the derived order is the numeric one: the mantissa always has 38 digits, and `scale`
/// is the power of ten of the first, negative for negative numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Number {
    sign: i32,
    scale: i32,
    mantissa: i128,
}

const TOO_LONG: &str = "Attempting to store more than 38 significant digits in a Number";

impl Number {
    /// `coefficient × 10^exponent`
    fn new(coefficient: i128, exponent: i32) -> Result<Self, String> {
        let (coefficient, exponent) = without_zeros(coefficient, exponent);
        let digits = coefficient.unsigned_abs().checked_ilog10().map_or(0, |log| log + 1);
        let zeros = 38_u32.checked_sub(digits).ok_or(TOO_LONG)?;
        let sign = coefficient.signum() as i32;
        match exponent + digits as i32 - 1 {
            _ if sign == 0 => Ok(Self { sign, scale: 0, mantissa: 0 }),
            126.. => Err("Number overflow. Attempting to store a number with magnitude larger than supported range".into()),
            ..-130 => Err("Number underflow. Attempting to store a number with magnitude smaller than supported range".into()),
            scale => Ok(Self { sign, scale: sign * scale, mantissa: coefficient * 10_i128.pow(zeros) }),
        }
    }

    /// Coefficient and exponent again.
    fn parts(self) -> (i128, i32) {
        without_zeros(self.mantissa, self.sign * self.scale - 37)
    }

    pub(super) fn plus(self, other: Self) -> Result<Self, String> {
        let ((a, a_exponent), (b, b_exponent)) = (self.parts(), other.parts());
        let exponent = match (a, b) {
            (0, _) => return Ok(other),
            (_, 0) => return Ok(self),
            _ => a_exponent.min(b_exponent),
        };
        let aligned = |coefficient: i128, from: i32| 10_i128.checked_pow(from.abs_diff(exponent))?.checked_mul(coefficient);
        let sum = aligned(a, a_exponent).zip(aligned(b, b_exponent)).and_then(|(a, b)| a.checked_add(b));
        Self::new(sum.ok_or(TOO_LONG)?, exponent)
    }

    pub(super) fn negated(self) -> Self {
        Self { sign: -self.sign, scale: -self.scale, mantissa: -self.mantissa }
    }
}

fn without_zeros(mut coefficient: i128, mut exponent: i32) -> (i128, i32) {
    while coefficient != 0 && coefficient % 10 == 0 {
        (coefficient, exponent) = (coefficient / 10, exponent + 1);
    }
    (coefficient, if coefficient == 0 { 0 } else { exponent })
}

impl std::str::FromStr for Number {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unreadable = || format!("The parameter cannot be converted to a numeric value: {text}");
        let (mantissa, power) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = format!("{}{fraction}", whole.strip_prefix(['-', '+']).unwrap_or(whole));
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(unreadable());
        }
        let significant = digits.trim_end_matches('0');
        let exponent = power.parse::<i16>().map_err(|_| unreadable())?;
        let exponent = i32::from(exponent) + (digits.len() - significant.len()) as i32 - fraction.len() as i32;
        let coefficient = format!("0{significant}").parse::<i128>().map_err(|_| TOO_LONG)?;
        Self::new(if whole.starts_with('-') { -coefficient } else { coefficient }, exponent)
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (coefficient, exponent) = self.parts();
        let (sign, digits) = (if self.sign < 0 { "-" } else { "" }, coefficient.unsigned_abs().to_string());
        let shift = exponent.unsigned_abs() as usize;
        if exponent >= 0 {
            return write!(f, "{sign}{digits}{}", "0".repeat(shift));
        }
        let digits = format!("{digits:0>width$}", width = shift + 1);
        let (whole, fraction) = digits.split_at(digits.len() - shift);
        write!(f, "{sign}{whole}.{fraction}")
    }
}

fn decoded(text: &str) -> Result<Vec<u8>, String> {
    BASE64_STANDARD.decode(text).map_err(|error| error.to_string())
}

fn invalid(what: &str) -> String {
    format!("One or more parameter values were invalid: {what}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Number {
        text.parse().unwrap()
    }

    #[test]
    fn numbers_take_one_form_and_compare_by_value() {
        let rising = "-9.9e40 -990, -12 -12, -1.50 -1.5, -0 0, 1e-4 0.0001, 0.0010 0.001, .5 0.5, 9 9, 1E1 10, 010.01 10.01,
            12345678901234567890123456789012345677.0 12345678901234567890123456789012345677,
            12345678901234567890123456789012345678 12345678901234567890123456789012345678,
            1e38 100000000000000000000000000000000000000";
        let rising = rising.replace("-990", &format!("-99{}", "0".repeat(39)));
        let rising: Vec<_> = rising.split(',').map(|pair| pair.trim().split_once(' ').unwrap()).collect();
        for (text, shown) in &rising {
            assert_eq!(number(text).to_string(), *shown);
        }
        assert!(rising.windows(2).all(|pair| number(pair[0].0) < number(pair[1].0)));
        for text in ["", "x", "1.2.3", "1e", "--1", "0x1", "1e126", "1e-131", "123456789012345678901234567890123456789"] {
            assert!(text.parse::<Number>().is_err(), "{text}");
        }
    }

    #[test]
    fn sums_are_exact_or_refused() {
        let long = "99999999999999999999999999999999999999";
        let cases =
            [("0.1", "0.2", "0.3"), ("-5", "5", "0"), ("1e20", "-1e-10", "99999999999999999999.9999999999"), (long, "1", "1e38")];
        for (a, b, sum) in cases {
            assert_eq!(number(a).plus(number(b)), Ok(number(sum)));
        }
        assert!(number("1e38").plus(number("1e-1")).is_err());
    }

    #[test]
    fn a_value_has_one_type_and_sets_have_no_order_and_no_doubles() {
        assert_eq!(canonical(&json!({ "NS": ["10", "9.0", "-1"] })), Ok(json!({ "NS": ["-1", "9", "10"] })));
        let wrong = json!([{}, { "S": "a", "N": "1" }, { "SS": [] }, { "NS": ["1", "1.0"] }, { "NULL": false }, { "N": 1 }, { "L": [{}] }]);
        assert!(wrong.as_array().unwrap().iter().all(|value| canonical(value).is_err()));
    }
}
