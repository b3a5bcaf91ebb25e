//! What the agent is asked to do: flags, and the environment for what no flag says. All faults are told at once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use crate::reload::Reload;

pub const HELP: &str = "\
everleaf-agent brings Everleaf's certificates from AWS Secrets Manager into a container, as files.

usage: everleaf-agent fetch  [options]    once: an init container. Fails when a certificate cannot be had
       everleaf-agent watch  [options]    for ever: a sidecar. Looks again and again, and brings what is new
       everleaf-agent health [options]    for the health check of `watch`: one line, status 0 when all is good

  --secret [NAME=]SECRET  EVERLEAF_SECRETS    name or ARN of a secret, as often as wanted; between commas in the environment
  --directory DIRECTORY   EVERLEAF_DIRECTORY  where the files go                                    [/certs]
  --for java,envoy        EVERLEAF_FOR        what else to write: PKCS#12 for Java, file SDS for Envoy
  --interval TIME         EVERLEAF_INTERVAL   how often to look: 30s, 5m, 1h; a tenth more or less  [5m]
  --signal NAME:PROCESS   EVERLEAF_SIGNAL     send HUP, USR1, USR2, WINCH, INT, QUIT or TERM to a process, given by its id or
                                              the file that holds the id, when there is a new certificate
  --exec COMMAND …        EVERLEAF_EXEC       run this then; as a flag the last one: all that follows is the command. There is
                                              no shell, and in the environment blanks part the arguments
  --help                                      this text

