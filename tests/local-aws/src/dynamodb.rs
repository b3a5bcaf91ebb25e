//! Amazon DynamoDB: conditional writes, transactions, and global secondary indexes that follow a moment later.
//! <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/Welcome.html>

mod expression;
mod table;
mod value;

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use serde_json::{Map, Value, json};
use time::{Duration, OffsetDateTime};

use self::expression::{Expression, Expressions, Update, project};
pub use self::table::KeySchema;

use self::table::{Index, Item, Key, Rows, Table};
use self::value::{canonical_item, item_size, kind};
use crate::{AwsError, World};

/// How long after a write the indexes usually show it.
pub const INDEX_LAG: Duration = Duration::milliseconds(300);
/// How long an expired item is still there. AWS says: within a few days.
pub const EXPIRY_LAG: Duration = Duration::hours(6);
const TOKEN_MEMORY: Duration = Duration::minutes(10);

const MOST_PAGE_BYTES: usize = 1024 * 1024;
const MOST_BATCH_BYTES: usize = 16 * 1024 * 1024;

#[derive(Default)]
pub struct DynamoDb {
    tables: BTreeMap<String, Table>,
    /// The requests of finished transactions that had a token, the oldest first.
    transactions: VecDeque<(OffsetDateTime, Value)>,
}

/// One write, ready to be judged and done.
struct Write {
    table: String,
    key: Key,
    change: Change,
    condition: Option<Expression>,
    /// Whether a failed condition tells the item that it met.
    shows_item: bool,
}

enum Change {
    Put(Item),
    Update { key: Map<String, Value>, update: Option<Update> },
    Delete,
    Check,
}

impl DynamoDb {
    /// Makes a table, empty, in the place of one with that name; its indexes hold all attributes.
    pub fn create_table(&mut self, now: OffsetDateTime, name: &str, key: KeySchema, indexes: Vec<(&str, KeySchema)>) {
        let index = |(name, key): (&str, _)| Index { name: name.to_owned(), projection: None, rows: Rows::new(key) };
        self.tables.insert(name.to_owned(), Table::new(now, key, indexes.into_iter().map(index).collect()));
    }

    /// From now on the indexes show writes so long after them.
    pub fn set_index_lag(&mut self, lag: Duration) {
        self.tables.values_mut().for_each(|table| table.lag = lag);
    }

    /// Every item of every table, with the table's name.
    pub fn items(&self) -> impl Iterator<Item = (&str, &Map<String, Value>)> {
        self.tables.iter().flat_map(|(name, table)| table.rows.all().map(|item| (name.as_str(), &**item)))
    }

    pub(crate) fn encrypt(&mut self, table: &str, kms_key: Option<&str>) {
        self.tables.entry(table.to_owned()).and_modify(|table| table.kms_key = kms_key.map(str::to_owned));
    }

    /// The customer's key that a table is encrypted with.
    pub(crate) fn kms_key(&self, table: &str) -> Option<&str> {
        self.tables.get(table)?.kms_key.as_deref()
    }

    /// The table that the input names, as it is by now.
    fn table(&mut self, now: OffsetDateTime, input: &Value) -> Result<&mut Table, AwsError> {
        let missing = || AwsError::new("ResourceNotFoundException", "Requested resource not found");
        let table = self.tables.get_mut(table_name(input)).ok_or_else(missing)?;
        table.settle(now);
        Ok(table)
    }
}

pub fn call(world: &mut World, now: OffsetDateTime, operation: &str, input: &Value) -> Result<Value, AwsError> {
    // What expressions have replaced, and what nothing here needs.
    let legacy = "AttributesToGet AttributeUpdates ConditionalOperator Expected KeyConditions QueryFilter ScanFilter Segment";
    if let Some(member) = legacy.split(' ').find(|member| input.get(member).is_some()) {
        return Err(invalid(format!("Local AWS does not answer {operation} with {member}")));
    }
    let dynamodb = &mut world.dynamodb;
    match operation {
        "BatchGetItem" => batch_get(dynamodb, now, input),
        "BatchWriteItem" => batch_write(dynamodb, now, input),
        "CreateTable" => create_table(world, now, input),
        "DeleteItem" => write(dynamodb, now, "Delete", input),
        "DeleteTable" => {
            let description = described(world, now, input)?;
            world.dynamodb.tables.remove(table_name(input));
            Ok(json!({ "TableDescription": description }))
        }
        "DescribeTable" => Ok(json!({ "Table": described(world, now, input)? })),
        "GetItem" => get(dynamodb, now, input),
        "ListTables" => Ok(json!({ "TableNames": dynamodb.tables.keys().collect::<Vec<_>>() })),
        "PutItem" => write(dynamodb, now, "Put", input),
        "Query" => query(dynamodb, now, input),
        "Scan" => scan(dynamodb, now, input),
        "TransactGetItems" => {
            let answers: Result<Vec<_>, _> = list(&input["TransactItems"]).map(|one| get(dynamodb, now, &one["Get"])).collect();
            Ok(json!({ "Responses": answers? }))
        }
        "TransactWriteItems" => transact_write(dynamodb, now, input),
        "UpdateItem" => write(dynamodb, now, "Update", input),
        "UpdateTimeToLive" => {
            let asked = &input["TimeToLiveSpecification"];
            let attribute = asked["AttributeName"].as_str().filter(|_| asked["Enabled"] == true);
            match dynamodb.table(now, input)?.set_time_to_live(attribute) {
                true => Ok(json!({ "TimeToLiveSpecification": asked })),
                false => Err(invalid(format!("TimeToLive is already {}", attribute.map_or("disabled", |_| "enabled")))),
            }
        }
        _ => Err(AwsError::unknown_operation("dynamodb", operation)),
    }
}

fn get(dynamodb: &mut DynamoDb, now: OffsetDateTime, input: &Value) -> Result<Value, AwsError> {
    let table = dynamodb.table(now, input)?;
    let (key, _) = table.rows.key.of_request(&input["Key"])?;
    let expressions = Expressions::new(input)?;
    let paths = expressions.projection()?;
    expressions.finish()?;
    let item = table.get(&key).map(|item| paths.map_or_else(|| (**item).clone(), |paths| project(item, &paths)));
    Ok(without_nulls(json!({ "Item": item })))
}

