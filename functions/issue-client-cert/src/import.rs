//! ACM holds the current pair as well: <https://docs.aws.amazon.com/acm/latest/APIReference/API_ImportCertificate.html>.

use std::time::Duration;

use aws_sdk_acm::config::retry::RetryConfig;
use aws_sdk_acm::error::ProvideErrorMetadata;
use aws_sdk_acm::operation::import_certificate::builders::ImportCertificateFluentBuilder;
use aws_sdk_acm::primitives::Blob;
use aws_sdk_acm::types::{CertificateSummary, CertificateType, Tag};
use lifecycle::export::Held;
use lifecycle::import::{Imported, Turn, adoption_hold, turn};
use lifecycle::issuance::{self, Order};
use lifecycle::leaf::Leaf;
use lifecycle::names::{Arn, CertificateName};
use lifecycle::record::{KeyFormat, Moment, Pair, Record};
use material::Material;
use records::table::Saved;
use runtime::{Failure, Invocation, publish};
use secrecy::ExposeSecret;
use time::OffsetDateTime;

use crate::{App, busy};

/// Makes `certificate_arn` the certificate in ACM that is to hold the pair, as [`Record::import_into`] does. What held it loses its
/// tag: with it, it would be adopted once its name is free. That comes first, so that whoever is stopped does both at the next try.
pub(crate) async fn move_to(
    app: &App,
    record: &mut Record,
    certificate_arn: Option<Arn>,
    invocation: &Invocation,
) -> Result<(), Failure> {
    let Some(gone) = record.import_into(certificate_arn) else { return Ok(()) };
    if let Some(until) = gone.busy(&invocation.id, invocation.now()) {
        return Err(busy(&record.name, until));
    }
    for arn in held(app, &record.name, &gone).await? {
        if record.acm_certificate() != Some(&arn) {
            untag(app, &record.name, &arn).await?;
        }
    }
    Ok(())
}

/// What holds the pair in ACM, and what may do so though ACM never said it.
pub(crate) async fn held(app: &App, name: &CertificateName, imported: &Imported) -> Result<Vec<Arn>, Failure> {
    let unanswered = match imported.asked {
        Some(asked) => find(app, name, *asked).await?,
        None => None,
    };
    Ok(imported.certificate_arn.iter().cloned().chain(unanswered).collect())
}

/// The certificate stays in ACM as it is, and is not the stack's any more.
pub(crate) async fn untag(app: &App, name: &CertificateName, arn: &Arn) -> Result<(), Failure> {
    if !is_of(app, arn, name).await? {
        // It is gone, or another certificate's by now; the role has no right over what is not tagged.
        return Ok(());
    }
    let doing = || format!("take the tag everleaf:certificate off {arn}");
    let tag = Tag::builder().key("everleaf:certificate").value(app.records.secret_name(name)).build();
    let tag = tag.map_err(|error| Failure::permanent(doing(), error))?;
    match app.acm.remove_tags_from_certificate().certificate_arn(arn.as_str()).tags(tag).send().await {
        Ok(_) => Ok(()),
        Err(error) if error.as_service_error().is_some_and(|error| error.is_resource_not_found_exception()) => Ok(()),
        Err(error) => Err(Failure::aws(doing(), error)),
    }
}

