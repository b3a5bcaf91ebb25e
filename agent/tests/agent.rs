//! The agent on Local AWS: Everleaf issues and renews, the agent brings.

#![expect(clippy::unwrap_used, reason = "a test fails by it")]

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use aws_sdk_secretsmanager::Client;
use everleaf_agent::directory::{self, Disk};
use everleaf_agent::health::Health;
use everleaf_agent::reload::{Reload, Told};
use everleaf_agent::settings::{Command, Settings, Watch};
use everleaf_agent::{fetch, files, watch};
use local_aws::{AwsError, Call, Fault};
use material::{Key, Material, Wanted};
use p12_keystore::{KeyStore, KeyStoreEntry, Pkcs12ImportPolicy};
use serde_json::{Value, json};
use workflow::Stack;

const PEM: [&str; 6] = ["ca.pem", "cert.pem", "chain.pem", "fullchain.pem", "key.pem", "version"];

#[test]
fn a_certificate_becomes_files_that_belong_together() {
    run(async {
        let world = World::with(&["orders"]).await;
        let settings = world.settings("fetch", &["--secret", "everleaf/orders"]);
        fetch(&settings, &world.client(), world.stack.aws.now()).await.unwrap();
        let set = world.directory.0.join("current");
        assert_eq!(names(&set), PEM);
        let leaf = verified(&set);
        let (full, chain, ca) = (pem(&set, "fullchain.pem"), pem(&set, "chain.pem"), pem(&set, "ca.pem"));
        // Below the root there is one issuing CA.
        assert_eq!((full.len(), chain.len(), ca.len()), (2, 2, 1));
        assert_eq!((&full[0], &full[1], &ca[0]), (&pem(&set, "cert.pem")[0], &chain[0], &chain[1]));
        assert_eq!(Some(leaf), world.serial("orders").await);
        for (name, mode) in [("key.pem", 0o600), ("cert.pem", 0o644), ("ca.pem", 0o644)] {
            assert_eq!(set.join(name).metadata().unwrap().permissions().mode() & 0o777, mode, "{name}");
        }
        assert!(text(&set, "key.pem").starts_with("-----BEGIN PRIVATE KEY-----\n"));

        // Again: nothing changes.
        let before = fs::read_link(&set).unwrap();
        fetch(&settings, &world.client(), world.stack.aws.now()).await.unwrap();
        assert_eq!(fs::read_link(&set).unwrap(), before);
    });
}

/// The chain of a public certificate ends at a cross-signed root of Amazon's: nothing in it is self-issued.
#[test]
fn a_public_certificate_becomes_files_too_with_the_end_of_its_chain_as_what_to_trust() {
    run(async {
        let world = World::with(&[]).await;
        let tags = json!([{"Key": "everleaf:certificate", "Value": "everleaf/shop"}]);
        let request = json!({"DomainName": "shop.example.com", "Options": {"Export": "ENABLED"}, "Tags": tags});
        world.stack.aws.call("acm:RequestCertificate", request).await.unwrap();
        minutes(2).await;
        let settings = world.settings("fetch", &["--secret", "everleaf/shop", "--for", "java,envoy"]);
        for _ in 0..2 {
            fetch(&settings, &world.client(), world.stack.aws.now()).await.unwrap();
        }
        let set = world.directory.0.join("current");
        verified(&set);
        let (full, chain, ca) = (pem(&set, "fullchain.pem"), pem(&set, "chain.pem"), pem(&set, "ca.pem"));
        assert_eq!(ca[..], chain[chain.len() - 1..]);
        // All of it is sent: a client may know only the root that cross-signed.
        assert_eq!(full, [pem(&set, "cert.pem"), chain].concat());
        let password = text(&set, "keystore.password");
        let trusted =
            KeyStore::from_pkcs12(&fs::read(set.join("truststore.p12")).unwrap(), &password, Pkcs12ImportPolicy::Strict).unwrap();
        let trusted: Vec<_> = trusted.entries().map(|(_, entry)| entry).collect();
        let [KeyStoreEntry::Certificate(anchor)] = trusted[..] else { panic!("{} entries", trusted.len()) };
        assert_eq!(anchor.as_der(), ca[0]);
        // The set counts as whole: the second look changed nothing.
        assert_eq!(generations(&world.directory.0).len(), 1);
    });
}

