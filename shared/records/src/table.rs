//! Records and bindings in DynamoDB, written whole under their revision: whoever read an older one writes nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{
    AttributeValue, KeysAndAttributes, Put, ReturnValue, ReturnValuesOnConditionCheckFailure, TransactWriteItem, Update,
};
use lifecycle::names::{Arn, CertificateName, ServiceName};
use lifecycle::record::{Origin, Record};
use lifecycle::rollout::{Binding, BindingState};
use runtime::Failure;
use serde::de::DeserializeOwned;
use time::OffsetDateTime;

use crate::Records;
use material::random;

pub type Item = HashMap<String, AttributeValue>;

/// The index by which the sweep asks what is due: partition key `queue`, one value for all; sort key `look_at`.
const INDEX: &str = "look";
/// The index of the same partition by when the current pair expires.
const EXPIRY: &str = "expiry";
const QUEUE: &str = "certificates";

/// Every look asks for the next one within a day.
const FURTHEST_LOOK: Duration = Duration::from_secs(25 * 60 * 60);

/// What became of a write under a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Saved {
    Done,
    /// Somebody else has written since it was read. Nothing was changed.
    Overtaken,
}

impl Saved {
    /// For whoever cannot go on without it: what was overtaken is to be decided anew.
    pub fn or_retry(self, what: impl std::fmt::Display) -> Result<(), Failure> {
        match self {
            Self::Done => Ok(()),
            Self::Overtaken => Err(Failure::retryable(format!("save {what}"), "another invocation changed it meanwhile")),
        }
    }
}

impl Records {
    pub async fn load(&self, name: &CertificateName) -> Result<Option<Record>, Failure> {
        let item = self.item(record_id(name)).await?;
        item.map(|item| parse(item, name)).transpose()
    }

    /// Writes the record if nobody has written it since it was read, and keeps the services' bindings in step: a service that
    /// the record names, and `before` did not, learns of the certificate in the same transaction, and one that is gone forgets it.
    /// With a new record goes a note whose its certificate of ACM is.
    pub async fn save(&self, record: &mut Record, before: &BTreeSet<ServiceName>) -> Result<Saved, Failure> {
        let read = record.revision;
        record.revision += 1;
        let doing = format!("save the record of `{}`", record.name);
        let mut item = record_item(record).map_err(|error| Failure::permanent(&doing, error))?;
        // Two looks in one second would write the same item, and each would take it for its own: see `put_alone`.
        item.insert("write".to_owned(), AttributeValue::B(Blob::new(random::<8>().to_vec())));
        let changed: Vec<_> = before.symmetric_difference(&record.options.services).collect();
        let noted = match &record.origin {
            Origin::Exported { certificate_arn } | Origin::Adopted { certificate_arn } if read == 0 => Some(certificate_arn),
            _ => None,
        };
        let saved = if changed.is_empty() && noted.is_none() {
            self.put_alone(item, read, &doing).await
        } else {
            self.put_with(item, read, record, &changed, noted, &doing).await
        };
        if !matches!(saved, Ok(Saved::Done)) {
            record.revision = read;
        }
        saved
    }

    /// Writes a record whose services are those that it was read with. Where somebody has overtaken, it is to be decided anew.
    pub async fn update(&self, record: &mut Record) -> Result<(), Failure> {
        let services = record.options.services.clone();
        self.save(record, &services).await?.or_retry(format_args!("the record of `{}`", record.name))
    }

    /// Takes the record out of the table, and the certificate off its services. Where somebody has overtaken, it stays.
    pub async fn forget(&self, mut record: Record) -> Result<(), Failure> {
        let before = std::mem::take(&mut record.options.services);
        let doing = format!("take the record of `{}` out of the table", record.name);
        if !before.is_empty() {
            self.save(&mut record, &before).await?.or_retry(format_args!("the record of `{}`", record.name))?;
        }
        let delete = self.dynamodb.delete_item().table_name(&self.settings.table).key("id", text(record_id(&record.name)));
        let delete = delete
            // What is gone was deleted by a call whose answer was lost.
            .condition_expression("attribute_not_exists(#revision) OR #revision = :read")
            .expression_attribute_names("#revision", "revision")
            .expression_attribute_values(":read", number(record.revision));
        match delete.send().await {
            Ok(_) => Ok(()),
            Err(error) if error.as_service_error().is_some_and(|error| error.is_conditional_check_failed_exception()) => {
                Saved::Overtaken.or_retry(format_args!("the record of `{}`", record.name))
            }
            Err(error) => Err(Failure::aws(doing, error)),
        }
    }

