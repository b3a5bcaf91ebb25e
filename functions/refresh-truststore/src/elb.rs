//! Trust stores and listeners: <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/>. Elastic Load Balancing's
//! codes on the wire lack the word `Exception`.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_sdk_elasticloadbalancingv2::Client;
use aws_sdk_elasticloadbalancingv2::config::retry::RetryConfig;
use aws_sdk_elasticloadbalancingv2::types::{
    AdvertiseTrustStoreCaNamesEnum, MutualAuthenticationAttributes, RevocationContent, RevocationType, Tag, TrustStore,
    TrustStoreStatus,
};
use lifecycle::names::{Arn, StoreName};
use lifecycle::trust::{Attached, Authentication, Listener, Mode};
use runtime::{Failure, Invocation};

/// A file in the stack's bucket.
pub(crate) struct File<'a> {
    pub(crate) bucket: &'a str,
    pub(crate) key: &'a str,
    pub(crate) version: Option<String>,
}

/// A trust store takes a few seconds to become active.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_secs(3);

/// A trust store as Elastic Load Balancing describes it.
pub(crate) struct Described {
    pub(crate) arn: Arn,
    active: bool,
}

impl Described {
    fn of(stores: &[TrustStore], doing: impl Fn() -> String) -> Result<Option<Self>, Failure> {
        let Some(store) = stores.first() else { return Ok(None) };
        let arn = store.trust_store_arn().unwrap_or_default().parse();
        let arn = arn.map_err(|_| Failure::permanent(doing(), "AWS answered without its ARN"))?;
        Ok(Some(Self { arn, active: store.status() == Some(&TrustStoreStatus::Active) }))
    }
}

/// `None` when there is no store of this name.
pub(crate) async fn find(elb: &Client, name: &StoreName) -> Result<Option<Described>, Failure> {
    let doing = || format!("look at the trust store `{name}`");
    let answer = match elb.describe_trust_stores().names(name.to_string()).send().await {
        Ok(answer) => answer,
        Err(error) if error.as_service_error().is_some_and(|error| error.is_trust_store_not_found_exception()) => {
            return Ok(None);
        }
        Err(error) => return Err(Failure::aws(doing(), error)),
    };
    Described::of(answer.trust_stores(), doing)
}

/// Where the certificates that the store really holds can be read, for ten minutes.
pub(crate) async fn bundle_location(elb: &Client, store: &Arn) -> Result<String, Failure> {
    let doing = || format!("ask what {store} holds");
    let answer = elb.get_trust_store_ca_certificates_bundle().trust_store_arn(store.as_str()).send().await;
    let answer = answer.map_err(|error| Failure::aws(doing(), error))?;
    answer.location.ok_or_else(|| Failure::permanent(doing(), "AWS answered without a location"))
}

/// Makes the store. One of this name that is there already was made by an earlier try, or by somebody else at this moment: what
/// it holds tells which.
pub(crate) async fn create(elb: &Client, name: &StoreName, prefix: &str, file: &File<'_>) -> Result<Option<Described>, Failure> {
    let doing = || format!("create the trust store `{name}`");
    let create = elb.create_trust_store().name(name.to_string()).ca_certificates_bundle_s3_bucket(file.bucket);
    let create =
        create.ca_certificates_bundle_s3_key(file.key).set_ca_certificates_bundle_s3_object_version(file.version.clone());
    let tag = Tag::builder().key("everleaf:trust-store").value(format!("{prefix}/{name}")).build();
    match create.tags(tag).send().await {
        Ok(answer) => Described::of(answer.trust_stores(), doing),
        Err(error) if error.as_service_error().is_some_and(|error| error.is_duplicate_trust_store_name_exception()) => Ok(None),
        Err(error) => Err(Failure::aws(doing(), error)),
    }
}

/// Replaces everything that the store holds.
pub(crate) async fn modify(elb: &Client, store: &Arn, file: &File<'_>) -> Result<Option<Described>, Failure> {
    let doing = || format!("modify the trust store {store}");
    let modify = elb.modify_trust_store().trust_store_arn(store.as_str()).ca_certificates_bundle_s3_bucket(file.bucket);
    let modify =
        modify.ca_certificates_bundle_s3_key(file.key).set_ca_certificates_bundle_s3_object_version(file.version.clone());
    let answer = modify.send().await.map_err(|error| Failure::aws(doing(), error))?;
    Described::of(answer.trust_stores(), doing)
}

/// The store's ARN once it is active. `seen`: as it was described when it was written.
pub(crate) async fn wait_until_active(
    elb: &Client,
    name: &StoreName,
    mut seen: Option<Described>,
    invocation: &Invocation,
) -> Result<Arn, Failure> {
    let give_up = tokio::time::Instant::now() + PATIENCE.min(invocation.time_left().saturating_sub(Duration::from_secs(15)));
    loop {
        if let Some(Described { arn, active: true }) = seen {
            return Ok(arn);
        }
        if tokio::time::Instant::now() + PAUSE >= give_up {
            return Err(Failure::retryable(format!("wait for the trust store `{name}`"), "it is still being created"));
        }
        tokio::time::sleep(PAUSE).await;
        seen = find(elb, name).await?;
    }
}

/// The ids of the CRLs that the store holds.
pub(crate) async fn revocations(elb: &Client, store: &Arn) -> Result<Vec<i64>, Failure> {
    let mut pages = elb.describe_trust_store_revocations().trust_store_arn(store.as_str()).into_paginator().send();
    let mut ids = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|error| Failure::aws(format!("ask which CRLs {store} holds"), error))?;
        ids.extend(page.trust_store_revocations().iter().filter_map(|revocation| revocation.revocation_id()));
    }
    Ok(ids)
}

