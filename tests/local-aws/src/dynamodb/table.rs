//! How items lie in a table and in its indexes, and what time does to them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::{Bound, Deref};
use std::sync::Arc;

use serde_json::{Map, Value, json};
use time::{Duration, OffsetDateTime};

use super::expression::{Expression, KeyTest};
use super::value::{Scalar, canonical_item, content, item_size, kind};
use super::{EXPIRY_LAG, INDEX_LAG, invalid, list};
use crate::AwsError;

const MOST_ITEM_BYTES: usize = 400 * 1024;

pub(super) struct Table {
    pub(super) created: OffsetDateTime,
    pub(super) rows: Rows,
    pub(super) indexes: Vec<Index>,
    /// How long after a write the indexes show it.
    pub(super) lag: Duration,
    /// The customer's key that it is encrypted with.
    pub(super) kms_key: Option<String>,
    /// Writes that the indexes do not show yet: when they will, the item before, the item after.
    pending: VecDeque<(OffsetDateTime, Key, Option<Item>, Option<Item>)>,
    time_to_live: Option<String>,
    expiries: BTreeSet<(i64, Key)>,
}

pub(super) struct Index {
    pub(super) name: String,
    /// The attributes that it holds beside the keys; `None` for all.
    pub(super) projection: Option<BTreeSet<String>>,
    pub(super) rows: Rows,
}

/// Items by partition, and in it by place.
pub(super) struct Rows {
    pub(super) key: KeySchema,
    partitions: BTreeMap<Scalar, BTreeMap<Place, Item>>,
}

/// A place in a partition. In an index several items can share a sort key: the table's key breaks the tie.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    sort: Option<Scalar>,
    tie: Tie,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Tie {
    First,
    Row(Key),
    Last,
}

/// What a query reads: of one partition, the places between two.
pub(super) struct Selection {
    pub(super) partition: Scalar,
    pub(super) from: Bound<Place>,
    pub(super) to: Bound<Place>,
}

/// The names and types (`S`, `N`, `B`) of the key's attributes.
pub struct KeySchema {
    partition: (String, String),
    sort: Option<(String, String)>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    partition: Scalar,
    sort: Option<Scalar>,
}

/// Attributes by name, shared between a table and its indexes.
#[derive(Clone)]
pub(super) struct Item(Arc<Map<String, Value>>);

impl Item {
    pub(super) fn new(attributes: Map<String, Value>) -> Self {
        Self(Arc::new(attributes))
    }
}