    async fn put_alone(&self, item: Item, read: u64, doing: &str) -> Result<Saved, Failure> {
        let put = self.dynamodb.put_item().table_name(&self.settings.table).set_item(Some(item.clone()));
        let answer = put
            .condition_expression(unchanged(read))
            .expression_attribute_names("#revision", "revision")
            .expression_attribute_values(":read", number(read))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
            .await;
        match answer {
            Ok(_) => Ok(Saved::Done),
            Err(SdkError::ServiceError(error)) if matches!(error.err(), PutItemError::ConditionalCheckFailedException(_)) => {
                // An SDK retry after a lost answer meets its own first write.
                match error.err() {
                    PutItemError::ConditionalCheckFailedException(failed) if failed.item() == Some(&item) => Ok(Saved::Done),
                    _ => Ok(Saved::Overtaken),
                }
            }
            Err(error) => Err(Failure::aws(doing, error)),
        }
    }

    async fn put_with(
        &self,
        item: Item,
        read: u64,
        record: &Record,
        changed: &[&ServiceName],
        noted: Option<&Arn>,
        doing: &str,
    ) -> Result<Saved, Failure> {
        let failed = |error: aws_sdk_dynamodb::error::BuildError| Failure::permanent(doing, error);
        let put = Put::builder()
            .table_name(&self.settings.table)
            .set_item(Some(item))
            .condition_expression(unchanged(read))
            .expression_attribute_names("#revision", "revision")
            .expression_attribute_values(":read", number(read))
            .build()
            .map_err(failed)?;
        let mut writes = vec![TransactWriteItem::builder().put(put).build()];
        for service in changed {
            let expression = match record.options.services.contains(*service) {
                true => "ADD #certificates :certificate, #revision :one",
                false => "DELETE #certificates :certificate ADD #revision :one",
            };
            let update = Update::builder()
                .table_name(&self.settings.table)
                .key("id", text(binding_id(service)))
                .update_expression(expression)
                .expression_attribute_names("#certificates", "certificates")
                .expression_attribute_names("#revision", "revision")
                .expression_attribute_values(":certificate", AttributeValue::Ss(vec![record.name.to_string()]))
                .expression_attribute_values(":one", number(1))
                .build()
                .map_err(failed)?;
            writes.push(TransactWriteItem::builder().update(update).build());
        }
        if let Some(arn) = noted {
            let note = Put::builder().table_name(&self.settings.table).set_item(Some(note(arn, &record.name)));
            writes.push(TransactWriteItem::builder().put(note.build().map_err(failed)?).build());
        }
        match self.dynamodb.transact_write_items().set_transact_items(Some(writes)).send().await {
            Ok(_) => Ok(Saved::Done),
            Err(error) => {
                let reasons = error.as_service_error().and_then(|error| match error {
                    aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError::TransactionCanceledException(
                        error,
                    ) => Some(error.cancellation_reasons()),
                    _ => None,
                });
                let codes: Vec<_> =
                    reasons.into_iter().flatten().filter_map(|reason| reason.code()).filter(|code| *code != "None").collect();
                match &codes[..] {
                    [] => Err(Failure::aws(doing, error)),
                    codes if codes.contains(&"ConditionalCheckFailed") => Ok(Saved::Overtaken),
                    codes
                        if codes.iter().any(|code| *code == "ValidationError" || *code == "ItemCollectionSizeLimitExceeded") =>
                    {
                        Err(Failure::permanent(doing, error.message().unwrap_or("the table refused what was to be written")))
                    }
                    // A conflict with another transaction, or a throttle.
                    codes => Err(Failure::retryable(doing, codes.join(", "))),
                }
            }
        }
    }

    /// The item `id` as what it was written from.
    pub(crate) async fn read<T: DeserializeOwned>(&self, id: &str) -> Result<Option<T>, Failure> {
        self.item(id.to_owned()).await?.map(|item| parse(item, id)).transpose()
    }