#[test]
fn several_certificates_stand_beside_each_other_and_one_that_fails_leaves_the_others() {
    run(async {
        let world = World::with(&["orders", "billing"]).await;
        let given = ["--secret", "everleaf/orders", "--secret", "pay=everleaf/billing", "--secret", "everleaf/none"];
        let settings = world.settings("fetch", &given);
        let why = fetch(&settings, &world.client(), world.stack.aws.now()).await.unwrap_err();
        assert!(why.starts_with("none: ResourceNotFoundException: "), "{why}");
        let top = &world.directory.0;
        assert_eq!(names(top), ["orders", "pay"]);
        for (place, name) in [("orders", "orders"), ("pay", "billing")] {
            assert_eq!(Some(verified(&top.join(place).join("current"))), world.serial(name).await);
        }
    });
}

#[test]
fn what_is_no_good_pair_is_refused_and_the_good_one_stays() {
    run(async {
        let world = World::with(&["orders", "billing"]).await;
        let settings = world.settings("fetch", &["--secret", "everleaf/orders"]);
        let client = world.client();
        let (orders, billing) = (world.value("orders"), world.value("billing"));
        let with = |name: &str, value: &Value| {
            let mut changed = orders.clone();
            changed[name] = value.clone();
            changed.to_string()
        };
        fetch(&settings, &client, world.stack.aws.now()).await.unwrap();
        let (set, link) = (world.directory.0.join("current"), fs::read_link(world.directory.0.join("current")).unwrap());
        let bad = [
            ("{}".to_owned(), "not issued yet"),
            ("rubbish".to_owned(), "not a JSON object"),
            (with("private_key", &Value::Null), "holds no key"),
            (with("private_key", &billing["private_key"]), "passphrase does not open"),
            (with("certificate", &billing["certificate"]), "does not belong to the certificate"),
            (with("certificate_chain", &json!("")), "there is no chain"),
        ];
        for (value, says) in bad {
            world.put("orders", &value).await;
            let why = fetch(&settings, &client, world.stack.aws.now()).await.unwrap_err();
            assert!(why.contains(says), "`{says}` is not in: {why}");
            assert_eq!(fs::read_link(&set).unwrap(), link);
        }
        world.put("orders", &orders.to_string()).await;
        let why = fetch(&settings, &client, world.stack.aws.now() + Duration::from_secs(31 * 86400)).await.unwrap_err();
        assert!(why.contains("the certificate is valid from"), "{why}");
        verified(&set);
    });
}

#[test]
fn watching_asks_for_a_value_only_when_its_version_is_new_and_follows_renewals_by_itself() {
    run(async {
        let world = World::with(&["orders"]).await;
        let (settings, how) = world.watch(&["--secret", "everleaf/orders", "--interval", "1h"]);
        let watching = world.watching(&settings, &how).await;
        minutes(61 * 24).await;
        let calls = world.stack.aws.take_calls();
        let asked = |operation: &str| calls.iter().filter(|it| it.caller == "agent" && it.operation == operation).count();
        assert_eq!(asked("GetSecretValue"), 1);
        assert!((20..30).contains(&asked("DescribeSecret")), "{}", asked("DescribeSecret"));

        let set = world.directory.0.join("current");
        let first = verified(&set);
        minutes(60 * 24 * 22).await;
        let second = verified(&set);
        assert_ne!(second, first);
        assert_eq!(Some(&second), world.serial("orders").await.as_ref());
        let health = Health::read(&world.directory.0).unwrap().judge(world.stack.aws.now()).unwrap();
        assert!(health.starts_with("good: orders until 2027-0"), "{health}");
        watching.abort();
    });
}