fn batch_get(dynamodb: &mut DynamoDb, now: OffsetDateTime, input: &Value) -> Result<Value, AwsError> {
    let mut requests = Vec::new();
    for (table, request) in input["RequestItems"].as_object().into_iter().flatten() {
        let mut one = request.clone();
        one["TableName"] = json!(table);
        for mut key in one["Keys"].take().as_array_mut().into_iter().flat_map(std::mem::take) {
            one["Key"] = key.take();
            requests.push(one.clone());
        }
    }
    let keys: Vec<_> = requests.iter().map(|one| (&one["TableName"], &one["Key"])).collect();
    check_batch("BatchGetItem", &keys, 100)?;
    let (mut found, mut left, mut bytes) = (json!({}), json!({}), 0);
    for one in &requests {
        let (table, mut answer) = (table_name(one), get(dynamodb, now, one)?);
        bytes += answer["Item"].as_object().map_or(0, item_size);
        let request = &input["RequestItems"][table];
        if found[table].is_null() {
            found[table] = json!([]);
        }
        if bytes > MOST_BATCH_BYTES && left[table].is_null() {
            left[table] = request.clone();
            left[table]["Keys"] = json!([]);
        }
        let (list, member) = if bytes > MOST_BATCH_BYTES {
            (&mut left[table]["Keys"], one["Key"].clone())
        } else {
            (&mut found[table], answer["Item"].take())
        };
        list.as_array_mut().into_iter().for_each(|list| list.extend(Some(&member).filter(|member| !member.is_null()).cloned()));
    }
    Ok(json!({ "Responses": found, "UnprocessedKeys": left }))
}

fn batch_write(dynamodb: &mut DynamoDb, now: OffsetDateTime, input: &Value) -> Result<Value, AwsError> {
    let mut writes = Vec::new();
    for (name, requests) in input["RequestItems"].as_object().into_iter().flatten() {
        for request in list(requests) {
            let kind = if request.get("PutRequest").is_some() { "Put" } else { "Delete" };
            let mut one = request[format!("{kind}Request")].clone();
            one["TableName"] = json!(name);
            let table = dynamodb.table(now, &one)?;
            if one.get("Key").is_none() && !table.rows.key.names().all(|key| one["Item"].get(key).is_some()) {
                return Err(invalid("The provided key element does not match the schema"));
            }
            writes.push(Write::parse(table, kind, &one)?);
        }
    }
    check_batch("BatchWriteItem", &writes.iter().map(|write| (&write.table, &write.key)).collect::<Vec<_>>(), 25)?;
    for write in &writes {
        write.store(dynamodb, now, if let Change::Put(item) = &write.change { Some(item.clone()) } else { None });
    }
    Ok(json!({ "UnprocessedItems": {} }))
}

fn check_batch<T: PartialEq>(operation: &str, requests: &[T], most: usize) -> Result<(), AwsError> {
    if requests.is_empty() {
        return Err(constraint("requestItems", "length greater than or equal to 1"));
    }
    if requests.len() > most {
        return Err(invalid(format!("Too many items requested for the {operation} call")));
    }
    match requests.iter().enumerate().any(|(place, request)| requests[..place].contains(request)) {
        true => Err(invalid("Provided list of item keys contains duplicates")),
        false => Ok(()),
    }
}

/// `PutItem`, `UpdateItem` and `DeleteItem`.
fn write(dynamodb: &mut DynamoDb, now: OffsetDateTime, kind: &str, input: &Value) -> Result<Value, AwsError> {
    let returns = input["ReturnValues"].as_str().unwrap_or("NONE");
    if kind != "Update" && !["NONE", "ALL_OLD"].contains(&returns) {
        return Err(invalid("ReturnValues can only be ALL_OLD or NONE"));
    }
    let table = dynamodb.table(now, input)?;
    let write = Write::parse(table, kind, input)?;
    let new = write.outcome(table)?;
    let old = table.store(now, &write.key, new.clone());
    let item = if returns.ends_with("OLD") { old } else { new };
    let attributes = match (returns, item, &write.change) {
        ("ALL_OLD" | "ALL_NEW", Some(item), _) => Some((*item).clone()),
        ("UPDATED_OLD" | "UPDATED_NEW", Some(item), Change::Update { update: Some(update), .. }) => {
            Some(project(&item, update.paths()))
        }
        _ => None,
    };
    Ok(without_nulls(json!({ "Attributes": attributes.filter(|attributes| !attributes.is_empty()) })))
}

/// <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_TransactWriteItems.html>
fn transact_write(dynamodb: &mut DynamoDb, now: OffsetDateTime, input: &Value) -> Result<Value, AwsError> {
    while dynamodb.transactions.pop_front_if(|(when, _)| *when + TOKEN_MEMORY <= now).is_some() {}
    let token = input["ClientRequestToken"].as_str();
    let earlier = dynamodb.transactions.iter().find(|(_, earlier)| earlier["ClientRequestToken"].as_str() == token);
    if let Some((_, earlier)) = earlier {
        let message = "The request has been rejected because it was retried with a different payload.";
        return if earlier == input {
            Ok(json!({}))
        } else {
            Err(AwsError::new("IdempotentParameterMismatchException", message))
        };
    }
    let mut writes: Vec<Write> = Vec::new();
    for request in list(&input["TransactItems"]) {
        for (kind, one) in request.as_object().into_iter().flatten() {
            let write = Write::parse(dynamodb.table(now, one)?, kind, one)?;
            if writes.iter().any(|other| (&other.table, &other.key) == (&write.table, &write.key)) {
                return Err(invalid("Transaction request cannot include multiple operations on one item"));
            }
            writes.push(write);
        }
    }
    if !(1..=100).contains(&writes.len()) {
        return Err(constraint("transactItems", "length between 1 and 100"));
    }
    let outcomes: Vec<_> = writes.iter().map(|write| write.outcome(&dynamodb.tables[&write.table])).collect();
    if outcomes.iter().any(Result::is_err) {
        return Err(cancelled(&outcomes));
    }
    for (write, new) in writes.iter().zip(outcomes) {
        write.store(dynamodb, now, new?);
    }
    if token.is_some() {
        dynamodb.transactions.push_back((now, input.clone()));
    }
    Ok(json!({}))
}