    /// Writes the item `id` if it still has the revision it was read at.
    pub(crate) async fn write(&self, id: &str, value: &impl serde::Serialize, read: u64, doing: &str) -> Result<Saved, Failure> {
        let mut item: Item = serde_dynamo::to_item(value).map_err(|error| Failure::permanent(doing, error))?;
        item.insert("id".to_owned(), text(id));
        item.insert("write".to_owned(), AttributeValue::B(Blob::new(random::<8>().to_vec())));
        self.put_alone(item, read, doing).await
    }

    /// The first certificate in an index by CA of which this CA has issued a pair that has not expired.
    pub(crate) async fn first_of(
        &self,
        index: &str,
        authority: &Arn,
        now: OffsetDateTime,
    ) -> Result<Option<CertificateName>, Failure> {
        let answer = self
            .dynamodb
            .query()
            .table_name(&self.settings.table)
            .index_name(index.replace('_', "-"))
            .key_condition_expression("#issuer = :issuer AND #until > :now")
            .expression_attribute_names("#issuer", index)
            .expression_attribute_names("#until", format!("{index}_until"))
            .expression_attribute_values(":issuer", text(authority.as_str()))
            .expression_attribute_values(":now", number(now.unix_timestamp()))
            .limit(1)
            .send()
            .await
            .map_err(|error| Failure::aws(format!("ask which certificates need {authority}"), error))?;
        Ok(answer.items().first().and_then(|item| name_of(item.get("id")?.as_s().ok()?)))
    }

    /// The records that want to be looked at by now, the longest waiting first: one page, and where the next one starts.
    /// The index may lag, so each record is read afresh and left out when it does not want to be looked at any more.
    /// One that cannot be read is a failure of its own and does not keep the others waiting.
    pub async fn due(&self, now: OffsetDateTime, after: Option<Item>) -> Result<Page, Failure> {
        let page = self
            .dynamodb
            .query()
            .table_name(&self.settings.table)
            .index_name(INDEX)
            .key_condition_expression("#queue = :queue AND #look_at <= :now")
            .expression_attribute_names("#queue", "queue")
            .expression_attribute_names("#look_at", "look_at")
            .expression_attribute_values(":queue", text(QUEUE))
            .expression_attribute_values(":now", number(now.unix_timestamp()))
            .limit(100)
            .set_exclusive_start_key(after)
            .send()
            .await
            .map_err(|error| Failure::aws("ask which certificates want to be looked at", error))?;
        let ids = page.items().iter().filter_map(|item| item.get("id")?.as_s().ok().cloned()).collect();
        let (mut records, mut unreadable) = (Vec::new(), Vec::new());
        for (id, item) in self.items(ids).await? {
            match parse::<Record>(item, id) {
                Ok(record) if record.look_at <= now.unix_timestamp() => records.push(record),
                Ok(_) => {}
                Err(failure) => unreadable.push(failure),
            }
        }
        records.sort_by_key(|record| (record.current.as_ref().map(|pair| pair.not_after), record.look_at));
        let services: BTreeSet<_> = records.iter().flat_map(|record| &record.options.services).collect();
        let bindings = self.items(services.iter().map(|service| binding_id(service)).collect()).await?;
        let services = bindings.into_iter().filter_map(|(id, item)| {
            let service: ServiceName = id.strip_prefix(SERVICE)?.parse().ok()?;
            Some((service.clone(), binding(service, item)))
        });
        Ok(Page { records, services: services.collect(), unreadable, next: page.last_evaluated_key })
    }