#[test]
fn whatever_aws_does_the_last_good_set_stays_and_the_health_says_so_until_it_expires() {
    run(async {
        let world = World::with(&["orders"]).await;
        let (settings, how) = world.watch(&["--secret", "everleaf/orders", "--interval", "10m"]);
        let watching = world.watching(&settings, &how).await;
        minutes(1).await;
        let set = world.directory.0.join("current");
        let link = fs::read_link(&set).unwrap();
        world.put("orders", &world.value("orders").to_string()).await;
        let faults = [
            (Fault::Refuse(AwsError::new("AccessDeniedException", "not you")), "AccessDeniedException: not you"),
            (Fault::Refuse(AwsError::new("ResourceNotFoundException", "gone")), "ResourceNotFoundException: gone"),
            (Fault::Refuse(AwsError::internal()), "Internal"),
            (Fault::Reset, "dispatch failure"),
            (
                Fault::Answer(json!({"VersionIdsToStages": 7, "SecretString": ["-----BEGIN PRIVATE KEY-----"]})),
                "failed to parse JSON",
            ),
        ];
        for (fault, says) in faults {
            world.spoil(move |call| (call.caller == "agent").then(|| fault.clone()));
            minutes(15).await;
            assert_eq!(fs::read_link(&set).unwrap(), link);
            let health = Health::read(&world.directory.0).unwrap().judge(world.stack.aws.now()).unwrap();
            assert!(health.contains(says) && health.starts_with("good: ") && !health.contains("PRIVATE"), "{health}");
        }
        // For weeks.
        minutes(60 * 24 * 30).await;
        let health = Health::read(&world.directory.0).unwrap();
        assert!(health.judge(world.stack.aws.now()).unwrap_err().starts_with("expired: orders at "));
        world.stack.aws.set_faults(None);
        minutes(20).await;
        let health = Health::read(&world.directory.0).unwrap();
        health.judge(world.stack.aws.now()).unwrap();
        verified(&set);
        watching.abort();
        minutes(60).await;
        assert!(health.judge(world.stack.aws.now()).unwrap_err().starts_with("stale: "));
    });
}

#[test]
fn a_certificate_that_is_not_there_yet_is_missing_and_comes_soon_after_it_is_issued() {
    run(async {
        let world = World::with(&[]).await;
        let (settings, how) = world.watch(&["--secret", "everleaf/orders", "--interval", "5m"]);
        let watching = world.watching(&settings, &how).await;
        minutes(30).await;
        let health = Health::read(&world.directory.0).unwrap();
        assert!(health.judge(world.stack.aws.now()).unwrap_err().starts_with("missing: orders: ResourceNotFoundException"));
        assert!(!world.directory.0.join("current").exists());
        world.issue("orders").await;
        minutes(6).await;
        Health::read(&world.directory.0).unwrap().judge(world.stack.aws.now()).unwrap();
        watching.abort();
    });
}

#[test]
fn who_reads_while_sets_replace_each_other_never_meets_a_mixture() {
    run(async {
        let world = World::with(&["orders", "billing"]).await;
        let (settings, how) = world.watch(&["--secret", "everleaf/orders", "--interval", "1m"]);
        let watching = world.watching(&settings, &how).await;
        minutes(1).await;
        let (values, now) =
            ([world.value("orders"), world.value("billing")].map(|value| value.to_string()), world.stack.aws.now());
        let (set, ended, reads) =
            (world.directory.0.join("current"), Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let (stop, read) = (ended.clone(), reads.clone());
        let reader = std::thread::spawn(move || {
            let mut serials = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let serial = verified_at(&set.canonicalize().unwrap(), now);
                if serials.last() != Some(&serial) {
                    serials.push(serial);
                }
                read.fetch_add(1, Ordering::Relaxed);
            }
            serials
        });
        let read_twice = || {
            let before = reads.load(Ordering::Relaxed);
            until(|| reads.load(Ordering::Relaxed) >= before + 2);
        };
        for place in 0..20 {
            read_twice();
            world.put("orders", &values[(place + 1) % 2]).await;
            minutes(2).await;
        }
        read_twice();
        ended.store(true, Ordering::Relaxed);
        let (serials, reads) = (reader.join().unwrap(), reads.load(Ordering::Relaxed));
        assert!(reads > 40 && serials.len() == 21, "{reads} reads saw {} sets", serials.len());
        assert_eq!(generations(&world.directory.0).len(), 2);
        watching.abort();
    });
}