fn cancelled(outcomes: &[Result<Option<Item>, AwsError>]) -> AwsError {
    let reason = |outcome: &Result<_, AwsError>| match outcome {
        Ok(_) => json!({ "Code": "None" }),
        Err(error) => {
            let code = if error.code == CONDITION_FAILED { "ConditionalCheckFailed" } else { "ValidationError" };
            without_nulls(json!({ "Code": code, "Message": error.message, "Item": error.members.get("Item") }))
        }
    };
    let reasons: Vec<_> = outcomes.iter().map(reason).collect();
    let codes: Vec<_> = reasons.iter().filter_map(|reason| reason["Code"].as_str()).collect();
    let codes = codes.join(", ");
    let message = format!("Transaction cancelled, please refer cancellation reasons for specific reasons [{codes}]");
    AwsError::new("TransactionCanceledException", message).with("CancellationReasons", json!(reasons))
}

fn query(dynamodb: &mut DynamoDb, now: OffsetDateTime, input: &Value) -> Result<Value, AwsError> {
    let table = dynamodb.table(now, input)?;
    let expressions = Expressions::new(input)?;
    let Some(condition) = expressions.condition("KeyConditionExpression")? else {
        let message = "Either the KeyConditions or KeyConditionExpression parameter must be specified in the request.";
        return Err(invalid(message));
    };
    let rows = table.rows_of(input)?;
    let mut selection = rows.key.select(&condition)?;
    let backward = input["ScanIndexForward"] == false;
    if let Some((partition, start)) = table.start(rows, input)? {
        if partition != selection.partition {
            return Err(invalid("The provided starting key is outside query boundaries based on provided conditions"));
        }
        *(if backward { &mut selection.to } else { &mut selection.from }) = Bound::Excluded(start);
    }
    let found = rows.range(selection);
    match backward {
        true => page(table, rows, found.rev(), expressions, input),
        false => page(table, rows, found, expressions, input),
    }
}

fn scan(dynamodb: &mut DynamoDb, now: OffsetDateTime, input: &Value) -> Result<Value, AwsError> {
    let table = dynamodb.table(now, input)?;
    let rows = table.rows_of(input)?;
    let start = table.start(rows, input)?;
    page(table, rows, rows.after(start.as_ref()), Expressions::new(input)?, input)
}

/// One page of what a query or a scan looks at; the filter comes after, and makes no page longer.
fn page<'a>(
    table: &Table,
    rows: &Rows,
    items: impl Iterator<Item = &'a Item>,
    expressions: Expressions<'_>,
    input: &Value,
) -> Result<Value, AwsError> {
    let (filter, paths) = (expressions.condition("FilterExpression")?, expressions.projection()?);
    expressions.finish()?;
    let filtered = filter.as_ref().map(Expression::attributes).unwrap_or_default();
    let key = rows.key.names().find(|name| filtered.contains(name) && input.get("KeyConditionExpression").is_some());
    if let Some(key) = key {
        let message = "Filter Expression can only contain non-primary key attributes: Primary key attribute:";
        return Err(invalid(format!("{message} {key}")));
    }
    let limit = match input.get("Limit").map(Value::as_u64) {
        None => usize::MAX,
        Some(Some(limit @ 1..)) => limit as usize,
        Some(_) => return Err(constraint("limit", "value greater than or equal to 1")),
    };
    let (mut found, mut scanned, mut bytes, mut last) = (Vec::new(), 0, 0, None);
    for item in items {
        scanned += 1;
        bytes += item_size(item);
        if filter.as_ref().is_none_or(|filter| filter.holds(item)) {
            found.push(paths.as_ref().map_or_else(|| (**item).clone(), |paths| project(item, paths)));
        }
        if scanned == limit || bytes >= MOST_PAGE_BYTES {
            let names = table.rows.key.names().chain(rows.key.names());
            last = Some(names.map(|name| (name.to_owned(), item[name].clone())).collect::<Map<_, _>>());
            break;
        }
    }
    let count = found.len();
    let items = Some(found).filter(|_| input["Select"] != "COUNT");
    Ok(without_nulls(json!({ "Items": items, "Count": count, "ScannedCount": scanned, "LastEvaluatedKey": last })))
}

/// Takes the properties of `AWS::DynamoDB::Table` too.
fn create_table(world: &mut World, now: OffsetDateTime, input: &Value) -> Result<Value, AwsError> {
    let name = table_name(input);
    let in_name = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    if !(3..=255).contains(&name.len()) || !name.bytes().all(in_name) {
        return Err(invalid("TableName must be at least 3 characters long and at most 255 characters long"));
    }
    if world.dynamodb.tables.contains_key(name) {
        return Err(AwsError::new("ResourceInUseException", format!("Table already exists: {name}")));
    }
    if input.get("LocalSecondaryIndexes").is_some() {
        return Err(invalid("Local AWS has no local secondary indexes"));
    }
    let key = |described| KeySchema::parse(described, &input["AttributeDefinitions"]);
    let mut indexes = Vec::new();
    for index in list(&input["GlobalSecondaryIndexes"]) {
        let included = list(&index["Projection"]["NonKeyAttributes"]).filter_map(Value::as_str).map(str::to_owned);
        let projection = Some(included.collect()).filter(|_| index["Projection"]["ProjectionType"] != "ALL");
        let name = index["IndexName"].as_str().unwrap_or_default().to_owned();
        indexes.push(Index { name, projection, rows: Rows::new(key(index)?) });
    }
    let mut table = Table::new(now, key(input)?, indexes);
    let time_to_live = &input["TimeToLiveSpecification"];
    table.kms_key = kms_key(input).map(str::to_owned);
    table.set_time_to_live(time_to_live["AttributeName"].as_str().filter(|_| time_to_live["Enabled"] == true));
    world.dynamodb.tables.insert(name.to_owned(), table);
    Ok(json!({ "TableDescription": described(world, now, input)? }))
}

/// The customer's key of a table's properties.
pub(crate) fn kms_key(table: &Value) -> Option<&str> {
    table["SSESpecification"]["KMSMasterKeyId"].as_str()
}