    /// The name of every certificate that has a record. The index lags a little.
    pub async fn names(&self) -> Result<Vec<CertificateName>, Failure> {
        let query = self.dynamodb.query().table_name(&self.settings.table).index_name(INDEX);
        let query = query.key_condition_expression("#queue = :queue").expression_attribute_names("#queue", "queue");
        let mut pages = query.expression_attribute_values(":queue", text(QUEUE)).into_paginator().send();
        // One that is looked at meanwhile moves in the index, and may be met again.
        let mut names = BTreeSet::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| Failure::aws("ask which certificates there are", error))?;
            names.extend(page.items().iter().filter_map(|item| name_of(item.get("id")?.as_s().ok()?)));
        }
        Ok(names.into_iter().collect())
    }

    /// The records of these names, those that exist, each with what is known of its services. What cannot be read fails alone.
    pub async fn load_each(&self, names: &[CertificateName]) -> Result<Vec<(CertificateName, Result<Known, Failure>)>, Failure> {
        let items = self.items(names.iter().map(record_id).collect()).await?;
        let records = items.into_iter().filter_map(|(id, item)| Some((name_of(&id)?, parse::<Record>(item, id))));
        let records: Vec<_> = records.collect();
        let services: BTreeSet<_> =
            records.iter().flat_map(|(_, record)| record).flat_map(|record| &record.options.services).collect();
        let bindings: HashMap<_, _> = self.items(services.into_iter().map(binding_id).collect()).await?.into_iter().collect();
        let known = |record: Record| {
            let mut services = BTreeMap::new();
            for service in &record.options.services {
                if let Some(item) = bindings.get(&binding_id(service)) {
                    services.insert(service.clone(), binding(service.clone(), item.clone()).state);
                }
            }
            Known { record, services }
        };
        Ok(records.into_iter().map(|(name, record)| (name, record.map(known))).collect())
    }

    /// The certificates whose current pair expires soonest, and when, in seconds since 1970. The index may lag by moments.
    pub async fn soonest(&self, count: i32) -> Result<Vec<(String, i64)>, Failure> {
        let answer = self
            .dynamodb
            .query()
            .table_name(&self.settings.table)
            .index_name(EXPIRY)
            .key_condition_expression("#queue = :queue")
            .expression_attribute_names("#queue", "queue")
            .expression_attribute_values(":queue", text(QUEUE))
            .limit(count)
            .send()
            .await
            .map_err(|error| Failure::aws("ask which certificates expire soonest", error))?;
        let soonest = answer.items().iter().filter_map(|item| {
            let name = item.get("id")?.as_s().ok()?.strip_prefix(CERTIFICATE)?;
            Some((name.to_owned(), item.get("expires_at")?.as_n().ok()?.parse().ok()?))
        });
        Ok(soonest.collect())
    }

    /// The records of these names, those that exist.
    pub async fn load_all(&self, names: impl IntoIterator<Item = &CertificateName>) -> Result<Vec<Record>, Failure> {
        let items = self.items(names.into_iter().map(record_id).collect()).await?;
        items.into_iter().map(|(id, item)| parse(item, id)).collect()
    }

    /// What is known of these services; a service that no certificate was ever bound to is left out.
    pub async fn bindings(
        &self,
        services: impl IntoIterator<Item = &ServiceName>,
    ) -> Result<BTreeMap<ServiceName, Binding>, Failure> {
        let items = self.items(services.into_iter().map(binding_id).collect()).await?;
        items
            .into_iter()
            .map(|(id, item)| {
                let faulty = |error| Failure::permanent(format!("read the item `{id}` of the table"), error);
                let service: ServiceName = id.strip_prefix(SERVICE).unwrap_or_default().parse().map_err(faulty)?;
                Ok((service.clone(), binding(service, item)))
            })
            .collect()
    }

    /// Writes a binding's state if nobody has written the binding since it was read.
    pub async fn save_binding(&self, binding: &mut Binding) -> Result<Saved, Failure> {
        let doing = format!("save what is known of the service {}", binding.service);
        let state = serde_dynamo::to_attribute_value(&binding.state).map_err(|error| Failure::permanent(&doing, error))?;
        let update = self.dynamodb.update_item().table_name(&self.settings.table).key("id", text(binding_id(&binding.service)));
        let answer = update
            .update_expression("SET #state = :state, #revision = :next")
            .condition_expression(unchanged(binding.revision))
            .expression_attribute_names("#state", "state")
            .expression_attribute_names("#revision", "revision")
            .expression_attribute_values(":state", state)
            .expression_attribute_values(":read", number(binding.revision))
            .expression_attribute_values(":next", number(binding.revision + 1))
            .send()
            .await;
        match answer {
            Ok(_) => {
                binding.revision += 1;
                Ok(Saved::Done)
            }
            // After a lost answer this may be our own write. To decide anew is right then too.
            Err(error) if error.as_service_error().is_some_and(|error| error.is_conditional_check_failed_exception()) => {
                Ok(Saved::Overtaken)
            }
            Err(error) => Err(Failure::aws(doing, error)),
        }
    }

    /// Takes up to `wanted` from this hour's budget of `limit`, and says how much there was, and how much is then left.
    pub async fn take_from_budget(&self, wanted: u32, limit: u32, now: OffsetDateTime) -> Result<(u32, u32), Failure> {
        let expires = now.unix_timestamp() + 7 * 24 * 60 * 60;
        let update = self.dynamodb.update_item().table_name(&self.settings.table);
        let answer = update
            .key("id", text(budget_id(now)))
            .update_expression("ADD #used :wanted SET #expires = :expires")
            .expression_attribute_names("#used", "used")
            .expression_attribute_names("#expires", "expires")
            .expression_attribute_values(":wanted", number(wanted))
            .expression_attribute_values(":expires", number(expires))
            .return_values(ReturnValue::UpdatedNew)
            .send()
            .await
            .map_err(|error| Failure::aws("take from the hour's budget", error))?;
        let used: u32 = answer.attributes().and_then(|new| new.get("used")?.as_n().ok()?.parse().ok()).unwrap_or(u32::MAX);
        Ok((wanted.min(limit.saturating_add(wanted).saturating_sub(used)), limit.saturating_sub(used)))
    }

    /// What was taken at that time and not used.
    pub async fn put_back_into_budget(&self, unused: u32, taken: OffsetDateTime) -> Result<(), Failure> {
        let update = self.dynamodb.update_item().table_name(&self.settings.table).key("id", text(budget_id(taken)));
        let update = update.update_expression("ADD #used :unused").expression_attribute_names("#used", "used");
        let answer = update.expression_attribute_values(":unused", number(-i64::from(unused))).send().await;
        answer.map(|_| ()).map_err(|error| Failure::aws("put back what was not used of the hour's budget", error))
    }

    /// Whether this is the first time today that a person is told of `code`, which is of no single certificate. From now on it is not.
    pub async fn first_today(&self, code: &str, now: OffsetDateTime) -> Result<bool, Failure> {
        let put = self.dynamodb.put_item().table_name(&self.settings.table);
        let put = put.item("id", text(format!("told#{code}#{}", now.date())));
        let put =
            put.item("expires", number(now.unix_timestamp() + 7 * 24 * 60 * 60)).condition_expression("attribute_not_exists(id)");
        match put.send().await {
            Ok(_) => Ok(true),
            Err(error) if error.as_service_error().is_some_and(|error| error.is_conditional_check_failed_exception()) => {
                Ok(false)
            }
            Err(error) => Err(Failure::aws(format!("note that a person was told of {code}"), error)),
        }
    }

    /// Remembers whose certificate an ARN of ACM is, so that the daily walk through ACM need not ask for its tags.
    pub async fn note_arn(&self, arn: &Arn, name: &CertificateName) -> Result<(), Failure> {
        let put = self.dynamodb.put_item().table_name(&self.settings.table).set_item(Some(note(arn, name)));
        put.send().await.map(|_| ()).map_err(|error| Failure::aws(format!("note that {arn} is `{name}`"), error))
    }

    /// Those of the ARNs that were noted for a certificate whose record is about them, and that have not lost its tag since.
    pub async fn known_arns(&self, arns: &[Arn]) -> Result<BTreeSet<Arn>, Failure> {
        let items = self.items(arns.iter().map(|arn| format!("{ARN}{arn}")).collect()).await?;
        let noted: Vec<(Arn, CertificateName)> = items
            .into_iter()
            .filter_map(|(id, item)| {
                let arn = id.strip_prefix(ARN)?.parse().ok()?;
                Some((arn, item.get("certificate")?.as_s().ok()?.parse().ok()?))
            })
            .collect();
        let items = self.items(noted.iter().map(|(_, name)| record_id(name)).collect()).await?;
        let records: BTreeMap<_, _> = items.into_iter().map(|(id, item)| (id.clone(), parse::<Record>(item, id).ok())).collect();
        let known = |(arn, name): &(Arn, CertificateName)| match records.get(&record_id(name)) {
            None => false,
            // Of one that was imported by hand nobody is told that it has lost its tag.
            Some(Some(record)) => {
                record.in_acm() == Some(arn) && !record.is_adopted() && !record.told.contains_key("acm-untagged")
            }
            // What cannot be read, the walk through the secrets tells of.
            Some(None) => true,
        };
        Ok(noted.into_iter().filter(known).map(|(arn, _)| arn).collect())
    }

    /// Those of the names that have no record, and the records that the sweep would not come upon within a day: somebody has
    /// altered them. What cannot be read is named.
    pub async fn missed(&self, names: Vec<CertificateName>, now: OffsetDateTime) -> Result<Missed, Failure> {
        let items = self.items(names.iter().map(record_id).collect()).await?;
        let known: BTreeSet<_> = items.iter().map(|(id, _)| id.as_str()).collect();
        let unknown = names.into_iter().filter(|name| !known.contains(record_id(name).as_str())).collect();
        let mut missed = Missed { unknown, records: Vec::new(), unreadable: Vec::new() };
        for (id, item) in items {
            let indexed = item.get("queue").is_some_and(|queue| queue.as_s().is_ok_and(|queue| queue == QUEUE));
            match parse::<Record>(item, id) {
                Ok(record) if indexed && record.look_at <= (now + FURTHEST_LOOK).unix_timestamp() => {}
                Ok(record) => missed.records.push(record),
                Err(failure) => missed.unreadable.push(failure),
            }
        }
        Ok(missed)
    }

    /// How far the daily walk through everything has come.
    pub async fn walk(&self) -> Result<Walk, Failure> {
        let item = self.item(WALK.to_owned()).await?;
        item.map_or_else(|| Ok(Walk::default()), |item| parse(item, WALK))
    }

    pub async fn save_walk(&self, walk: &Walk) -> Result<(), Failure> {
        let doing = "save how far the daily walk has come";
        let mut item: Item = serde_dynamo::to_item(walk).map_err(|error| Failure::permanent(doing, error))?;
        item.insert("id".to_owned(), text(WALK));
        let put = self.dynamodb.put_item().table_name(&self.settings.table).set_item(Some(item));
        put.send().await.map(|_| ()).map_err(|error| Failure::aws(doing, error))
    }

    async fn item(&self, id: String) -> Result<Option<Item>, Failure> {
        let get = self.dynamodb.get_item().table_name(&self.settings.table).key("id", text(&id)).consistent_read(true);
        let answer = get.send().await.map_err(|error| Failure::aws(format!("read the item `{id}` of the table"), error))?;
        Ok(answer.item)
    }

    /// Any number of items by their ids, a hundred a call; those that do not exist are left out.
    async fn items(&self, ids: Vec<String>) -> Result<Vec<(String, Item)>, Failure> {
        let mut found = Vec::new();
        for ids in ids.chunks(100) {
            let keys = ids.iter().map(|id| HashMap::from([("id".to_owned(), text(id))])).collect();
            let mut left = Some(keys);
            // What a call leaves over for size or load is asked for again; more than a few rounds mean trouble.
            for round in 0.. {
                let Some(keys) = left.take() else { break };
                if round == 5 {
                    return Err(Failure::retryable("read items of the table", "DynamoDB keeps leaving keys unprocessed"));
                }
                let request = KeysAndAttributes::builder().set_keys(Some(keys)).consistent_read(true).build();
                let request = request.map_err(|error| Failure::permanent("read items of the table", error))?;
                let answer = self.dynamodb.batch_get_item().request_items(&self.settings.table, request).send().await;
                let answer = answer.map_err(|error| Failure::aws("read items of the table", error))?;
                for item in answer.responses.unwrap_or_default().into_values().flatten() {
                    if let Some(Ok(id)) = item.get("id").map(AttributeValue::as_s) {
                        found.push((id.clone(), item));
                    }
                }
                left = answer.unprocessed_keys.and_then(|mut tables| tables.remove(&self.settings.table)).map(|rest| rest.keys);
            }
        }
        found.sort_by(|(left, _), (right, _)| left.cmp(right));
        Ok(found)
    }
}