#[test]
fn whatever_stops_the_writing_the_old_set_is_whole_or_the_new_one_is() {
    run(async {
        let world = World::with(&["orders", "billing"]).await;
        let formats = world.settings("fetch", &["--secret", "everleaf/orders", "--for", "java,envoy"]).formats;
        let directory = &world.directory.0;
        let set_of = |name: &str| {
            let value = world.value(name).to_string().into();
            files::files(&value, name, formats, directory, None, world.stack.aws.now()).unwrap()
        };
        let sets = [("orders", set_of("orders")), ("billing", set_of("billing"))];
        let whole = || {
            let current = directory::current(directory, formats)?;
            let (version, files) = sets.iter().find(|(version, _)| *version == current.version).unwrap();
            let same =
                |(name, file): (&&str, &files::File)| fs::read(directory.join("current").join(name)).unwrap() == *file.content;
            assert!(files.iter().all(same), "{version}");
            Some(*version)
        };
        let install = |which: usize, before: &mut dyn FnMut(&'static str, &Path) -> io::Result<()>| {
            let _lock = directory::lock(directory)?;
            directory::install(directory, sets[which].0, &sets[which].1, &mut Disk::new(before))
        };
        let mut most = 0;
        for begun in [None, Some(0)] {
            for stop in [Stop::Fails, Stop::Killed, Stop::PowerLost] {
                for at in 0.. {
                    let _ = fs::remove_dir_all(directory);
                    fs::create_dir_all(directory).unwrap();
                    if let Some(which) = begun {
                        // Three: the sweep of the older ones is a part of it.
                        for _ in 0..3 {
                            install(which, &mut |_, _| Ok(())).unwrap();
                        }
                    }
                    let (mut step, mut volatile) = (0, BTreeSet::new());
                    let outcome = install(1, &mut |what, path| {
                        step += 1;
                        if step == at + 1 && what == "write" {
                            let content = &sets[1].1[path.file_name().unwrap().to_str().unwrap()].content;
                            fs::write(path, &content[..content.len() / 2]).unwrap();
                        }
                        if step == at + 1 || step > at && stop != Stop::Fails {
                            return Err(io::Error::other("of the test"));
                        }
                        match what {
                            "write" | "create" => _ = volatile.insert(path.to_owned()),
                            "sync" => _ = volatile.remove(path),
                            _ => {}
                        }
                        Ok(())
                    });
                    if stop == Stop::PowerLost {
                        for path in volatile {
                            let _ = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::write(&path, "") };
                        }
                    }
                    let found = whole();
                    let new = Some("billing");
                    assert!(
                        found == new || found == begun.map(|_| "orders") && outcome.is_err(),
                        "{found:?} {outcome:?} {stop:?} {at}"
                    );
                    // The next look puts it right.
                    install(1, &mut |_, _| Ok(())).unwrap();
                    assert_eq!(whole(), new);
                    let kept = generations(directory);
                    let lacks = |set: &String| names(&directory.join(".generations").join(set)).len() != sets[0].1.len();
                    assert!(kept.len() <= 2 && !kept.iter().any(lacks), "{kept:?} {stop:?} {at}");
                    assert_eq!(fs::symlink_metadata(directory.join(".next")).ok().map(|_| ()), None);
                    if step <= at {
                        most = most.max(step);
                        break;
                    }
                }
            }
        }
        // Eleven files written and made durable, and what is around them.
        assert!(most > 25, "{most}");
    });
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Stop {
    /// One change fails.
    Fails,
    /// None is made any more.
    Killed,
    /// And what was not made durable is gone.
    PowerLost,
}