fn described(world: &mut World, now: OffsetDateTime, input: &Value) -> Result<Value, AwsError> {
    let name = table_name(input);
    let arn = world.arn("dynamodb", &format!("table/{name}"));
    let table = world.dynamodb.table(now, input).map_err(|error| {
        let message = format!("{}: Table: {name} not found", error.message);
        AwsError { message, ..error }
    })?;
    let all_rows = std::iter::once(&table.rows).chain(table.indexes.iter().map(|index| &index.rows));
    let attributes: BTreeMap<_, _> = all_rows.flat_map(|rows| rows.key.pairs()).map(|(name, kind)| (name, kind)).collect();
    let definition = |(name, kind)| json!({ "AttributeName": name, "AttributeType": kind });
    let index = |index: &Index| {
        let projection = match &index.projection {
            None => json!({ "ProjectionType": "ALL" }),
            Some(names) if names.is_empty() => json!({ "ProjectionType": "KEYS_ONLY" }),
            Some(names) => json!({ "ProjectionType": "INCLUDE", "NonKeyAttributes": names }),
        };
        json!({
            "IndexName": index.name, "IndexArn": format!("{arn}/index/{}", index.name), "IndexStatus": "ACTIVE",
            "KeySchema": index.rows.key.shown(), "Projection": projection,
        })
    };
    let indexes: Vec<_> = table.indexes.iter().map(index).collect();
    Ok(without_nulls(json!({
        "TableName": name, "TableArn": arn, "TableStatus": "ACTIVE", "KeySchema": table.rows.key.shown(),
        "AttributeDefinitions": attributes.into_iter().map(definition).collect::<Vec<_>>(),
        "GlobalSecondaryIndexes": Some(indexes).filter(|indexes| !indexes.is_empty()),
        "BillingModeSummary": { "BillingMode": "PAY_PER_REQUEST" }, "ItemCount": table.rows.all().count(),
        "CreationDateTime": (table.created.unix_timestamp_nanos() / 1_000_000) as f64 / 1000.0,
    })))
}

impl Write {
    fn parse(table: &Table, kind_of_write: &str, input: &Value) -> Result<Self, AwsError> {
        let expressions = Expressions::new(input)?;
        let schema = &table.rows.key;
        let wrong = |what: String| invalid(format!("One or more parameter values were invalid: {what}"));
        let (key, change) = match kind_of_write {
            "Put" => {
                let item = canonical_item(&input["Item"]).map_err(invalid)?;
                for (name, wanted) in schema.pairs() {
                    match item.get(name).map(kind) {
                        None => return Err(wrong(format!("Missing the key {name} in the item"))),
                        Some(actual) if actual == wanted => {}
                        Some(actual) => {
                            return Err(wrong(format!("Type mismatch for key {name} expected: {wanted} actual: {actual}")));
                        }
                    }
                }
                schema.check(&item)?;
                table.check(&item, "Item size has exceeded the maximum allowed size")?;
                (schema.of_item(&item), Change::Put(Item::new(item)))
            }
            "Update" => {
                let update = expressions.update()?;
                let mut paths = update.as_ref().map(Update::paths).into_iter().flatten();
                if let Some(path) = paths.find(|path| schema.names().any(|name| name == path.head())) {
                    return Err(wrong(format!("Cannot update attribute {}. This attribute is part of the key", path.head())));
                }
                drop(paths);
                let (key, attributes) = schema.of_request(&input["Key"])?;
                (Some(key), Change::Update { key: attributes, update })
            }
            "Delete" => (Some(schema.of_request(&input["Key"])?.0), Change::Delete),
            "ConditionCheck" => (Some(schema.of_request(&input["Key"])?.0), Change::Check),
            _ => return Err(invalid("TransactItems can only contain one of Check, Put, Update or Delete")),
        };
        let condition = expressions.condition("ConditionExpression")?;
        expressions.finish()?;
        let key = key.ok_or_else(|| invalid("The provided key element does not match the schema"))?;
        let shows_item = input["ReturnValuesOnConditionCheckFailure"] == "ALL_OLD";
        Ok(Self { table: table_name(input).to_owned(), key, change, condition, shows_item })
    }

    /// The item as the write leaves it, or why the write fails.
    fn outcome(&self, table: &Table) -> Result<Option<Item>, AwsError> {
        let (old, nothing) = (table.get(&self.key), Map::new());
        if self.condition.as_ref().is_some_and(|condition| !condition.holds(old.map_or(&nothing, |item| item))) {
            let failed = AwsError::new(CONDITION_FAILED, "The conditional request failed");
            return Err(match old.filter(|_| self.shows_item) {
                Some(item) => failed.with("Item", json!(**item)),
                None => failed,
            });
        }
        match &self.change {
            Change::Put(item) => Ok(Some(item.clone())),
            Change::Update { key, update } => {
                let mut item = old.map_or_else(|| key.clone(), |item| (**item).clone());
                update.iter().try_for_each(|update| update.apply(&mut item)).map_err(invalid)?;
                table.check(&item, "Item size to update has exceeded the maximum allowed size")?;
                Ok(Some(Item::new(item)))
            }
            Change::Delete => Ok(None),
            Change::Check => Ok(old.cloned()),
        }
    }

    fn store(&self, dynamodb: &mut DynamoDb, now: OffsetDateTime, new: Option<Item>) {
        if let Some(table) = dynamodb.tables.get_mut(&self.table) {
            table.store(now, &self.key, new);
        }
    }
}

const CONDITION_FAILED: &str = "ConditionalCheckFailedException";