/// Records that want to be looked at.
pub struct Page {
    pub records: Vec<Record>,
    /// What is known of their services.
    pub services: BTreeMap<ServiceName, Binding>,
    pub unreadable: Vec<Failure>,
    /// Where the next page starts; `None` at the end.
    pub next: Option<Item>,
}

/// A record, and what is known of its services.
pub struct Known {
    pub record: Record,
    pub services: BTreeMap<ServiceName, BindingState>,
}

/// What the sweep would not come upon by itself.
pub struct Missed {
    pub unknown: Vec<CertificateName>,
    pub records: Vec<Record>,
    pub unreadable: Vec<Failure>,
}

/// The daily walk through the stack's secrets and ACM's certificates, for what the table does not know.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Walk {
    /// Where it goes on; `None` when it has come to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    /// When it last began, in seconds since 1970.
    #[serde(default)]
    pub began: i64,
    /// When the last report of the day was written, likewise.
    #[serde(default)]
    pub reported: i64,
    /// When it last came to its end; before it ever has, just before it first began.
    #[serde(default)]
    pub ended: i64,
}

impl Walk {
    /// How long it has not come to its end.
    pub fn age(&self, now: OffsetDateTime) -> time::Duration {
        // An earlier version did not note the end.
        let ended = if self.ended == 0 { self.began } else { self.ended };
        time::Duration::seconds(now.unix_timestamp() - ended)
    }