#[test]
fn the_program_is_told_of_each_new_set_also_when_the_agent_died_before_it_could() {
    run(async {
        let world = World::with(&["orders", "billing"]).await;
        let (program, values) = (Program::start(&world.directory.0), [world.value("orders"), world.value("billing")]);
        let values = values.map(|value| value.to_string());
        let pid_file = program.pid_file.to_str().unwrap();
        let given = ["--secret", "certs=everleaf/orders", "--interval", "1m", "--signal", &format!("USR1:{pid_file}")];
        let (settings, how) = world.watch(&given);
        let client = world.client();
        fetch(&settings, &client, world.stack.aws.now()).await.unwrap();

        let watching = world.watching(&settings, &how).await;
        minutes(10).await;
        world.put("orders", &values[1]).await;
        minutes(10).await;
        program.was_told(1);
        watching.abort();

        // A new set, and nobody was told.
        world.put("orders", &values[0]).await;
        let only_files = Watch { reload: None, ..how.clone() };
        let watching = world.watching(&settings, &only_files).await;
        minutes(10).await;
        watching.abort();
        let id = fs::read_to_string(&program.pid_file).unwrap();
        fs::write(&program.pid_file, "rubbish").unwrap();
        let watching = world.watching(&settings, &how).await;
        minutes(10).await;
        let health = || Health::read(&world.directory.0).unwrap().judge(world.stack.aws.now());
        let why = health().unwrap_err();
        assert!(why.starts_with("not reloaded: ") && why.contains("holds no process id"), "{why}");
        // Who does not run is not told, and is not ill; who is looked for in a wrong place looks the same.
        fs::remove_file(&program.pid_file).unwrap();
        minutes(10).await;
        let but = format!(", but nobody is told of the new certificate: there is no {pid_file}");
        assert!(health().unwrap().ends_with(&but), "{:?}", health());
        program.was_told(1);
        fs::write(&program.pid_file, id).unwrap();
        minutes(10).await;
        assert!(!health().unwrap().contains("but"), "{:?}", health());
        program.was_told(2);
        watching.abort();
    });
}

#[tokio::test]
async fn a_command_that_fails_or_is_not_there_is_said() {
    let exec = |line: &str| {
        let mut words = line.split(' ').map(str::to_owned);
        Reload::Exec(words.next().unwrap(), words.collect())
    };
    assert_eq!(exec("true").run().await, Ok(Told::Program));
    assert_eq!(exec("false").run().await, Err("`false` ended with exit status: 1".to_owned()));
    assert!(exec("/none --quietly").run().await.unwrap_err().starts_with("`/none`: No such file"));
    let signal = |text: &str| text.parse::<Reload>().unwrap();
    assert!(signal("HUP:0").run().await.unwrap_err().contains("not the id of a process"));
    assert!(signal("HUP:-1").run().await.unwrap_err().contains("not the id of a process"));
    let nobody = |why: &str| Ok(Told::Nobody(why.to_owned()));
    assert_eq!(signal("SIGHUP:2147483647").run().await, nobody("there is no process 2147483647"));
    assert_eq!(signal("HUP:/none/nginx.pid").run().await, nobody("there is no /none/nginx.pid"));
    // Taken for the program's id where the two share no ids. Who gets this signal ignores it.
    let own = signal(&format!("WINCH:{}", std::process::id())).run().await;
    assert!(own.as_ref().is_err_and(|why| why.contains("is the agent itself") && why.contains("\"pidMode\"")), "{own:?}");
}

/// A certificate authority, Everleaf, and a directory for the agent.
struct World {
    stack: Stack,
    directory: Directory,
}

impl World {
    /// With these certificates.
    async fn with(names: &[&str]) -> Self {
        let stack = Stack::deploy_on("EC_prime256v1", &[("SweepMinutes", "240")]).await;
        let world = Self { stack, directory: Directory::new() };
        for name in names {
            world.issue(name).await;
        }
        world
    }

    async fn issue(&self, name: &str) {
        let request = json!({"name": name, "subject": {"common_name": name}, "usage": "client-and-server"});
        self.stack.handle("issue-client-cert", request, name).await.unwrap();
        self.stack.aws.take_calls();
    }

    fn client(&self) -> Client {
        Client::new(&self.stack.sdk("agent"))
    }

    /// The value that is current.
    fn value(&self, name: &str) -> Value {
        let value = |world: &local_aws::World| world.secrets.value(&format!("everleaf/{name}"), None, None).unwrap().to_owned();
        serde_json::from_str(&self.stack.aws.world(|world, _| value(world))).unwrap()
    }

    /// Makes another value current, behind Everleaf's back.
    async fn put(&self, name: &str, value: &str) {
        let token = format!("{:032}", fresh());
        let input = json!({"SecretId": format!("everleaf/{name}"), "SecretString": value, "ClientRequestToken": token});
        self.stack.aws.call("secretsmanager:PutSecretValue", input).await.unwrap();
    }

