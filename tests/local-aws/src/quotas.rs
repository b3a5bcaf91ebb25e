use std::collections::{BTreeMap, HashMap};

use time::{Duration, OffsetDateTime};

/// What AWS grants an account, per region.
///
/// - [ACM](https://docs.aws.amazon.com/acm/latest/userguide/acm-limits.html)
/// - [AWS Private CA](https://docs.aws.amazon.com/general/latest/gr/pca.html)
/// - [Secrets Manager](https://docs.aws.amazon.com/secretsmanager/latest/userguide/reference_limits.html)
/// - [ECS](https://docs.aws.amazon.com/AmazonECS/latest/APIReference/request-throttling.html)
/// - [Elastic Load Balancing](https://docs.aws.amazon.com/elasticloadbalancing/latest/userguide/elb-api-throttling.html)
///
/// An operation that is not listed is not limited.
const QUOTAS: &[Quota] = &[
    each("acm", 1, &["GetAccountConfiguration", "ImportCertificate", "PutAccountConfiguration"]),
    each("acm", 5, &["AddTagsToCertificate", "RemoveTagsFromCertificate", "RenewCertificate", "RequestCertificate"]),
    each("acm", 8, &["ListCertificates"]),
    each("acm", 10, &["DeleteCertificate", "DescribeCertificate", "ExportCertificate", "GetCertificate"]),
    each("acm", 10, &["ListTagsForCertificate"]),
    //
    each("acm-pca", 1, &["CreateCertificateAuthority", "CreatePermission", "DeletePermission"]),
    each("acm-pca", 5, &["ListPermissions"]),
    each("acm-pca", 10, &["GetCertificateAuthorityCsr", "UpdateCertificateAuthority"]),
    each("acm-pca", 20, &["DescribeCertificateAuthority", "GetCertificateAuthorityCertificate", "ListCertificateAuthorities"]),
    each("acm-pca", 20, &["RevokeCertificate"]),
    each("acm-pca", 25, &["IssueCertificate"]),
    each("acm-pca", 75, &["GetCertificate"]),
    //
    together("secretsmanager", 50, 50, &["PutSecretValue", "UpdateSecret", "UpdateSecretVersionStage"]),
    together("secretsmanager", 50, 50, &["TagResource", "UntagResource"]),
    each("secretsmanager", 50, &["CreateSecret", "DeleteSecret", "GetRandomPassword", "ListSecretVersionIds"]),
    each("secretsmanager", 10_000, &["GetSecretValue"]),
    each("secretsmanager", 40_000, &["DescribeSecret"]),
    //
    together("ecs", 20, 1, &["CreateCluster"]),
    together("ecs", 50, 20, &["DescribeClusters", "ListClusters"]),
    together("ecs", 20, 1, &["RegisterTaskDefinition"]),
    together("ecs", 50, 20, &["DescribeTaskDefinition"]),
    together("ecs", 50, 5, &["CreateService", "DeleteService", "UpdateService"]),
    together("ecs", 100, 20, &["DescribeServices", "ListServices"]),
    together("ecs", 100, 20, &["DescribeTasks", "ListTasks"]),
    together("ecs", 50, 20, &["DescribeServiceDeployments", "ListServiceDeployments", "StopServiceDeployment"]),
    together("ecs", 50, 20, &["DescribeServiceRevisions"]),
    //
    together(
        "elasticloadbalancing",
        40,
        10,
        &[
            "DescribeListeners",
            "DescribeLoadBalancers",
            "DescribeTags",
            "DescribeTrustStoreAssociations",
            "DescribeTrustStoreRevocations",
            "DescribeTrustStores",
            "GetTrustStoreCaCertificatesBundle",
            "GetTrustStoreRevocationContent",
        ],
    ),
];

struct Quota {
    service: &'static str,
    burst: u32,
    per_second: u32,
    shared: bool,
    operations: &'static [&'static str],
}