    /// Whether it has come to its end since it last began: until then the table may lack certificates. One that was given up has not.
    pub fn has_been_everywhere(&self) -> bool {
        // An earlier version did not note the end.
        self.place.is_none() && self.began > 0 && (self.ended == 0 || self.ended >= self.began)
    }
}

/// The continuation token of the list it was in, `None` at the list's beginning.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    Secrets(Option<String>),
    Certificates(Option<String>),
}

/// True for an item that still has the revision it was read at; revision 0 is an item that was not there.
fn unchanged(read: u64) -> &'static str {
    if read == 0 { "attribute_not_exists(#revision) OR #revision = :read" } else { "#revision = :read" }
}

const CERTIFICATE: &str = "certificate#";
const SERVICE: &str = "service#";
const ARN: &str = "acm#";
const WALK: &str = "walk";

fn record_id(name: &CertificateName) -> String {
    format!("{CERTIFICATE}{name}")
}

fn name_of(id: &str) -> Option<CertificateName> {
    id.strip_prefix(CERTIFICATE)?.parse().ok()
}

fn budget_id(at: OffsetDateTime) -> String {
    format!("budget#{}T{:02}", at.date(), at.hour())
}

fn binding_id(service: &ServiceName) -> String {
    format!("{SERVICE}{service}")
}