/// A table can be named by its ARN too.
fn table_name(input: &Value) -> &str {
    let name = input["TableName"].as_str().unwrap_or_default();
    name.rsplit_once(":table/").map_or(name, |(_, name)| name)
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn without_nulls(mut answer: Value) -> Value {
    if let Some(members) = answer.as_object_mut() {
        members.retain(|_, value| !value.is_null());
    }
    answer
}

fn invalid(message: impl Into<String>) -> AwsError {
    AwsError::new("ValidationException", message)
}

fn constraint(member: &str, rule: &str) -> AwsError {
    invalid(format!("1 validation error detected: Value at '{member}' failed to satisfy constraint: Member must have {rule}"))
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    /// With a table `records` whose items live in the partition `a`, and an index of those that are due.
    struct Account {
        world: World,
        now: OffsetDateTime,
    }

    impl Account {
        fn new() -> Self {
            let mut world = World::new("111122223333", "eu-central-1");
            let now = datetime!(2026-03-01 10:00 UTC);
            let key = |hash: &str, range: &str| json!([{ "AttributeName": hash, "KeyType": "HASH" }, { "AttributeName": range, "KeyType": "RANGE" }]);
            let types = [("pk", "S"), ("sk", "N"), ("lane", "S"), ("due", "N")];
            let input = json!({
                "TableName": "records", "KeySchema": key("pk", "sk"), "TimeToLiveSpecification": { "AttributeName": "expires", "Enabled": true },
                "AttributeDefinitions": types.map(|(name, kind)| json!({ "AttributeName": name, "AttributeType": kind })),
                "GlobalSecondaryIndexes": [{
                    "IndexName": "due", "KeySchema": key("lane", "due"),
                    "Projection": { "ProjectionType": "INCLUDE", "NonKeyAttributes": ["kept"] },
                }],
            });
            call(&mut world, now, "CreateTable", &input).unwrap();
            Self { world, now }
        }

        fn ask(&mut self, operation: &str, mut input: Value) -> Result<Value, AwsError> {
            input["TableName"] = json!("records");
            call(&mut self.world, self.now, operation, &input)
        }

        /// Puts the item with this sort key and what else is given.
        fn put(&mut self, sk: u32, more: Value) {
            self.ask("PutItem", json!({ "Item": item(sk, more) })).unwrap();
        }

        fn get(&mut self, sk: u32) -> Option<Value> {
            self.ask("GetItem", json!({ "Key": key(sk) })).unwrap().get("Item").cloned()
        }

        /// The sort keys that a query or a scan finds on all its pages of two.
        fn found(&mut self, operation: &str, mut input: Value) -> Vec<u32> {
            input["Limit"] = json!(2);
            let mut found = Vec::new();
            loop {
                let page = self.ask(operation, input.clone()).unwrap();
                assert!(list(&page["Items"]).count() <= 2);
                found.extend(list(&page["Items"]).map(|item| item["sk"]["N"].as_str().unwrap().parse::<u32>().unwrap()));
                match page.get("LastEvaluatedKey") {
                    Some(last) => input["ExclusiveStartKey"] = last.clone(),
                    None => return found,
                }
            }
        }

        fn due(&mut self) -> Vec<u32> {
            self.found("Query", on_index())
        }
    }

    fn on_index() -> Value {
        json!({ "IndexName": "due", "KeyConditionExpression": "lane = :a", "ExpressionAttributeValues": { ":a": { "S": "a" } } })
    }

    fn key(sk: u32) -> Value {
        json!({ "pk": { "S": "a" }, "sk": { "N": sk.to_string() } })
    }

    fn item(sk: u32, more: Value) -> Value {
        let mut item = key(sk);
        item.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        item
    }

    fn due(when: u32) -> Value {
        json!({ "lane": { "S": "a" }, "due": { "N": when.to_string() } })
    }

    fn add_one(sk: u32) -> Value {
        json!({ "Key": key(sk), "UpdateExpression": "ADD v :v", "ExpressionAttributeValues": { ":v": { "N": "1" } } })
    }

    #[test]
    fn a_write_happens_only_under_its_condition() {
        let mut account = Account::new();
        let mut new = json!({ "Item": item(1, json!({ "v": { "N": "1" } })), "ConditionExpression": "attribute_not_exists(pk)" });
        account.ask("PutItem", new.clone()).unwrap();
        assert_eq!(account.ask("PutItem", new.clone()), Err(AwsError::new(CONDITION_FAILED, "The conditional request failed")));
        new["ReturnValuesOnConditionCheckFailure"] = json!("ALL_OLD");
        assert_eq!(account.ask("PutItem", new).unwrap_err().members["Item"]["v"], json!({ "N": "1" }));
        let mut update = add_one(1);
        update["ConditionExpression"] = json!("v = :v");
        account.ask("UpdateItem", update.clone()).unwrap();
        assert_eq!(account.ask("UpdateItem", update.clone()).unwrap_err().code, CONDITION_FAILED);
        assert_eq!(account.ask("DeleteItem", update).unwrap_err().code, CONDITION_FAILED);
        assert_eq!(account.get(1), Some(item(1, json!({ "v": { "N": "2" } }))));
    }

    #[test]
    fn a_write_returns_the_values_asked_for() {
        let old = json!({ "a": { "N": "1" }, "m": { "M": { "x": { "N": "1" }, "y": { "N": "2" } } }, "z": { "N": "3" } });
        let new = json!({ "a": { "N": "8" }, "m": { "M": { "x": { "N": "7" }, "y": { "N": "2" } } } });
        let cases = [
            ("ALL_OLD", item(1, old.clone())),
            ("UPDATED_OLD", json!({ "a": { "N": "1" }, "m": { "M": { "x": { "N": "1" } } }, "z": { "N": "3" } })),
            ("UPDATED_NEW", json!({ "a": { "N": "8" }, "m": { "M": { "x": { "N": "7" } } } })),
            ("ALL_NEW", item(1, new)),
        ];
        for (returns, attributes) in cases {
            let mut account = Account::new();
            account.put(1, old.clone());
            let mut input =
                json!({ "Key": key(1), "UpdateExpression": "SET m.x = :v REMOVE z ADD a :v", "ReturnValues": returns });
            input["ExpressionAttributeValues"] = json!({ ":v": { "N": "7" } });
            assert_eq!(account.ask("UpdateItem", input), Ok(json!({ "Attributes": attributes })), "{returns}");
        }
        let mut account = Account::new();
        assert_eq!(account.ask("UpdateItem", json!({ "Key": key(1) })), Ok(json!({})));
        for answer in [json!({ "Attributes": key(1) }), json!({})] {
            assert_eq!(account.ask("DeleteItem", json!({ "Key": key(1), "ReturnValues": "ALL_OLD" })), Ok(answer));
        }
    }

    #[test]
    fn what_does_not_fit_the_table_is_refused() {
        let table = r#"
            PutItem {"Item":{"pk":{"S":"a"}}} => One or more parameter values were invalid: Missing the key sk in the item
            PutItem {"Item":{"pk":{"N":"1"},"sk":{"N":"1"}}} => One or more parameter values were invalid: Type mismatch for key pk expected: S actual: N
            PutItem {"Item":{"pk":{"S":""},"sk":{"N":"1"}}} => One or more parameter values are not valid. The AttributeValue for a key attribute cannot contain an empty string value. Key: pk
            PutItem {"Item":{"pk":{"S":"a"},"sk":{"N":"1"},"due":{"S":"x"}}} => One or more parameter values were invalid: Type mismatch for Index Key due Expected: N Actual: S IndexName: due
            PutItem {"Item":{"pk":{"S":"a"},"sk":{"N":"1"},"lane":{"S":""}}} => One or more parameter values are not valid. A value specified for a secondary index key is not supported. The AttributeValue for a key attribute cannot contain an empty string value. IndexName: due, IndexKey: lane
            PutItem {"Item":{"pk":{"S":"a"},"sk":{"N":"1"}},"ReturnValues":"ALL_NEW"} => ReturnValues can only be ALL_OLD or NONE
            GetItem {"Key":{"pk":{"S":"a"}}} => The provided key element does not match the schema
            GetItem {"Key":{"pk":{"S":"a"},"sk":{"S":"1"}}} => The provided key element does not match the schema
            DeleteItem {"Key":{"pk":{"S":"a"},"sk":{"N":"1"},"x":{"N":"1"}}} => The provided key element does not match the schema
            UpdateItem {"Key":{"pk":{"S":"a"},"sk":{"N":"1"}},"UpdateExpression":"REMOVE sk"} => One or more parameter values were invalid: Cannot update attribute sk. This attribute is part of the key
            Query {"IndexName":"due","ConsistentRead":true,"KeyConditionExpression":"lane = :a","ExpressionAttributeValues":{":a":{"S":"a"}}} => Consistent reads are not supported on global secondary indexes
            Query {"IndexName":"none","KeyConditionExpression":"lane = :a","ExpressionAttributeValues":{":a":{"S":"a"}}} => The table does not have the specified index: none
            Scan {"Limit":0} => 1 validation error detected: Value at 'limit' failed to satisfy constraint: Member must have value greater than or equal to 1
            Scan {"AttributesToGet":["v"]} => Local AWS does not answer Scan with AttributesToGet"#;
        let mut account = Account::new();
        for (asked, message) in table.lines().filter_map(|line| line.trim().split_once(" => ")) {
            let (operation, input) = asked.split_once(' ').unwrap();
            assert_eq!(account.ask(operation, serde_json::from_str(input).unwrap()), Err(invalid(message)), "{asked}");
        }
        let large = json!({ "Item": item(1, json!({ "v": { "S": "x".repeat(400 * 1024) } })) });
        assert_eq!(account.ask("PutItem", large), Err(invalid("Item size has exceeded the maximum allowed size")));
        let missing = call(&mut account.world, account.now, "GetItem", &json!({ "TableName": "none", "Key": key(1) }));
        assert_eq!(missing, Err(AwsError::new("ResourceNotFoundException", "Requested resource not found")));
        assert_eq!(account.world.dynamodb.items().count(), 0);
    }

    #[test]
    fn each_index_of_a_template_is_queried_by_its_own_key_and_holds_what_has_it() {
        let mut account = Account::new();
        let element = |name: &str, role: &str| json!({ "AttributeName": name, "KeyType": role });
        let index = |name: &str, keys: Value| json!({ "IndexName": name, "KeySchema": keys, "Projection": { "ProjectionType": "KEYS_ONLY" } });
        let names = ["id", "kind", "due", "serial", "holder"];
        let definitions =
            names.map(|name| json!({ "AttributeName": name, "AttributeType": if name == "due" { "N" } else { "S" } }));
        let input = json!({
            "TableName": "stack-Records-1", "BillingMode": "PAY_PER_REQUEST", "KeySchema": [element("id", "HASH")],
            "AttributeDefinitions": definitions,
            "GlobalSecondaryIndexes": [
                index("by-due", json!([element("kind", "HASH"), element("due", "RANGE")])),
                index("by-serial", json!([element("serial", "HASH")])),
                index("by-holder", json!([element("holder", "HASH"), element("serial", "RANGE")])),
            ],
        });
        call(&mut account.world, account.now, "CreateTable", &input).unwrap();
        let rows = [
            json!({ "id": { "S": "1" }, "kind": { "S": "leaf" }, "due": { "N": "9" }, "serial": { "S": "aa" }, "holder": { "S": "x" }, "more": { "S": "y" } }),
            json!({ "id": { "S": "2" }, "kind": { "S": "leaf" }, "due": { "N": "10" }, "holder": { "S": "x" } }),
            json!({ "id": { "S": "3" }, "serial": { "S": "ab" }, "holder": { "S": "x" } }),
        ];
        for row in &rows {
            let put = json!({ "TableName": "stack-Records-1", "Item": row });
            call(&mut account.world, account.now, "PutItem", &put).unwrap();
        }
        let found = |account: &mut Account, index: &str, condition: &str, values: &Value| {
            let input = json!({
                "TableName": "stack-Records-1", "IndexName": index, "KeyConditionExpression": condition,
                "ExpressionAttributeValues": values,
            });
            let answer = call(&mut account.world, account.now, "Query", &input).unwrap();
            list(&answer["Items"]).cloned().collect::<Vec<_>>()
        };
        let without = |row: &Value, names: &[&str]| {
            let mut row = row.clone();
            row.as_object_mut().unwrap().retain(|name, _| !names.contains(&name.as_str()));
            row
        };
        let first = |others: &[&str]| without(&rows[0], others);
        let (leaf, x) = (json!({ ":k": { "S": "leaf" } }), json!({ ":x": { "S": "x" } }));
        let cases = [
            ("by-due", "kind = :k", leaf.clone(), vec![first(&["serial", "holder", "more"]), without(&rows[1], &["holder"])]),
            (
                "by-due",
                "kind = :k AND due <= :t",
                json!({ ":k": { "S": "leaf" }, ":t": { "N": "9" } }),
                vec![first(&["serial", "holder", "more"])],
            ),
            ("by-serial", "serial = :s", json!({ ":s": { "S": "ab" } }), vec![without(&rows[2], &["holder"])]),
            ("by-holder", "holder = :x", x.clone(), vec![first(&["kind", "due", "more"]), rows[2].clone()]),
            (
                "by-holder",
                "holder = :x AND begins_with(serial, :s)",
                json!({ ":x": { "S": "x" }, ":s": { "S": "aa" } }),
                vec![first(&["kind", "due", "more"])],
            ),
        ];
        for (index, condition, values, _) in &cases {
            assert!(found(&mut account, index, condition, values).is_empty(), "{index} follows a moment later");
        }
        account.now += INDEX_LAG;
        for (index, condition, values, expected) in &cases {
            assert_eq!(&found(&mut account, index, condition, values), expected, "{index}: {condition}");
        }
        let update =
            json!({ "TableName": "stack-Records-1", "Key": { "id": { "S": "1" } }, "UpdateExpression": "REMOVE serial" });
        call(&mut account.world, account.now, "UpdateItem", &update).unwrap();
        account.now += INDEX_LAG;
        assert_eq!(found(&mut account, "by-holder", "holder = :x", &x), [rows[2].clone()]);
        assert_eq!(found(&mut account, "by-due", "kind = :k", &leaf).len(), 2);
    }

    #[test]
    fn a_query_finds_by_key_in_order_and_by_pages() {
        let mut account = Account::new();
        [10, 9, 100, 1, 25].iter().for_each(|sk| account.put(*sk, json!({ "odd": { "BOOL": sk % 2 == 1 } })));
        let input = |condition: &str| {
            let mut input = json!({ "KeyConditionExpression": condition });
            for (name, value) in [(":a", json!({ "S": "a" })), (":x", json!({ "N": "10" })), (":y", json!({ "N": "99" }))] {
                if condition.contains(name) {
                    input["ExpressionAttributeValues"][name] = value;
                }
            }
            input
        };
        let cases: [(&str, &[u32]); 8] = [
            ("pk = :a", &[1, 9, 10, 25, 100]),
            ("pk = :a AND sk = :x", &[10]),
            ("pk = :a AND sk < :x", &[1, 9]),
            ("pk = :a AND :x <= sk", &[10, 25, 100]),
            ("pk = :a AND sk > :x", &[25, 100]),
            ("(pk = :a) AND (sk <= :x)", &[1, 9, 10]),
            ("sk BETWEEN :x AND :y AND pk = :a", &[10, 25]),
            ("pk = :a AND sk BETWEEN :y AND :y", &[]),
        ];
        for (condition, found) in cases {
            let mut input = input(condition);
            assert_eq!(account.found("Query", input.clone()), found, "{condition}");
            input["ScanIndexForward"] = json!(false);
            assert!(account.found("Query", input).iter().rev().eq(found), "{condition}");
        }
        let refused = [
            ("sk = :x", "Query condition missed key schema element: pk"),
            ("pk > :a", "Query key condition not supported"),
            ("pk = :a AND v = :a", "Query condition missed key schema element: sk"),
            (
                "pk = :a AND sk = :a",
                "One or more parameter values were invalid: Condition parameter type does not match schema type",
            ),
            ("pk = :a OR sk = :x", "Invalid operator used in KeyConditionExpression: OR"),
            ("pk = :a AND sk <> :x", "Invalid operator used in KeyConditionExpression: <>"),
        ];
        for (condition, message) in refused {
            assert_eq!(account.ask("Query", input(condition)), Err(invalid(message)), "{condition}");
        }
        let mut filtered = input("pk = :a");
        filtered["FilterExpression"] = json!("odd = :t");
        filtered["ExpressionAttributeValues"][":t"] = json!({ "BOOL": true });
        (filtered["Limit"], filtered["Select"]) = (json!(3), json!("COUNT"));
        assert_eq!(account.ask("Query", filtered), Ok(json!({ "Count": 2, "ScannedCount": 3, "LastEvaluatedKey": key(10) })));
        assert_eq!(account.found("Scan", json!({})), [1, 9, 10, 25, 100]);
    }

    #[test]
    fn a_sort_key_is_found_by_its_beginning() {
        let mut world = World::new("111122223333", "eu-central-1");
        let now = datetime!(2026-03-01 10:00 UTC);
        world.dynamodb.create_table(now, "records", KeySchema::new(("pk", "S"), Some(("sk", "S"))), Vec::new());
        for sk in ["a", "ab", "abc", "ab\u{10ffff}", "ac", "b"] {
            let item = json!({ "pk": { "S": "a" }, "sk": { "S": sk } });
            call(&mut world, now, "PutItem", &json!({ "TableName": "records", "Item": item })).unwrap();
        }
        let values = json!({ ":a": { "S": "a" }, ":b": { "S": "ab" } });
        let input = json!({ "TableName": "records", "KeyConditionExpression": "pk = :a AND begins_with(sk, :b)", "ExpressionAttributeValues": values });
        assert_eq!(call(&mut world, now, "Query", &input).unwrap()["Count"], 3);
    }

    #[test]
    fn an_index_is_sparse_and_shows_a_write_a_moment_later() {
        let mut account = Account::new();
        account.put(1, due(30));
        account.put(2, due(20));
        account.put(3, json!({ "lane": { "S": "a" } }));
        assert!(account.due().is_empty());
        account.now += INDEX_LAG;
        assert_eq!(account.due(), [2, 1]);
        account.put(2, json!({}));
        account.ask("DeleteItem", json!({ "Key": key(1) })).unwrap();
        (4..=8).for_each(|sk| account.put(sk, due(5)));
        assert_eq!(account.due(), [2, 1]);
        account.now += INDEX_LAG;
        assert_eq!(account.due(), [4, 5, 6, 7, 8]);
        let mut all = item(9, due(1));
        all["kept"] = json!({ "S": "k" });
        account.put(9, all.clone());
        account.put(9, item(9, json!({ "lane": all["lane"], "due": all["due"], "kept": all["kept"], "left": { "S": "out" } })));
        account.now += INDEX_LAG;
        assert_eq!(account.ask("Query", on_index()).unwrap()["Items"][0], all);
    }

    #[test]
    fn an_expired_item_goes_hours_later_and_the_index_follows() {
        let mut account = Account::new();
        let expiry = (account.now + Duration::MINUTE).unix_timestamp();
        account.put(1, json!({ "lane": { "S": "a" }, "due": { "N": "1" }, "expires": { "N": expiry.to_string() } }));
        account.put(2, json!({ "expires": { "N": "1" } }));
        account.now += EXPIRY_LAG;
        assert!(account.get(1).is_some());
        account.now += Duration::MINUTE;
        assert!(account.get(1).is_none());
        assert_eq!(account.due(), [1]);
        account.now += INDEX_LAG;
        assert!(account.due().is_empty());
        assert!(account.get(2).is_some());
    }

    fn transaction(writes: &[(&str, Value)]) -> Value {
        let named = |(kind, write): &(&str, Value)| {
            let mut write = write.clone();
            write["TableName"] = json!("records");
            json!({ *kind: write })
        };
        json!({ "TransactItems": writes.iter().map(named).collect::<Vec<_>>() })
    }

    #[test]
    fn a_transaction_is_done_whole_or_not_at_all() {
        let mut account = Account::new();
        account.put(1, json!({ "v": { "N": "1" } }));
        let mut is_one =
            json!({ "Key": key(1), "ConditionExpression": "v = :v", "ReturnValuesOnConditionCheckFailure": "ALL_OLD" });
        is_one["ExpressionAttributeValues"] = json!({ ":v": { "N": "1" } });
        let put = |sk| ("Put", json!({ "Item": key(sk), "ConditionExpression": "attribute_not_exists(pk)" }));
        let (check, wrong) =
            (("ConditionCheck", is_one), ("Update", json!({ "Key": key(9), "UpdateExpression": "SET v = gone" })));
        account.ask("TransactWriteItems", transaction(&[put(2), check.clone(), ("Delete", json!({ "Key": key(3) }))])).unwrap();
        account.ask("TransactWriteItems", transaction(&[("Update", add_one(1)), put(4)])).unwrap();
        let error = account.ask("TransactWriteItems", transaction(&[put(5), check, put(2), wrong])).unwrap_err();
        let codes = "[None, ConditionalCheckFailed, ConditionalCheckFailed, ValidationError]";
        assert_eq!(error.code, "TransactionCanceledException");
        assert_eq!(
            error.message,
            format!("Transaction cancelled, please refer cancellation reasons for specific reasons {codes}")
        );
        let failed = "The conditional request failed";
        let reasons = json!([
            { "Code": "None" },
            { "Code": "ConditionalCheckFailed", "Message": failed, "Item": item(1, json!({ "v": { "N": "2" } })) },
            { "Code": "ConditionalCheckFailed", "Message": failed },
            { "Code": "ValidationError", "Message": "The provided expression refers to an attribute that does not exist in the item" },
        ]);
        assert_eq!(error.members["CancellationReasons"], reasons);
        assert_eq!(account.found("Scan", json!({})), [1, 2, 4]);
        let twice = account.ask("TransactWriteItems", transaction(&[("Update", add_one(1)), put(1)]));
        assert_eq!(twice, Err(invalid("Transaction request cannot include multiple operations on one item")));
    }

    #[test]
    fn a_transaction_token_is_good_for_ten_minutes() {
        let mut account = Account::new();
        let mut input = transaction(&[("Update", add_one(1))]);
        let mut other = transaction(&[("Update", add_one(2))]);
        (input["ClientRequestToken"], other["ClientRequestToken"]) = (json!("token"), json!("token"));
        for (wait, value) in [(0, 1), (599, 1), (1, 2)] {
            account.now += Duration::seconds(wait);
            account.ask("TransactWriteItems", input.clone()).unwrap();
            let error = account.ask("TransactWriteItems", other.clone()).unwrap_err();
            assert_eq!(error.code, "IdempotentParameterMismatchException");
            assert_eq!(account.get(1), Some(item(1, json!({ "v": { "N": value.to_string() } }))));
        }
    }

    #[test]
    fn batches_read_and_write_many_and_refuse_doubles() {
        let mut account = Account::new();
        let write = |requests: Vec<Value>| json!({ "RequestItems": { "records": requests } });
        let put = |sk| json!({ "PutRequest": { "Item": key(sk) } });
        account.ask("BatchWriteItem", write((1..=25).map(put).collect())).unwrap();
        account.ask("BatchWriteItem", write(vec![json!({ "DeleteRequest": { "Key": key(1) } }), put(30)])).unwrap();
        let read = |keys: &[u32]| {
            let keys: Vec<_> = keys.iter().copied().map(key).collect();
            json!({ "RequestItems": { "records": { "Keys": keys } } })
        };
        let mut counts = |keys: &[u32]| {
            let got = account.ask("BatchGetItem", read(keys))?;
            Ok((list(&got["Responses"]["records"]).count(), list(&got["UnprocessedKeys"]["records"]["Keys"]).count()))
        };
        let all: Vec<u32> = (1..=101).collect();
        assert_eq!(counts(&all[..100]), Ok((25, 0)));
        assert_eq!(counts(&all), Err(invalid("Too many items requested for the BatchGetItem call")));
        assert_eq!(counts(&[1, 1]), Err(invalid("Provided list of item keys contains duplicates")));
        (1..=60).for_each(|sk| account.put(sk, json!({ "v": { "S": "x".repeat(300_000) } })));
        let got = account.ask("BatchGetItem", read(&all[..60])).unwrap();
        assert_eq!(list(&got["UnprocessedKeys"]["records"]["Keys"]).count(), 5);
        assert_eq!(account.ask("Scan", json!({ "Select": "COUNT" })).unwrap()["Count"], 4);
    }

    #[test]
    fn tens_of_thousands_of_items_are_no_burden() {
        let mut world = World::new("111122223333", "eu-central-1");
        let now = datetime!(2026-03-01 10:00 UTC);
        let due = KeySchema::new(("lane", "S"), Some(("due", "N")));
        world.dynamodb.create_table(now, "records", KeySchema::new(("pk", "S"), None), vec![("due", due)]);
        let started = std::time::Instant::now();
        for number in 0..20_000 {
            let item = json!({ "pk": { "S": number.to_string() }, "lane": { "S": "0" }, "due": { "N": number.to_string() } });
            let input = json!({ "TableName": "records", "Item": item, "ConditionExpression": "attribute_not_exists(pk)" });
            call(&mut world, now, "PutItem", &input).unwrap();
        }
        let values = json!({ ":s": { "S": "0" }, ":d": { "N": "15000" } });
        let mut input =
            json!({ "TableName": "records", "IndexName": "due", "KeyConditionExpression": "lane = :s AND due <= :d" });
        (input["ExpressionAttributeValues"], input["Limit"], input["ScanIndexForward"]) = (values, json!(10), json!(false));
        for _ in 0..500 {
            let found = call(&mut world, now + INDEX_LAG, "Query", &input).unwrap();
            assert_eq!(found["Items"][0]["pk"], json!({ "S": "15000" }));
        }
        assert!(started.elapsed().as_secs() < 60, "{:?}", started.elapsed());
    }
}