/// So many requests a second of each operation.
const fn each(service: &'static str, per_second: u32, operations: &'static [&'static str]) -> Quota {
    Quota { service, burst: per_second, per_second, shared: false, operations }
}

/// A bucket that the operations share: so many requests at once, so many a second in the long run.
const fn together(service: &'static str, burst: u32, per_second: u32, operations: &'static [&'static str]) -> Quota {
    Quota { service, burst, per_second, shared: true, operations }
}

/// The shortest time in which the quotas grant so many calls, by `service:Operation`, and an operation of the quota that takes it.
pub fn shortest(calls: &BTreeMap<String, usize>) -> (String, Duration) {
    let mut asked: BTreeMap<_, (&str, usize, &Quota)> = BTreeMap::new();
    for (action, count) in calls {
        let (service, operation) = action.split_once(':').unwrap_or_default();
        if let Some((quota, bucket)) = limit(service, operation) {
            asked.entry((service, bucket)).or_insert((action, 0, quota)).1 += count;
        }
    }
    let times = asked.into_values().map(|(action, count, quota)| {
        let at_once = f64::from(quota.burst).min(count as f64);
        (action.to_owned(), Duration::seconds_f64((count as f64 - at_once) / f64::from(quota.per_second)))
    });
    times.max_by_key(|(_, time)| *time).unwrap_or_default()
}

/// The quota of an operation, and the name of its bucket.
fn limit(service: &str, operation: &str) -> Option<(&'static Quota, &'static str)> {
    QUOTAS.iter().filter(|quota| quota.service == service).find_map(|quota| {
        let listed = quota.operations.iter().find(|listed| **listed == operation)?;
        Some((quota, if quota.shared { quota.operations[0] } else { *listed }))
    })
}

/// The token buckets of an account.
#[derive(Default)]
pub(crate) struct Quotas(HashMap<(&'static str, &'static str), Bucket>);

struct Bucket {
    tokens: f64,
    filled: OffsetDateTime,
}

impl Quotas {
    /// Takes one request from the bucket of the operation; `false` when it is empty.
    pub(crate) fn admits(&mut self, service: &str, operation: &str, now: OffsetDateTime) -> bool {
        let Some((quota, name)) = limit(service, operation) else { return true };
        let burst = f64::from(quota.burst);
        let bucket = self.0.entry((quota.service, name)).or_insert(Bucket { tokens: burst, filled: now });
        let refill = (now - bucket.filled).as_seconds_f64() * f64::from(quota.per_second);
        *bucket = Bucket { tokens: (bucket.tokens + refill).min(burst), filled: now };
        let admitted = bucket.tokens >= 1.0;
        if admitted {
            bucket.tokens -= 1.0;
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: OffsetDateTime = time::macros::datetime!(2026-01-01 00:00 UTC);

    /// How many of a great many requests at once are admitted.
    fn admitted(quotas: &mut Quotas, service: &str, operation: &str, now: OffsetDateTime) -> usize {
        (0..200).filter(|_| quotas.admits(service, operation, now)).count()
    }

    #[test]
    fn a_rate_per_second_is_granted_at_once_and_again_a_second_later() {
        let mut quotas = Quotas::default();
        assert_eq!(admitted(&mut quotas, "acm", "RenewCertificate", START), 5);
        assert_eq!(admitted(&mut quotas, "acm", "RenewCertificate", START + Duration::milliseconds(400)), 2);
        assert_eq!(admitted(&mut quotas, "acm", "RenewCertificate", START + Duration::days(1)), 5);
    }

    #[test]
    fn a_burst_refills_at_its_own_rate() {
        let mut quotas = Quotas::default();
        assert_eq!(admitted(&mut quotas, "ecs", "UpdateService", START), 50);
        assert_eq!(admitted(&mut quotas, "ecs", "UpdateService", START + Duration::seconds(2)), 10);
    }

    #[test]
    fn operations_share_a_bucket_only_where_aws_says_so() {
        let mut quotas = Quotas::default();
        assert_eq!(admitted(&mut quotas, "secretsmanager", "PutSecretValue", START), 50);
        assert_eq!(admitted(&mut quotas, "secretsmanager", "UpdateSecretVersionStage", START), 0);
        assert_eq!(admitted(&mut quotas, "secretsmanager", "CreateSecret", START), 50);
        assert_eq!(admitted(&mut quotas, "acm", "RenewCertificate", START), 5);
        assert_eq!(admitted(&mut quotas, "acm", "RequestCertificate", START), 5);
    }

    #[test]
    fn revocation_and_updates_of_a_ca_have_rates_of_their_own() {
        let mut quotas = Quotas::default();
        assert_eq!(admitted(&mut quotas, "acm-pca", "RevokeCertificate", START), 20);
        assert_eq!(admitted(&mut quotas, "acm-pca", "UpdateCertificateAuthority", START), 10);
    }

    #[test]
    fn what_is_not_listed_is_not_limited() {
        let mut quotas = Quotas::default();
        assert_eq!(admitted(&mut quotas, "events", "PutEvents", START), 200);
        assert_eq!(admitted(&mut quotas, "acm-pca", "RenewCertificate", START), 200);
    }

    #[test]
    fn calls_take_as_long_as_the_tightest_of_their_quotas_grants_them() {
        for (calls, expected, seconds) in [
            (&[("ecs:UpdateService", 10_000), ("acm-pca:IssueCertificate", 10_000)][..], "ecs:UpdateService", 1_990),
            (&[("acm-pca:IssueCertificate", 10_000), ("acm-pca:GetCertificate", 45_000)], "acm-pca:GetCertificate", 599),
            (
                &[("secretsmanager:PutSecretValue", 1_000), ("secretsmanager:UpdateSecretVersionStage", 1_000)],
                "secretsmanager:PutSecretValue",
                39,
            ),
            (&[("acm:RenewCertificate", 3), ("dynamodb:PutItem", 9_000)], "acm:RenewCertificate", 0),
        ] {
            let calls = calls.iter().map(|(action, count)| ((*action).to_owned(), *count)).collect();
            assert_eq!(shortest(&calls), (expected.to_owned(), Duration::seconds(seconds)));
        }
    }

    #[test]
    fn no_operation_is_listed_twice() {
        let mut listed: Vec<_> =
            QUOTAS.iter().flat_map(|quota| quota.operations.iter().map(|name| (quota.service, name))).collect();
        let all = listed.len();
        listed.sort_unstable();
        listed.dedup();
        assert_eq!(listed.len(), all);
    }
}