One secret without a NAME goes to DIRECTORY/current/, any other to DIRECTORY/NAME/current/; without a NAME that is the last part
of the secret's name. `current` is a link to a whole set of files, and a new set becomes current by one exchange of that link:
who opens files below it finds the old set or the new one.

  cert.pem       the certificate            key.pem    its key, unencrypted, for the owner only
  fullchain.pem  it and the CAs below the root: what a server sends
  chain.pem      issuing CA … root          ca.pem     the root: what to trust
                 (a public chain ends at Amazon's cross-signed root, which is then in ca.pem and in fullchain.pem)
  version        the secret's version

  java:   keystore.p12, truststore.p12, and keystore.password, which opens both and stays the same while DIRECTORY lives
  envoy:  sds-certificate.yaml and sds-ca.yaml; the secrets in them are called `certificate` and `ca`

The credentials are those of the ECS task's role, or AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN. The region is
that of the secrets' ARNs, all of one region, or AWS_REGION. The role needs secretsmanager:GetSecretValue and, for `watch`,
secretsmanager:DescribeSecret on the secrets, and kms:Decrypt on the stack's key.

examples:
  init container     everleaf-agent fetch --secret everleaf/orders-mtls
  two certificates   everleaf-agent fetch --secret everleaf/orders-mtls --secret web=everleaf/shop-server
  nginx              everleaf-agent watch --secret everleaf/shop-server --signal HUP:/run/nginx.pid
                       ssl_certificate /certs/current/fullchain.pem; ssl_certificate_key /certs/current/key.pem;
                     With `\"pidMode\": \"task\"` both containers see the same processes, with /run as a shared volume the same file.
  nginx, one image   everleaf-agent watch --secret everleaf/shop-server --exec nginx -s reload
  Envoy              everleaf-agent watch --secret everleaf/orders-mtls --for envoy
                       tls_certificate_sds_secret_configs:
                       - name: certificate
                         sds_config: { path_config_source: { path: /certs/current/sds-certificate.yaml } }
                       validation_context_sds_secret_config:
                         name: ca
                         sds_config: { path_config_source: { path: /certs/current/sds-ca.yaml } }
                     Envoy sees the exchange of the link by itself.
  Java               everleaf-agent watch --secret everleaf/orders-mtls --for java
                       -Djavax.net.ssl.keyStore=/certs/current/keystore.p12
                       -Djavax.net.ssl.trustStore=/certs/current/truststore.p12
                     Spring takes the password by `spring.config.import=configtree:/certs/current/` as ${keystore.password}.
  health check       CMD /everleaf-agent health
";

/// What is to be done.
#[derive(Debug, PartialEq)]
pub enum Command {
    Fetch(Settings),
    Watch(Settings, Watch),
    Health { directory: PathBuf },
    Help,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub directory: PathBuf,
    pub secrets: Vec<Secret>,
    pub formats: Formats,
}

/// A secret, and where its files go.
#[derive(Clone, Debug, PartialEq)]
pub struct Secret {
    /// Its name or ARN.
    pub id: String,
    /// The certificate, for people.
    pub name: String,
    pub directory: PathBuf,
}

/// What is written beside PEM.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Formats {
    pub java: bool,
    pub envoy: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Watch {
    pub interval: Duration,
    pub reload: Option<Reload>,
}

const OPTIONS: [(&str, &str); 6] = [
    ("--secret", "EVERLEAF_SECRETS"),
    ("--directory", "EVERLEAF_DIRECTORY"),
    ("--for", "EVERLEAF_FOR"),
    ("--interval", "EVERLEAF_INTERVAL"),
    ("--signal", "EVERLEAF_SIGNAL"),
    ("--exec", "EVERLEAF_EXEC"),
];

impl Command {
    /// `arguments` without the program's name; `environment` looks a variable up.
    pub fn parse(arguments: Vec<String>, environment: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        if arguments.is_empty()
            || arguments.iter().take_while(|argument| *argument != "--exec").any(|it| it == "--help" || it == "-h")
        {
            return Ok(Self::Help);
        }
        let mut faults = Vec::new();
        let mut arguments = arguments.into_iter();
        let command = arguments.next().unwrap_or_default();
        let mut given: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        while let Some(argument) = arguments.next() {
            let (flag, attached) = match argument.split_once('=') {
                Some((flag, value)) => (flag.to_owned(), Some(value.to_owned())),
                None => (argument, None),
            };
            let Some((_, variable)) = OPTIONS.iter().find(|(known, _)| *known == flag) else {
                faults.push(format!("there is no option {flag}"));
                break;
            };
            let values = given.entry(variable).or_default();
            match attached {
                _ if flag == "--exec" => values.extend(attached.into_iter().chain(arguments.by_ref())),
                Some(value) => values.push(value),
                None => match arguments.next() {
                    Some(value) => values.push(value),
                    None => faults.push(format!("{flag} needs a value")),
                },
            }
        }
        let value = |variable: &str| {
            let flag = given.get(variable).and_then(|values| values.last().cloned());
            flag.or_else(|| environment(variable)).filter(|text| !text.is_empty())
        };

        let directory = PathBuf::from(value("EVERLEAF_DIRECTORY").unwrap_or_else(|| "/certs".to_owned()));
        if !directory.is_absolute() {
            faults.push("the directory is not an absolute path".to_owned());
        }
        if command == "health" {
            return if faults.is_empty() { Ok(Self::Health { directory }) } else { Err(faults.join("; ")) };
        }

        let ids = given.get("EVERLEAF_SECRETS").cloned().unwrap_or_else(|| {
            environment("EVERLEAF_SECRETS").unwrap_or_default().split(',').map(|id| id.trim().to_owned()).collect()
        });
        let ids: Vec<String> = ids.into_iter().filter(|id| !id.is_empty()).collect();
        let secrets: Vec<Secret> = ids.iter().map(|id| Secret::parse(id, ids.len() == 1, &directory)).collect();
        if secrets.is_empty() {
            faults.push("no secret is given: --secret or EVERLEAF_SECRETS".to_owned());
        }
        for (place, secret) in secrets.iter().enumerate() {
            if secret.id.is_empty() || !is_directory_name(&secret.name) {
                faults.push(format!("`{}` is neither a secret nor NAME=SECRET", ids[place]));
            } else if secrets[..place].iter().any(|other| other.name == secret.name) {
                faults.push(format!("two certificates would be called `{}`: give one a name, NAME=SECRET", secret.name));
            }
        }
        let regions: BTreeSet<_> = secrets.iter().filter_map(Secret::region).collect();
        if regions.len() > 1 {
            let regions: Vec<_> = regions.into_iter().collect();
            faults.push(format!("the secrets are in {}, and an agent asks in one region: run one for each", regions.join(", ")));
        }
        let mut formats = Formats::default();
        for format in value("EVERLEAF_FOR").unwrap_or_default().split(',').map(str::trim).filter(|format| !format.is_empty()) {
            match format {
                "java" => formats.java = true,
                "envoy" => formats.envoy = true,
                _ => faults.push(format!("there is no format `{format}`: java, envoy")),
            }
        }
        let interval = match value("EVERLEAF_INTERVAL") {
            None => Some(Duration::from_secs(300)),
            Some(text) => duration(&text),
        };
        if interval.is_none() {
            faults.push("the interval is not a time such as 30s, 5m or 1h".to_owned());
        }
        let command_line = match given.get("EVERLEAF_EXEC") {
            Some(values) => values.clone(),
            None => environment("EVERLEAF_EXEC").unwrap_or_default().split_whitespace().map(str::to_owned).collect(),
        };
        let reload = match (value("EVERLEAF_SIGNAL"), command_line.split_first()) {
            (Some(_), Some(_)) => Err("both a signal and a command are given".to_owned()),
            (Some(signal), None) => signal.parse().map(Some),
            (None, Some((program, arguments))) => Ok(Some(Reload::Exec(program.clone(), arguments.to_vec()))),
            (None, None) => Ok(None),
        };
        let reload = reload.unwrap_or_else(|fault| {
            faults.push(fault);
            None
        });
        let settings = Settings { directory, secrets, formats };
        match (command.as_str(), interval) {
            ("fetch", _) if faults.is_empty() => Ok(Self::Fetch(settings)),
            ("watch", Some(interval)) if faults.is_empty() => Ok(Self::Watch(settings, Watch { interval, reload })),
            ("fetch" | "watch", _) => Err(faults.join("; ")),
            _ => Err(format!("there is no command `{command}`: fetch, watch, health")),
        }
    }
}

impl Settings {
    /// The one region that the secrets' ARNs name.
    pub fn region(&self) -> Option<&str> {
        self.secrets.iter().find_map(Secret::region)
    }
}

impl Secret {
    fn parse(text: &str, alone: bool, directory: &std::path::Path) -> Self {
        // A secret's own name may hold `=`, but then after a `/` or in an ARN; else it has to be given a name.
        let (given, id) = match text.split_once('=') {
            Some((name, id)) if is_directory_name(name) => (Some(name), id),
            _ => (None, text),
        };
        let name = given.unwrap_or_else(|| last_part(id)).to_owned();
        let directory = if alone && given.is_none() { directory.to_owned() } else { directory.join(&name) };
        Self { id: id.to_owned(), name, directory }
    }

    fn region(&self) -> Option<&str> {
        self.id.strip_prefix("arn:")?.split(':').nth(2)
    }
}

/// `orders-mtls` of `everleaf/orders-mtls`, and of its ARN, which ends with six characters of AWS's.
fn last_part(id: &str) -> &str {
    let last = id.rsplit(['/', ':']).next().unwrap_or(id);
    match last.rsplit_once('-') {
        Some((name, suffix)) if id.starts_with("arn:") && suffix.len() == 6 => name,
        _ => last,
    }
}

fn is_directory_name(text: &str) -> bool {
    let allowed = |character: char| character.is_ascii_alphanumeric() || "-_.+@".contains(character);
    !text.is_empty() && !text.starts_with('.') && text.chars().all(allowed) && text != "current"
}

fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at(text.len().checked_sub(1)?);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return None,
    };
    let seconds = number.parse::<u32>().ok().filter(|number| *number > 0)?.checked_mul(seconds)?;
    Some(Duration::from_secs(seconds.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Command, String> {
        let look_up = |name: &str| environment.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        Command::parse(arguments.iter().map(|argument| (*argument).to_owned()).collect(), look_up)
    }

    #[test]
    fn a_flag_wins_over_the_environment_and_both_mean_the_same() {
        let flags = ["watch", "--secret", "everleaf/a", "--secret=web=everleaf/b", "--directory", "/tls", "--for", "java,envoy"];
        let more = ["--interval", "1h", "--exec", "nginx", "-s", "reload"];
        let environment = [
            ("EVERLEAF_SECRETS", "everleaf/a, web=everleaf/b"),
            ("EVERLEAF_DIRECTORY", "/tls"),
            ("EVERLEAF_FOR", "envoy, java"),
            ("EVERLEAF_INTERVAL", "60m"),
            ("EVERLEAF_EXEC", "nginx -s  reload"),
        ];
        let by_flags =
            parse(&[&flags[..], &more].concat(), &[("EVERLEAF_DIRECTORY", "/else"), ("EVERLEAF_SECRETS", "c")]).unwrap();
        assert_eq!(by_flags, parse(&["watch"], &environment).unwrap());
        let Command::Watch(settings, how) = by_flags else { panic!("{by_flags:?}") };
        assert_eq!(settings.formats, Formats { java: true, envoy: true });
        assert_eq!(how.interval, Duration::from_secs(3600));
        assert_eq!(how.reload, Some(Reload::Exec("nginx".to_owned(), vec!["-s".to_owned(), "reload".to_owned()])));
        let places: Vec<_> = settings.secrets.iter().map(|it| (it.id.as_str(), it.directory.to_str().unwrap())).collect();
        assert_eq!(places, [("everleaf/a", "/tls/a"), ("everleaf/b", "/tls/web")]);
    }

    #[test]
    fn a_secret_alone_has_the_directory_for_itself_unless_it_is_given_a_name() {
        let arn = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:everleaf/orders-mtls-Ab1Cd2";
        let cases = [
            ("everleaf/orders-mtls", "orders-mtls", "/certs"),
            (arn, "orders-mtls", "/certs"),
            ("web=everleaf/orders-mtls", "web", "/certs/web"),
            (&format!("web={arn}"), "web", "/certs/web"),
        ];
        for (text, name, directory) in cases {
            let Ok(Command::Fetch(settings)) = parse(&["fetch", "--secret", text], &[]) else { panic!("{text}") };
            assert_eq!((settings.secrets[0].name.as_str(), settings.secrets[0].directory.to_str().unwrap()), (name, directory));
            assert_eq!(settings.region(), text.contains("arn:").then_some("eu-central-1"));
        }
    }

    #[test]
    fn what_is_wrong_is_said_all_at_once() {
        let west = "arn:aws:secretsmanager:eu-west-1:111122223333:secret:everleaf/a-Ab1Cd2";
        let central = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:everleaf/b-Ab1Cd2";
        let cases: [(&[&str], &[&str]); 10] = [
            (&["fetch"], &["no secret is given"]),
            (&["fetch", "--secret", "a/b", "--secret", "c/b"], &["two certificates would be called `b`"]),
            (
                &["fetch", "--secret", west, "--secret", "c", "--secret", central],
                &["the secrets are in eu-central-1, eu-west-1, and an agent asks in one region"],
            ),
            (&["fetch", "--secret", "a/", "--for", "go"], &["`a/` is neither a secret nor NAME=SECRET", "no format `go`"]),
            (&["fetch", "--secret", "a", "--directory", "certs"], &["not an absolute path"]),
            (&["watch", "--secret", "a", "--interval", "5"], &["not a time such as 30s"]),
            (&["watch", "--secret", "a", "--interval", "0s", "--signal", "HUP"], &["not a time", "a signal is NAME:PROCESS"]),
            (&["watch", "--secret", "a", "--signal", "KILL:1"], &["no signal `KILL`"]),
            (&["watch", "--secret", "a", "--secret"], &["--secret needs a value"]),
            (&["serve", "--key", "a"], &["no command `serve`"]),
        ];
        for (arguments, says) in cases {
            let why = parse(arguments, &[]).unwrap_err();
            assert!(says.iter().all(|part| why.contains(part)), "{says:?} is not in: {why}");
        }
    }

    #[test]
    fn the_help_names_every_option_and_is_asked_for_in_three_ways() {
        for (flag, variable) in OPTIONS {
            assert!(HELP.contains(flag) && HELP.contains(variable), "{flag} {variable}");
        }
        for arguments in [&[][..], &["--help"], &["watch", "--secret", "a", "-h"]] {
            assert_eq!(parse(arguments, &[]), Ok(Command::Help));
        }
        let exec = parse(&["watch", "--secret", "a", "--exec", "nginx", "-h"], &[]);
        assert!(matches!(exec, Ok(Command::Watch(..))), "{exec:?}");
    }
}