/// Imports the current pair where ACM is to hold it and does not.
pub(crate) async fn see_to(app: &App, record: &mut Record, invocation: &Invocation) -> Result<(), Failure> {
    let name = record.name.clone();
    let doing = |record: &Record| {
        let serial = record.current.as_ref().map_or_else(String::new, |pair| pair.serial.to_string());
        format!("import serial {serial} of `{name}` into ACM; the secret holds it")
    };
    let asked = loop {
        match turn(record, &invocation.id, invocation.now()) {
            Turn::Nothing => return Ok(()),
            Turn::Busy { until } => {
                let why = format!("another invocation is at it; ask again after {}", lifecycle::date(until));
                return Err(Failure::retryable(doing(record), why));
            }
            Turn::Import | Turn::Rest { .. } => {
                let asked = record.imported.as_ref().and_then(|imported| imported.asked);
                let (mut taken_up, look_at) = (record.clone(), record.look_at);
                taken_up.take_up_import(&invocation.id, invocation.now());
                if stored(app, &mut taken_up).await? {
                    *record = Record { look_at, ..taken_up };
                    break asked;
                }
                *record = reloaded(app, &name).await?;
            }
        }
    };
    let (doing, known) = (doing(record), record.acm_certificate().cloned());
    let failure = match import(app, &name, record.current.as_ref(), known.as_ref(), asked).await {
        Ok(arn) => {
            tracing::info!(certificate.name = %name, certificate.arn = %arn, "Imported `{name}` into ACM as {arn}");
            let is_new = known.as_ref() != Some(&arn);
            let serial = record.current.as_ref().map(|current| current.serial.clone());
            let imported = Imported { certificate_arn: Some(arn.clone()), serial, ..Imported::default() };
            if is_new {
                // Both before it is recorded: whoever is stopped does both at the next try.
                let said = Record { imported: Some(imported.clone()), ..record.clone() };
                let (noted, tagged) = tokio::join!(app.records.note_arn(&arn, &name), app.records.tag(&said));
                noted?;
                // What will never be tagged is told at the next look.
                match tagged {
                    Err(failure) if failure.is_permanent() => tracing::warn!("{failure}"),
                    tagged => tagged?,
                }
            }
            return conclude(app, record, |record| record.imported = Some(imported.clone())).await;
        }
        Err(failure) => failure.within(doing),
    };
    if failure.is_permanent() {
        let now = invocation.now();
        let mut event = None;
        conclude(app, record, |record| {
            let imported = record.imported.get_or_insert_default();
            (imported.lease, imported.refused) = (None, Some(now.into()));
            event = app.records.tell(record, "import-failed", &failure.to_string(), now);
        })
        .await?;
        publish(&app.eventbridge, event.as_slice()).await?;
    }
    Err(failure)
}

/// Records what came of an import, whatever others have recorded of the certificate meanwhile: what is to be in ACM nobody changes
/// but who has the lease.
async fn conclude(app: &App, record: &mut Record, mut what: impl FnMut(&mut Record)) -> Result<(), Failure> {
    loop {
        what(record);
        if stored(app, record).await? {
            return Ok(());
        }
        *record = reloaded(app, &record.name).await?;
    }
}

/// Whether nobody else has recorded anything of the certificate since it was loaded.
async fn stored(app: &App, record: &mut Record) -> Result<bool, Failure> {
    let services = record.options.services.clone();
    Ok(app.records.save(record, &services).await? == Saved::Done)
}

async fn reloaded(app: &App, name: &CertificateName) -> Result<Record, Failure> {
    let record = app.records.load(name).await?;
    record.ok_or_else(|| Failure::retryable(format!("load the record of `{name}`"), "somebody has deleted it meanwhile"))
}

/// Imports the pair under the ARN that is known, or under one that ACM gives it. `asked`: since when an earlier try is unanswered.
async fn import(
    app: &App,
    name: &CertificateName,
    pair: Option<&Pair>,
    known: Option<&Arn>,
    asked: Option<Moment>,
) -> Result<Arn, Failure> {
    let unreadable = |why: String| Failure::permanent(format!("read the secret of `{name}`"), why);
    let pair = pair.ok_or_else(|| unreadable("nothing in it is current".to_owned()))?;
    let text = app.records.value_of_version(name, &pair.version_id).await?;
    let material = text.map(|text| Material::read(&text)).transpose().map_err(unreadable)?.flatten();
    let Some(Material { certificate, certificate_chain, key: Some(key) }) = material else {
        return Err(unreadable(format!("version {} holds no pair", pair.version_id)));
    };
    let key = key.reseal(KeyFormat::Plain).map_err(unreadable)?.pem;
    let import = app
        .acm
        .import_certificate()
        .certificate(Blob::new(certificate))
        .certificate_chain(Blob::new(certificate_chain))
        .private_key(Blob::new(key.expose_secret().as_bytes()));

    if let Some(arn) = known
        && reimport(app, import.clone(), arn).await?
    {
        return Ok(arn.clone());
    }
    if let Some(asked) = asked
        && let Some(arn) = find(app, name, *asked).await?
        && reimport(app, import.clone(), &arn).await?
    {
        return Ok(arn);
    }
    let doing = || format!("import `{name}` for the first time");
    let tag = Tag::builder().key("everleaf:certificate").value(app.records.secret_name(name)).build();
    // ACM takes no token: each call that arrives makes another certificate.
    let once = aws_sdk_acm::config::Builder::new().retry_config(RetryConfig::disabled());
    let import = import.tags(tag.map_err(|error| Failure::permanent(doing(), error))?).customize().config_override(once);
    let answer = import.send().await.map_err(|error| Failure::aws(doing(), error))?;
    let arn = answer.certificate_arn().unwrap_or_default().parse();
    arn.map_err(|_| Failure::permanent(doing(), "AWS answered without the certificate's ARN"))
}

