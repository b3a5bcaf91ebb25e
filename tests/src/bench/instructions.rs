//! Instructions, as valgrind's callgrind counts them: the same on every machine of a kind, however busy it is.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::Outcome;
use crate::account::Account;
use crate::sandbox::Sandbox;
use crate::start::Machine;

pub(crate) async fn measure(binaries: &Path) -> Outcome<()> {
    let mut account = Account::set_up(4).await?;
    let machine = Machine::new(&account).await?;
    let mut event = |function: &str| account.events.get_mut(function).and_then(Vec::pop).unwrap_or_default();
    let operations = [
        ("one issuance", "issue-client-cert", event("issue-client-cert")),
        ("one export", "export-to-secrets", event("export-to-secrets")),
        ("one sweep page", "renew-on-expiry", json!({"sweep": true})),
        ("one redeployment", "force-redeploy", event("force-redeploy")),
        ("one refresh", "refresh-truststore", event("refresh-truststore")),
    ];
    for (operation, function, event) in operations {
        let program = binaries.join(function).display().to_string();
        let environment = machine.environment(function);
        let start = count(&program, &environment, None).await?;
        let both = count(&program, &environment, Some(&event)).await?;
        crate::print(json!({"instructions": format!("start of {function}"), "count": start}));
        crate::print(json!({"instructions": operation, "count": both - start}));
    }
    Ok(())
}

async fn count(program: &str, environment: &BTreeMap<String, String>, event: Option<&Value>) -> Outcome<u64> {
    let file = std::env::temp_dir().join(format!("everleaf-callgrind-{}", std::process::id()));
    let output = format!("--callgrind-out-file={}", file.display());
    let mut sandbox =
        Sandbox::start(&["/usr/bin/env", "valgrind", "--quiet", "--tool=callgrind", &output, program], environment).await?;
    if let Some(event) = event {
        sandbox.invoke(event, Duration::from_secs(300)).await?;
    }
    sandbox.end().await?;
    let counted = std::fs::read_to_string(&file)?;
    std::fs::remove_file(&file)?;
    let totals = counted.lines().find_map(|line| line.strip_prefix("totals: ")).ok_or("callgrind counted nothing")?;
    Ok(totals.trim().parse()?)
}