impl Deref for Item {
    type Target = Map<String, Value>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Table {
    pub(super) fn new(created: OffsetDateTime, key: KeySchema, indexes: Vec<Index>) -> Self {
        let (rows, pending, expiries) = (Rows::new(key), VecDeque::new(), BTreeSet::new());
        Self { created, rows, indexes, lag: INDEX_LAG, kms_key: None, pending, time_to_live: None, expiries }
    }

    /// Lets happen what time has brought: items expire, and indexes learn of writes.
    pub(super) fn settle(&mut self, now: OffsetDateTime) {
        let deadline = (now - EXPIRY_LAG).unix_timestamp();
        while let Some((_, key)) = self.expiries.first().filter(|(expiry, _)| *expiry <= deadline).cloned() {
            self.store(now, &key, None);
        }
        while let Some((_, key, old, new)) = self.pending.pop_front_if(|(due, ..)| *due <= now) {
            for index in &mut self.indexes {
                index.follow(&self.rows.key, &key, old.as_ref(), new.as_ref());
            }
        }
    }

    /// Puts the item there, or nothing, and answers what was there.
    pub(super) fn store(&mut self, now: OffsetDateTime, key: &Key, new: Option<Item>) -> Option<Item> {
        let old = self.rows.set(&key.partition, key.place(key.sort.clone()), new.clone());
        if let Some(expiry) = old.as_ref().and_then(|item| self.expiry(item)) {
            self.expiries.remove(&(expiry, key.clone()));
        }
        // AWS takes what expired more than five years ago for a mistake.
        let oldest = (now - Duration::days(5 * 365)).unix_timestamp();
        let expiry = new.as_ref().and_then(|item| self.expiry(item)).filter(|expiry| *expiry > oldest);
        self.expiries.extend(expiry.map(|expiry| (expiry, key.clone())));
        if !self.indexes.is_empty() {
            self.pending.push_back((now + self.lag, key.clone(), old.clone(), new));
        }
        old
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Item> {
        self.rows.partitions.get(&key.partition)?.get(&key.place(key.sort.clone()))
    }

    /// Answers whether it was otherwise.
    pub(super) fn set_time_to_live(&mut self, attribute: Option<&str>) -> bool {
        let changes = self.time_to_live.is_some() != attribute.is_some();
        self.time_to_live = attribute.map(str::to_owned);
        let expiring = self.rows.all().filter_map(|item| Some((self.expiry(item)?, self.rows.key.of_item(item)?)));
        self.expiries = expiring.collect();
        changes
    }

    fn expiry(&self, item: &Item) -> Option<i64> {
        item.get(self.time_to_live.as_ref()?)?["N"].as_str()?.split('.').next()?.parse().ok()
    }

    /// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html>
    pub(super) fn check(&self, item: &Map<String, Value>, too_large: &str) -> Result<(), AwsError> {
        for index in &self.indexes {
            for (name, wanted) in index.rows.key.pairs() {
                let Some(value) = item.get(name) else { continue };
                let (actual, of_index) = (kind(value), format!("IndexName: {}", index.name));
                if actual != wanted {
                    let what = format!("Type mismatch for Index Key {name} Expected: {wanted} Actual: {actual}");
                    return Err(invalid(format!("One or more parameter values were invalid: {what} {of_index}")));
                }
                if content(value) == "" {
                    let what = "A value specified for a secondary index key is not supported";
                    return Err(invalid(format!(
                        "One or more parameter values are not valid. {what}. {EMPTY_KEY} {of_index}, IndexKey: {name}"
                    )));
                }
            }
        }
        if item_size(item) > MOST_ITEM_BYTES { Err(invalid(too_large)) } else { Ok(()) }
    }

    /// What a query or a scan reads: the table's own rows, or an index's.
    pub(super) fn rows_of(&self, input: &Value) -> Result<&Rows, AwsError> {
        let Some(name) = input["IndexName"].as_str() else { return Ok(&self.rows) };
        let index = self.indexes.iter().find(|index| index.name == name);
        let index = index.ok_or_else(|| invalid(format!("The table does not have the specified index: {name}")))?;
        if input["ConsistentRead"] == true {
            return Err(invalid("Consistent reads are not supported on global secondary indexes"));
        }
        if input["Select"] == "ALL_ATTRIBUTES" && index.projection.is_some() {
            let what = format!("Select type ALL_ATTRIBUTES is not supported for global secondary index {name}");
            return Err(invalid(format!(
                "One or more parameter values were invalid: {what} because its projection type is not ALL"
            )));
        }
        Ok(&index.rows)
    }

    /// Where the request goes on: after the item with the key that ended the last page.
    pub(super) fn start(&self, rows: &Rows, input: &Value) -> Result<Option<(Scalar, Place)>, AwsError> {
        let Some(start) = input["ExclusiveStartKey"].as_object() else { return Ok(None) };
        let names: BTreeSet<_> = self.rows.key.names().chain(rows.key.names()).collect();
        let place = self.rows.key.of_item(start).and_then(|key| rows.place(start, &key));
        match place.filter(|_| start.len() == names.len()) {
            None => Err(invalid("The provided starting key is invalid")),
            place => Ok(place),
        }
    }
}

impl Index {
    fn follow(&mut self, table_key: &KeySchema, key: &Key, old: Option<&Item>, new: Option<&Item>) {
        if let Some((partition, place)) = old.and_then(|old| self.rows.place(old, key)) {
            self.rows.set(&partition, place, None);
        }
        let Some((new, (partition, place))) = new.and_then(|new| Some((new, self.rows.place(new, key)?))) else { return };
        let kept = |name: &str, names: &BTreeSet<String>| {
            names.contains(name) || self.rows.key.names().chain(table_key.names()).any(|key| key == name)
        };
        let item = match &self.projection {
            None => new.clone(),
            Some(names) => {
                let attributes = new.iter().filter(|(name, _)| kept(name, names));
                Item::new(attributes.map(|(name, value)| (name.clone(), value.clone())).collect())
            }
        };
        self.rows.set(&partition, place, Some(item));
    }
}

impl Rows {
    pub(super) fn new(key: KeySchema) -> Self {
        Self { key, partitions: BTreeMap::new() }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Item> {
        self.partitions.values().flat_map(BTreeMap::values)
    }

    /// All items after a place, partition by partition.
    pub(super) fn after(&self, start: Option<&(Scalar, Place)>) -> impl Iterator<Item = &Item> {
        let first = start.map_or(Bound::Unbounded, |(partition, _)| Bound::Included(partition));
        self.partitions.range((first, Bound::Unbounded)).flat_map(move |(partition, rows)| {
            let begun = start.filter(|(started, _)| started == partition);
            let first = begun.map_or(Bound::Unbounded, |(_, place)| Bound::Excluded(place));
            rows.range((first, Bound::Unbounded)).map(|(_, item)| item)
        })
    }

    pub(super) fn range(&self, selection: Selection) -> impl DoubleEndedIterator<Item = &Item> {
        let Selection { partition, from, to } = selection;
        let in_order = match (&from, &to) {
            (Bound::Included(low) | Bound::Excluded(low), Bound::Included(high) | Bound::Excluded(high)) => low < high,
            _ => true,
        };
        let rows = self.partitions.get(&partition).filter(|_| in_order);
        rows.map(|rows| rows.range((from, to))).into_iter().flatten().map(|(_, item)| item)
    }

    /// Where these rows have the item, if they have it: an index leaves out what lacks its key.
    fn place(&self, item: &Map<String, Value>, row: &Key) -> Option<(Scalar, Place)> {
        let key = self.key.of_item(item)?;
        Some((key.partition, row.place(key.sort)))
    }

    fn set(&mut self, partition: &Scalar, place: Place, new: Option<Item>) -> Option<Item> {
        if let Some(item) = new {
            return self.partitions.entry(partition.clone()).or_default().insert(place, item);
        }
        let rows = self.partitions.get_mut(partition)?;
        let old = rows.remove(&place);
        if rows.is_empty() {
            self.partitions.remove(partition);
        }
        old
    }
}

impl Key {
    fn place(&self, sort: Option<Scalar>) -> Place {
        Place { sort, tie: Tie::Row(self.clone()) }
    }
}

const EMPTY_KEY: &str = "The AttributeValue for a key attribute cannot contain an empty string value.";

impl KeySchema {
    pub fn new(partition: (&str, &str), sort: Option<(&str, &str)>) -> Self {
        let owned = |(name, kind): (&str, &str)| (name.to_owned(), kind.to_owned());
        Self { partition: owned(partition), sort: sort.map(owned) }
    }

    pub(super) fn parse(described: &Value, definitions: &Value) -> Result<Self, AwsError> {
        let attribute = |role: &str| {
            let name = list(&described["KeySchema"]).find(|element| element["KeyType"] == role)?["AttributeName"].as_str()?;
            let kind = list(definitions).find(|definition| definition["AttributeName"] == name)?["AttributeType"].as_str()?;
            Some((name.to_owned(), kind.to_owned()))
        };
        match (attribute("HASH"), attribute("RANGE")) {
            (Some(partition), sort) if list(&described["KeySchema"]).count() == 1 + usize::from(sort.is_some()) => {
                Ok(Self { partition, sort })
            }
            _ => Err(invalid("Invalid KeySchema: Some index key attribute have no definition")),
        }
    }

    pub(super) fn shown(&self) -> Value {
        let element = |(name, role)| json!({ "AttributeName": name, "KeyType": role });
        self.names().zip(["HASH", "RANGE"]).map(element).collect()
    }

    pub(super) fn pairs(&self) -> impl Iterator<Item = &(String, String)> {
        std::iter::once(&self.partition).chain(&self.sort)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.pairs().map(|(name, _)| name.as_str())
    }

    /// The key that an item has, if it has all of it and in the right types.
    pub(super) fn of_item(&self, item: &Map<String, Value>) -> Option<Key> {
        let scalar =
            |(name, wanted): &(String, String)| item.get(name).filter(|value| kind(value) == wanted).and_then(Scalar::of);
        let sort = match &self.sort {
            Some(sort) => Some(scalar(sort)?),
            None => None,
        };
        Some(Key { partition: scalar(&self.partition)?, sort })
    }

    /// The key in a request that names an item by it, and its attributes.
    pub(super) fn of_request(&self, key: &Value) -> Result<(Key, Map<String, Value>), AwsError> {
        let attributes = canonical_item(key).map_err(invalid)?;
        match self.of_item(&attributes).filter(|_| attributes.len() == self.pairs().count()) {
            Some(key) => self.check(&attributes).map(|()| (key, attributes)),
            None => Err(invalid("The provided key element does not match the schema")),
        }
    }

    /// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html>
    pub(super) fn check(&self, item: &Map<String, Value>) -> Result<(), AwsError> {
        for (name, most) in self.names().zip([2048, 1024]) {
            let size = content(&item[name]).as_str().map_or(0, str::len);
            if size == 0 {
                return Err(invalid(format!("One or more parameter values are not valid. {EMPTY_KEY} Key: {name}")));
            }
            if size > most {
                let what = match most {
                    2048 => "Size of hashkey has exceeded the maximum size limit of2048 bytes",
                    _ => "Aggregated size of all range keys has exceeded the size limit of 1024 bytes",
                };
                return Err(invalid(format!("One or more parameter values were invalid: {what}")));
            }
        }
        Ok(())
    }

    /// What a key condition selects.
    pub(super) fn select(&self, condition: &Expression) -> Result<Selection, AwsError> {
        let tests = condition.key_tests().map_err(invalid)?;
        let test = |name: &str| tests.iter().find(|test| test.attribute == name);
        let typed = |value: &Value, wanted: &str| {
            let message = "One or more parameter values were invalid: Condition parameter type does not match schema type";
            Scalar::of(value).filter(|_| kind(value) == wanted).ok_or_else(|| invalid(message))
        };
        let missed = |name: &str| Err(invalid(format!("Query condition missed key schema element: {name}")));
        let partition = match test(&self.partition.0) {
            Some(KeyTest { operator: "=", values, .. }) => typed(values[0], &self.partition.1)?,
            Some(_) => return Err(invalid("Query key condition not supported")),
            None => return missed(&self.partition.0),
        };
        let sort = self.sort.as_ref().and_then(|(name, wanted)| Some((test(name)?, wanted)));
        let (KeyTest { operator, values, .. }, wanted) = match (sort, tests.len(), &self.sort) {
            (_, 3.., _) => return Err(invalid("KeyConditionExpressions must only contain one condition per key")),
            (Some(sort), ..) => sort,
            (None, 1, _) => return Ok(Selection { partition, from: Bound::Unbounded, to: Bound::Unbounded }),
            (_, _, Some((name, _))) => return missed(name),
            _ => return Err(invalid("Query key condition not supported")),
        };
        let value = typed(values[0], wanted)?;
        let before = |value: &Scalar| Bound::Included(Place { sort: Some(value.clone()), tie: Tie::First });
        let after = |value: &Scalar| Bound::Included(Place { sort: Some(value.clone()), tie: Tie::Last });
        let (from, to) = match *operator {
            "=" => (before(&value), after(&value)),
            "<" => (Bound::Unbounded, before(&value)),
            "<=" => (Bound::Unbounded, after(&value)),
            ">" => (after(&value), Bound::Unbounded),
            ">=" => (before(&value), Bound::Unbounded),
            "BETWEEN" => (before(&value), after(&typed(values[1], wanted)?)),
            _ => (before(&value), value.after_prefix().map_or(Bound::Unbounded, |end| before(&end))),
        };
        Ok(Selection { partition, from, to })
    }
}