/// Whether ACM took the pair under this ARN; `false`: it has no such certificate any more.
async fn reimport(app: &App, import: ImportCertificateFluentBuilder, arn: &Arn) -> Result<bool, Failure> {
    let Err(error) = import.certificate_arn(arn.as_str()).send().await else { return Ok(true) };
    // The role has rights over what bears its tag: over what is gone it has none.
    let refused = matches!(error.code(), Some("ResourceNotFoundException" | "AccessDeniedException"));
    if !refused || acm::describe(&app.acm, arn).await?.is_some() {
        return Err(Failure::aws(format!("reimport into {arn}"), error));
    }
    // ACM takes one import a second.
    tokio::time::sleep(Duration::from_secs(2)).await;
    Ok(false)
}

/// What a first import left in ACM that was asked for then or later, and whose answer never came.
async fn find(app: &App, name: &CertificateName, asked: OffsetDateTime) -> Result<Option<Arn>, Failure> {
    // The clocks may be a minute apart.
    let since = asked.unix_timestamp() - 60;
    let may_be = |summary: &&CertificateSummary| {
        summary.r#type() == Some(&CertificateType::Imported) && summary.created_at().is_none_or(|at| since <= at.secs())
    };
    let mut pages = app.acm.list_certificates().includes(acm::any_key()).into_paginator().page_size(1000).send();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|error| Failure::aws("list ACM's certificates", error))?;
        for summary in page.certificate_summary_list().iter().filter(may_be) {
            let Ok(arn) = summary.certificate_arn().unwrap_or_default().parse() else { continue };
            if is_of(app, &arn, name).await? {
                return Ok(Some(arn));
            }
        }
    }
    Ok(None)
}

pub(crate) async fn is_of(app: &App, arn: &Arn, name: &CertificateName) -> Result<bool, Failure> {
    let managed = acm::managed(&app.acm, arn, &app.records.settings.prefix).await?;
    Ok(managed.is_some_and(|managed| managed.name == *name))
}

/// Whether the certificate that a request names may be replaced by what is ordered: its owner has tagged it so, and ACM will take it.
pub(crate) async fn admits(app: &App, order: &Order, arn: &Arn) -> Result<(), Failure> {
    let refused = |why: String| Failure::permanent("accept the request", format!("import_to_acm: {why}"));
    let (is_of, held) = tokio::try_join!(is_of(app, arn, &order.name), acm::describe(&app.acm, arn))?;
    if !is_of {
        let secret = app.records.secret_name(&order.name);
        return Err(refused(format!("{arn} is not yours to replace by it; tag it `everleaf:certificate` = `{secret}` first")));
    }
    let Some(held) = held.filter(Held::is_imported) else {
        return Err(refused(format!("{arn} was not imported; ACM renews it by itself, and export-to-secrets takes it")));
    };
    lifecycle::import::admits(&held, order.specification.key_algorithm).map_err(refused)
}

/// What replaces a certificate that was imported by hand, where its time has come.
pub(crate) async fn adoption(app: &App, record: &Record, arn: &Arn, now: OffsetDateTime) -> Result<Option<Order>, Failure> {
    let name = &record.name;
    let doing = || format!("read what {arn} is, which `{name}` is to replace");
    let answer = app.acm.get_certificate().certificate_arn(arn.as_str()).send().await;
    let answer = answer.map_err(|error| Failure::aws(doing(), error))?;
    let leaf = Leaf::from_pem(answer.certificate().unwrap_or_default()).map_err(|error| Failure::permanent(doing(), error))?;
    if adoption_hold(&record.options, (leaf.not_before, leaf.not_after), now).is_some() {
        return Ok(None);
    }
    issuance::replacement(leaf, record, arn, &app.policy, now).map(Some).map_err(|refusal| {
        Failure::permanent(
            format!("replace {arn} by `{name}`"),
            format!("{refusal}; send a request for `{name}` that the policy allows, with `\"import_to_acm\": \"{arn}\"`"),
        )
    })
}