/// Whose certificate an ARN of ACM is.
fn note(arn: &Arn, name: &CertificateName) -> Item {
    Item::from([("id".to_owned(), text(format!("{ARN}{arn}"))), ("certificate".to_owned(), text(name.to_string()))])
}

fn record_item(record: &Record) -> Result<Item, serde_dynamo::Error> {
    let mut item: Item = serde_dynamo::to_item(record)?;
    item.insert("id".to_owned(), text(record_id(&record.name)));
    item.insert("queue".to_owned(), text(QUEUE));
    if let Some(current) = &record.current {
        item.insert("expires_at".to_owned(), number(current.not_after.unix_timestamp()));
    }
    // By these the CAs are found that pairs still need.
    for (index, pair) in [("issuer", &record.current), ("previous_issuer", &record.previous)] {
        if let Some(pair) = pair
            && let Some(issuer) = &pair.issuer
            && !record.is_revoked(&pair.serial)
        {
            item.insert(index.to_owned(), text(issuer.as_str()));
            item.insert(format!("{index}_until"), number(pair.not_after.unix_timestamp()));
        }
    }
    Ok(item)
}

fn parse<T: DeserializeOwned>(item: Item, what: impl std::fmt::Display) -> Result<T, Failure> {
    serde_dynamo::from_item(item).map_err(|error| Failure::permanent(format!("read the item of `{what}` in the table"), error))
}

/// What of it cannot be read is taken for not known, and written anew: each look at a certificate sees to its services.
fn binding(service: ServiceName, mut item: Item) -> Binding {
    let certificates = match item.remove("certificates") {
        Some(AttributeValue::Ss(names)) => names.iter().filter_map(|name| name.parse().ok()).collect(),
        _ => BTreeSet::new(),
    };
    let state = item.remove("state").map(serde_dynamo::from_attribute_value::<_, BindingState>).transpose();
    let state =
        state.inspect_err(|error| tracing::warn!(service.name = %service, "What is known of {service} cannot be read: {error}"));
    let revision = item.get("revision").and_then(|revision| revision.as_n().ok()?.parse().ok()).unwrap_or(0);
    Binding { service, certificates, state: state.ok().flatten().unwrap_or_default(), revision }
}

fn text(text: impl Into<String>) -> AttributeValue {
    AttributeValue::S(text.into())
}

fn number(number: impl ToString) -> AttributeValue {
    AttributeValue::N(number.to_string())
}
