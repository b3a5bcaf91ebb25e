//! Brings certificates from Secrets Manager into containers, and keeps them fresh.
//!
//! - [`settings`]: what is asked for
//! - [`aws`]: which version of a secret is current, and its value
//! - [`files`]: a pair as the files that programs read
//! - [`directory`]: whole sets of files that replace each other
//! - [`reload`]: how a program is told
//! - [`health`]: what the health check reads

pub mod aws;
pub mod directory;
pub mod files;
pub mod health;
pub mod reload;
pub mod settings;

use std::convert::Infallible;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use aws_sdk_secretsmanager::Client;
use secrecy::SecretString;
use time::OffsetDateTime;

use crate::directory::{Current, Disk};
use crate::health::{Certificate, Health};
use crate::reload::Told;
use crate::settings::{Secret, Settings, Watch};

/// Brings every certificate once. What is good stays, whatever fails; the error names each that failed.
pub async fn fetch(settings: &Settings, client: &Client, now: OffsetDateTime) -> Result<(), String> {
    let mut faults = Vec::new();
    for secret in &settings.secrets {
        let brought = match aws::current_value(client, &secret.id).await {
            Ok((version, value)) => install(settings, secret, &version, &value, now),
            Err(fault) => Err(fault),
        };
        // Who starts after this reads what is there: there is nothing to be told of.
        let brought = brought.and_then(|current| directory::note_told(&secret.directory, &current.generation));
        match brought {
            Ok(()) => say(&format!("{} is in {}", secret.name, secret.directory.join("current").display())),
            Err(fault) => faults.push(format!("{}: {fault}", secret.name)),
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(faults.join("; ")) }
}

/// Looks again and again, at once when `asked`, and brings what is new. It never ends: drop it at any time.
pub async fn watch(
    settings: &Settings,
    watch: &Watch,
    client: &Client,
    clock: impl Fn() -> OffsetDateTime,
    mut asked: impl AsyncFnMut(),
) -> Infallible {
    let mut failures = 0;
    let mut said = String::new();
    loop {
        let health = look(settings, watch, client, &clock).await;
        let state = health.judge_certificates(clock()).unwrap_or_else(|bad| bad);
        if state != said {
            say(&state);
            said = state;
        }
        if let Err(fault) = health.write(&settings.directory) {
            say(&fault);
        }
        let failed = health.not_told.is_some() || health.certificates.values().any(|certificate| certificate.fault.is_some());
        failures = if failed { failures + 1 } else { 0 };
        let _ = tokio::time::timeout(pause(watch.interval, failures), asked()).await;
    }
}

/// One look at all certificates, and the word to the program when there is something new.
async fn look(settings: &Settings, watch: &Watch, client: &Client, clock: &impl Fn() -> OffsetDateTime) -> Health {
    let mut certificates = Vec::new();
    for secret in &settings.secrets {
        let fault = refresh(settings, secret, client, clock).await.err();
        certificates.push((secret, directory::current(&secret.directory, settings.formats), fault));
    }
    let mut health = Health::at(clock(), watch.interval);
    if let Some(reload) = &watch.reload {
        let news: Vec<_> = certificates
            .iter()
            .filter_map(|(secret, current, _)| Some((&secret.directory, &current.as_ref()?.generation)))
            .filter(|(directory, generation)| directory::told(directory).as_ref() != Some(*generation))
            .collect();
        if !news.is_empty() {
            let told = match reload.run().await {
                Ok(Told::Program) => {
                    news.iter().try_for_each(|(directory, generation)| directory::note_told(directory, generation))
                }
                Ok(Told::Nobody(why)) => {
                    health.nobody_told = Some(why);
                    Ok(())
                }
                Err(why) => Err(why),
            };
            health.not_told = told.err();
        }
    }
    for (secret, current, fault) in certificates {
        let (version, not_after) = current.map(|Current { version, not_after, .. }| (version, not_after)).unzip();
        health.certificates.insert(secret.name.clone(), Certificate { version, not_after, fault });
    }
    health
}

/// Brings a certificate when another version is current than the one that is there.
async fn refresh(
    settings: &Settings,
    secret: &Secret,
    client: &Client,
    clock: &impl Fn() -> OffsetDateTime,
) -> Result<(), String> {
    if let Some(current) = directory::current(&secret.directory, settings.formats)
        && current.version == aws::current_version(client, &secret.id).await?
    {
        return Ok(());
    }
    let (version, value) = aws::current_value(client, &secret.id).await?;
    install(settings, secret, &version, &value, clock()).map(|_| ())
}

/// Makes a version's files current, unless they are.
fn install(
    settings: &Settings,
    secret: &Secret,
    version: &str,
    value: &SecretString,
    now: OffsetDateTime,
) -> Result<Current, String> {
    let Secret { directory, .. } = secret;
    let password = directory::password(directory);
    let files = files::files(value, version, settings.formats, directory, password, now)?;
    let current = || directory::current(directory, settings.formats).filter(|current| current.version == version);
    let _lock = directory::lock(directory)?;
    let mut unhindered = |_, _: &Path| Ok(());
    let mut disk = Disk::new(&mut unhindered);
    if current().is_none() {
        directory::install(directory, version, &files, &mut disk)?;
    } else if let Err(fault) = directory::tidy(directory, &mut disk) {
        say(&fault);
    }
    current().ok_or_else(|| "what was written is not what is there".to_owned())
}

/// How long to wait before the next look: the interval, a tenth more or less, so that many tasks do not ask together; after a
/// failure less, and more with each further one.
fn pause(interval: Duration, failures: u32) -> Duration {
    let after_failure = Duration::from_secs(5) * 2_u32.pow(failures.saturating_sub(1).min(10));
    let base = if failures == 0 { interval } else { interval.min(after_failure) };
    base.mul_f64(0.9 + 0.2 * f64::from(material::random::<1>()[0]) / 255.0)
}

/// A line of the log. A log that nobody takes any more is no reason to end.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "everleaf-agent: {line}");
}
