//! A fleet that is made in the world of Local AWS itself: copies of one certificate that the stack has brought into its secret.

use std::collections::BTreeMap;

use local_aws::{AwsError, World, dynamodb, ecs, secrets};
use serde_json::{Value, json};
use time::OffsetDateTime;

/// What the stack keeps of the certificate that is copied.
pub struct Original {
    prefix: String,
    table: String,
    record: Value,
    binding: Option<Value>,
    value: String,
    tags: BTreeMap<String, String>,
}

impl Original {
    /// With its service, where it has one.
    pub fn of(world: &World, prefix: &str, name: &str) -> Self {
        let is = |item: &Value, of: &str, name: &str| item["id"]["S"] == format!("{of}#{name}");
        let secret = world.secrets.find(&format!("{prefix}/{name}")).expect("the certificate has a secret");
        let items = world.dynamodb.items().map(|(table, item)| (table, json!(item)));
        let mut of_stack = items.filter(|(_, item)| is(item, "certificate", name) && item["secret_arn"]["S"] == secret.arn);
        let (table, record) = of_stack.next().expect("the certificate has a record");
        let service = record["options"]["M"]["services"]["L"][0]["S"].as_str().map(str::to_owned);
        let items = world.dynamodb.items().map(|(of, item)| (of, json!(item)));
        let binding = service.and_then(|service| {
            items.filter(|(of, item)| *of == table && is(item, "service", &service)).map(|(_, item)| item).next()
        });
        let value = world.secrets.value(&secret.arn, None, None).expect("the secret has a value").to_owned();
        Self { prefix: prefix.to_owned(), table: table.to_owned(), binding, value, tags: secret.tags.clone(), record }
    }

    /// For one of ACM's.
    pub fn certificate_arn(&self) -> Option<&str> {
        self.record["origin"]["M"]["certificate_arn"]["S"].as_str()
    }

    /// Another certificate like it, with a service of its own where one is named; `alter` changes its record.
    pub fn copy(
        &self,
        world: &mut World,
        now: OffsetDateTime,
        name: &str,
        service: Option<&str>,
        alter: impl FnOnce(&mut Value),
    ) -> Result<(), AwsError> {
        let mut tags = self.tags.clone();
        tags.insert("everleaf:certificate".to_owned(), format!("{}/{name}", self.prefix));
        tags.extend(service.map(|service| ("everleaf:service-1".to_owned(), service.to_owned())));
        let tags: Vec<_> = tags.iter().map(|(key, value)| json!({"Key": key, "Value": value})).collect();
        let secret = json!({
            "Name": format!("{}/{name}", self.prefix), "SecretString": self.value, "Tags": tags,
            "ClientRequestToken": self.record["current"]["M"]["version_id"]["S"],
        });
        let secret = secrets::call(world, now, "CreateSecret", &secret)?;
        let mut record = self.record.clone();
        (record["id"], record["name"]) = (json!({"S": format!("certificate#{name}")}), json!({"S": name}));
        record["secret_arn"] = json!({"S": secret["ARN"]});
        if let (Some(service), Some(mut binding)) = (service, self.binding.clone()) {
            record["options"]["M"]["services"] = json!({"L": [{"S": service}]});
            (binding["id"], binding["certificates"]) = (json!({"S": format!("service#{service}")}), json!({"SS": [name]}));
            self.put(world, now, &binding)?;
            create_service(world, now, service)?;
        }
        alter(&mut record);
        self.put(world, now, &record)
    }

    /// Puts an item into the stack's table.
    pub fn put(&self, world: &mut World, now: OffsetDateTime, item: &Value) -> Result<(), AwsError> {
        dynamodb::call(world, now, "PutItem", &json!({"TableName": self.table, "Item": item})).map(|_| ())
    }
}

/// A service of one task; its cluster is made where it is not there yet.
pub fn create_service(world: &mut World, now: OffsetDateTime, service: &str) -> Result<(), AwsError> {
    let (cluster, name) = service.split_once('/').unwrap_or_default();
    ecs::call(world, now, "CreateCluster", &json!({"clusterName": cluster}))?;
    let task = json!({"family": "app", "containerDefinitions": [{"name": "app", "image": "app", "memory": 128}]});
    if ecs::call(world, now, "DescribeTaskDefinition", &json!({"taskDefinition": "app"})).is_err() {
        ecs::call(world, now, "RegisterTaskDefinition", &task)?;
    }
    let service = json!({"cluster": cluster, "serviceName": name, "taskDefinition": "app", "desiredCount": 1});
    ecs::call(world, now, "CreateService", &service).map(|_| ())
}
