use std::collections::BTreeMap;

use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

use crate::{acm, cloudwatch, dynamodb, ecs, elbv2, events, lambda, pca, rotation, s3, secrets, sqs};

pub const ACCOUNT: &str = "111122223333";
pub const REGION: &str = "eu-central-1";

/// Everything that one account in one region holds. Each service keeps its own state and changes it in plain functions of
/// `(&mut World, now, …)`; nothing in here waits, and nothing reads a clock.
pub struct World {
    pub account: String,
    pub region: String,
    pub acm: acm::Acm,
    pub cloudwatch: cloudwatch::CloudWatch,
    pub dynamodb: dynamodb::DynamoDb,
    pub ecs: ecs::Ecs,
    pub elbv2: elbv2::LoadBalancing,
    pub events: events::EventBridge,
    pub lambda: lambda::Lambda,
    pub pca: pca::PrivateCa,
    pub s3: s3::S3,
    pub secrets: secrets::SecretsManager,
    pub sqs: sqs::Sqs,
    /// How far the clocks of services go before the account's: `ecs`, `secretsmanager`, and `lambda`, which its functions read.
    pub ahead: BTreeMap<&'static str, Duration>,
    /// Tasks start, and Lambda tries again, within seconds: for who waits on the machine's clock.
    pub hurry: bool,
    timers: BTreeMap<(OffsetDateTime, u64), Timer>,
    outbox: Vec<Value>,
    invocations: Vec<(String, Value)>,
    serial: u64,
}

/// What happens by itself when its time comes. The service looks at its state anew then: a timer is a reminder, not a command.
#[derive(Clone, Debug)]
pub enum Timer {
    /// A certificate of ACM: validation, managed renewal, daily expiry events.
    Acm { certificate_arn: String },
    /// A CA that is being created or has a CRL to publish, or a certificate that Private CA is still issuing.
    Pca { arn: String },
    /// A deployment of a service.
    Ecs { service_arn: String },
    /// A schedule of the template.
    Schedule { name: String },
    /// A secret that is rotated by schedule.
    Rotation { secret: String },
}

impl Timer {
    fn service(&self) -> &'static str {
        match self {
            Self::Acm { .. } => "acm",
            Self::Pca { .. } => "acm-pca",
            Self::Ecs { .. } => "ecs",
            Self::Schedule { .. } => "scheduler",
            Self::Rotation { .. } => "secretsmanager",
        }
    }
}

impl World {
    pub(crate) fn new(account: &str, region: &str) -> Self {
        Self {
            account: account.to_owned(),
            region: region.to_owned(),
            acm: acm::Acm::default(),
            cloudwatch: cloudwatch::CloudWatch::default(),
            dynamodb: dynamodb::DynamoDb::default(),
            ecs: ecs::Ecs::default(),
            elbv2: elbv2::LoadBalancing::default(),
            events: events::EventBridge::default(),
            lambda: lambda::Lambda::default(),
            pca: pca::PrivateCa::default(),
            s3: s3::S3::default(),
            secrets: secrets::SecretsManager::default(),
            sqs: sqs::Sqs::default(),
            ahead: BTreeMap::new(),
            hurry: false,
            timers: BTreeMap::new(),
            outbox: Vec::new(),
            invocations: Vec::new(),
            serial: 0,
        }
    }

    /// `arn:aws:<service>:<region>:<account>:<resource>`
    pub fn arn(&self, service: &str, resource: &str) -> String {
        format!("arn:aws:{service}:{}:{}:{resource}", self.region, self.account)
    }

    pub(crate) fn clock(&self, service: &str, now: OffsetDateTime) -> OffsetDateTime {
        now + self.ahead.get(service).copied().unwrap_or_default()
    }

    /// A new identifier in the form of a UUID. The same run gives the same ones, so that a run can be repeated.
    pub fn uuid(&mut self) -> String {
        let bytes = self.scrambled();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{}-{}-4{}-8{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..32])
    }

    /// Six letters and digits, as Secrets Manager ends its ARNs.
    pub fn suffix(&mut self) -> String {
        const ALPHABET: &[u8] = b"ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnpqrstuvwxyz23456789";
        self.scrambled().iter().take(6).map(|byte| ALPHABET[usize::from(*byte) % ALPHABET.len()] as char).collect()
    }

    fn scrambled(&mut self) -> [u8; 16] {
        self.serial += 1;
        let mut bytes = [0; 16];
        for (half, seed) in bytes.chunks_mut(8).zip([self.serial, self.serial ^ 0x9e37_79b9]) {
            // splitmix64: enough that neighbouring identifiers do not look alike.
            let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            half.copy_from_slice(&(z ^ (z >> 31)).to_be_bytes());
        }
        bytes
    }

    /// Asks for `timer` at `when` by its service's clock, or as soon as possible when that is past.
    pub fn at(&mut self, when: OffsetDateTime, timer: Timer) {
        let when = when - self.ahead.get(timer.service()).copied().unwrap_or_default();
        self.serial += 1;
        self.timers.insert((when, self.serial), timer);
    }

    /// Puts an event on the account's default bus.
    pub fn emit(&mut self, now: OffsetDateTime, source: &str, detail_type: &str, resources: &[String], detail: Value) {
        let event = self.event(now, source, detail_type, resources, detail);
        self.put(event);
    }

    /// The envelope of <https://docs.aws.amazon.com/eventbridge/latest/ref/overiew-event-structure.html>.
    pub(crate) fn event(
        &mut self,
        time: OffsetDateTime,
        source: &str,
        detail_type: &str,
        resources: &[String],
        detail: Value,
    ) -> Value {
        let id = self.uuid();
        json!({
            "version": "0", "id": id, "detail-type": detail_type, "source": source, "account": self.account,
            "time": events::timestamp(time), "region": self.region, "resources": resources, "detail": detail,
        })
    }

    /// Puts a finished event on the bus.
    pub(crate) fn put(&mut self, event: Value) {
        self.outbox.push(event);
    }

    /// Invokes a function asynchronously.
    pub(crate) fn invoke(&mut self, function: String, payload: Value) {
        self.invocations.push((function, payload));
    }

    pub(crate) fn next_timer(&self) -> Option<OffsetDateTime> {
        self.timers.first_key_value().map(|((when, _), _)| *when)
    }

    /// Lets everything happen whose time has come.
    pub(crate) fn advance(&mut self, now: OffsetDateTime) {
        while let Some(entry) = self.timers.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let timer = entry.remove();
            let now = self.clock(timer.service(), now);
            match timer {
                Timer::Acm { certificate_arn } => acm::due(self, now, &certificate_arn),
                Timer::Pca { arn } => pca::due(self, now, &arn),
                Timer::Ecs { service_arn } => ecs::due(self, now, &service_arn),
                Timer::Schedule { name } => events::due(self, now, &name),
                Timer::Rotation { secret } => rotation::due(self, now, &secret),
            }
        }
    }

    pub(crate) fn take_outbox(&mut self) -> Vec<Value> {
        std::mem::take(&mut self.outbox)
    }

    pub(crate) fn take_invocations(&mut self) -> Vec<(String, Value)> {
        std::mem::take(&mut self.invocations)
    }
}