/// Where a CRL of the store can be read, for ten minutes; `None` when it has just been removed.
pub(crate) async fn crl_location(elb: &Client, store: &Arn, id: i64) -> Result<Option<String>, Failure> {
    match elb.get_trust_store_revocation_content().trust_store_arn(store.as_str()).revocation_id(id).send().await {
        Ok(answer) => Ok(answer.location),
        Err(error) if error.as_service_error().is_some_and(|error| error.is_revocation_id_not_found_exception()) => Ok(None),
        Err(error) => Err(Failure::aws(format!("read CRL {id} of {store}"), error)),
    }
}

/// Adds a CRL and gives its id. There is no token for it, so the SDK does not repeat it: what an unknown outcome leaves is found
/// by the next look.
pub(crate) async fn add_crl(elb: &Client, store: &Arn, file: &File<'_>) -> Result<i64, Failure> {
    let doing = || format!("add the CRL {} to {store}", file.key);
    let content = RevocationContent::builder().s3_bucket(file.bucket).s3_key(file.key).revocation_type(RevocationType::Crl);
    let content = content.set_s3_object_version(file.version.clone()).build();
    let add = elb.add_trust_store_revocations().trust_store_arn(store.as_str()).revocation_contents(content).customize();
    let once = aws_sdk_elasticloadbalancingv2::config::Builder::new().retry_config(RetryConfig::disabled());
    let answer = add.config_override(once).send().await.map_err(|error| Failure::aws(doing(), error))?;
    let id = answer.trust_store_revocations().first().and_then(|revocation| revocation.revocation_id());
    id.ok_or_else(|| Failure::permanent(doing(), "AWS answered without its id"))
}

pub(crate) async fn remove_crls(elb: &Client, store: &Arn, ids: &[i64]) -> Result<(), Failure> {
    let remove = elb.remove_trust_store_revocations().trust_store_arn(store.as_str()).set_revocation_ids(Some(ids.to_vec()));
    match remove.send().await {
        Ok(_) => Ok(()),
        Err(error) if error.as_service_error().is_some_and(|error| error.is_revocation_id_not_found_exception()) => Ok(()),
        Err(error) => Err(Failure::aws(format!("remove the CRLs {ids:?} from {store}"), error)),
    }
}

/// How listeners authenticate clients now; those that do not exist are left out.
pub(crate) async fn listeners(elb: &Client, arns: &[&Arn]) -> Result<BTreeMap<Arn, Attached>, Failure> {
    let mut found = BTreeMap::new();
    for some in arns.chunks(20) {
        match describe(elb, some).await? {
            Some(attached) => found.extend(attached),
            // One that is gone spoils the answer for all.
            None => {
                for one in some.chunks(1) {
                    found.extend(describe(elb, one).await?.unwrap_or_default());
                }
            }
        }
    }
    Ok(found)
}

async fn describe(elb: &Client, arns: &[&Arn]) -> Result<Option<Vec<(Arn, Attached)>>, Failure> {
    let arns = arns.iter().map(|arn| arn.to_string()).collect();
    let answer = match elb.describe_listeners().set_listener_arns(Some(arns)).send().await {
        Ok(answer) => answer,
        Err(error) if error.as_service_error().is_some_and(|error| error.is_listener_not_found_exception()) => return Ok(None),
        Err(error) => return Err(Failure::aws("look at the listeners", error)),
    };
    let attached = |listener: &aws_sdk_elasticloadbalancingv2::types::Listener| {
        Some((listener.listener_arn()?.parse().ok()?, listener.mutual_authentication().map_or_else(off, attached)))
    };
    Ok(Some(answer.listeners().iter().filter_map(attached).collect()))
}

fn off() -> Attached {
    Attached { authentication: Authentication { mode: Mode::Off, ..Authentication::default() }, store: None }
}

fn attached(attributes: &MutualAuthenticationAttributes) -> Attached {
    let mode = attributes.mode().and_then(|mode| mode.parse().ok()).unwrap_or(Mode::Off);
    if mode != Mode::Verify {
        return Attached { authentication: Authentication { mode, ..Authentication::default() }, store: None };
    }
    Attached {
        authentication: Authentication {
            mode,
            ignore_client_certificate_expiry: attributes.ignore_client_certificate_expiry() == Some(true),
            advertise_trust_store_ca_names: attributes.advertise_trust_store_ca_names()
                == Some(&AdvertiseTrustStoreCaNamesEnum::On),
        },
        store: attributes.trust_store_arn().and_then(|arn| arn.parse().ok()),
    }
}

/// Changes how a listener authenticates clients, and nothing else of it.
pub(crate) async fn attach(elb: &Client, listener: &Listener, store: Option<&Arn>) -> Result<(), Failure> {
    let Listener { listener_arn, authentication, .. } = listener;
    let attributes = MutualAuthenticationAttributes::builder().mode(authentication.mode.as_str());
    let attributes = match authentication.mode {
        Mode::Verify => attributes
            .set_trust_store_arn(store.map(Arn::to_string))
            .ignore_client_certificate_expiry(authentication.ignore_client_certificate_expiry)
            .advertise_trust_store_ca_names(match authentication.advertise_trust_store_ca_names {
                true => AdvertiseTrustStoreCaNamesEnum::On,
                false => AdvertiseTrustStoreCaNamesEnum::Off,
            }),
        Mode::Passthrough | Mode::Off => attributes,
    };
    let modify = elb.modify_listener().listener_arn(listener_arn.as_str()).mutual_authentication(attributes.build());
    modify
        .send()
        .await
        .map(|_| ())
        .map_err(|error| Failure::aws(format!("let the listener {listener_arn} authenticate clients"), error))
}