    async fn serial(&self, name: &str) -> Option<String> {
        Some(self.stack.record(name).await?.current?.serial.to_string())
    }

    fn spoil(&self, mut fault: impl FnMut(&Call) -> Option<Fault> + Send + 'static) {
        self.stack.aws.set_faults(Some(Box::new(move |call| fault(call))));
    }

    fn command(&self, command: &str, options: &[&str]) -> Command {
        let directory = ["--directory", self.directory.0.to_str().unwrap()];
        let arguments = [&[command], &directory[..], options].concat();
        Command::parse(arguments.into_iter().map(str::to_owned).collect(), |_| None).unwrap()
    }

    fn settings(&self, command: &str, options: &[&str]) -> Settings {
        match self.command(command, options) {
            Command::Fetch(settings) | Command::Watch(settings, _) => settings,
            other => panic!("{other:?}"),
        }
    }

    fn watch(&self, options: &[&str]) -> (Settings, Watch) {
        match self.command("watch", options) {
            Command::Watch(settings, how) => (settings, how),
            other => panic!("{other:?}"),
        }
    }

    async fn watching(&self, settings: &Settings, how: &Watch) -> tokio::task::JoinHandle<()> {
        let (settings, how, client, aws) = (settings.clone(), how.clone(), self.client(), self.stack.aws.clone());
        tokio::spawn(async move { match watch(&settings, &how, &client, || aws.now(), std::future::pending).await {} })
    }
}

/// A directory that is gone when the test is over.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("agent-{}-{}", std::process::id(), fresh()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A program that notes each USR1.
struct Program {
    process: Child,
    pid_file: PathBuf,
    notes: PathBuf,
}

impl Program {
    fn start(directory: &Path) -> Self {
        let (pid_file, notes) = (directory.join("program.pid"), directory.join("program.notes"));
        let script = format!("trap 'echo told >> {}' USR1; while :; do sleep 0.01; done", notes.display());
        // The trap is set before the id is written.
        let script = script.replace("; while", &format!("; echo $$ > {}; while", pid_file.display()));
        let process = std::process::Command::new("sh").args(["-c", &script]).spawn().unwrap();
        until(|| pid_file.exists() && !fs::read(&pid_file).unwrap().is_empty());
        Self { process, pid_file, notes }
    }

    fn was_told(&self, times: usize) {
        let told = || fs::read_to_string(&self.notes).unwrap_or_default().lines().count();
        until(|| told() >= times);
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(told(), times);
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// By the machine's clock.
fn until(mut look: impl FnMut() -> bool) {
    for _ in 0..500 {
        if look() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("not within five seconds");
}

fn fresh() -> u32 {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    COUNT.fetch_add(1, Ordering::Relaxed)
}

fn run<T>(story: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(story)
}

async fn minutes(minutes: u64) {
    tokio::time::sleep(Duration::from_secs(60 * minutes)).await;
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| !name.starts_with('.'));
    names.sort();
    names
}

fn generations(directory: &Path) -> Vec<String> {
    let names = names(&directory.join(".generations"));
    names.into_iter().filter(|name| name != "told").collect()
}

fn text(set: &Path, name: &str) -> String {
    fs::read_to_string(set.join(name)).unwrap()
}

fn pem(set: &Path, name: &str) -> Vec<Vec<u8>> {
    material::certificates(&text(set, name)).unwrap().into_iter().map(|certificate| certificate.to_vec()).collect()
}

/// The serial of the set's certificate; the key has to belong to it and the chain to verify.
fn verified(set: &Path) -> String {
    let leaf = lifecycle::leaf::Leaf::from_pem(&text(set, "cert.pem")).unwrap();
    verified_at(set, leaf.not_before)
}

fn verified_at(set: &Path, now: time::OffsetDateTime) -> String {
    let key = Key { pem: text(set, "key.pem").into(), passphrase: None };
    let pair = Material { certificate: text(set, "cert.pem"), certificate_chain: text(set, "chain.pem"), key: Some(key) };
    pair.verify(&Wanted::Found, now).unwrap().serial.to_string()
}
