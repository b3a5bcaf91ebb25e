//! What X-Ray is told of the calls to AWS, beside what Lambda tells it of each invocation.

use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;

use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::now;
use crate::vars::Vars;

const TRACE: &str = "x-amzn-trace-id";

/// The daemon that Lambda runs beside a function, which passes on what it is sent:
/// <https://docs.aws.amazon.com/xray/latest/devguide/xray-api-sendingdata.html#xray-api-daemon>.
pub(crate) fn daemon() -> Option<Arc<UdpSocket>> {
    let address: String = Vars::of_environment().optional("AWS_XRAY_DAEMON_ADDRESS")?;
    connected(&address)
        .inspect_err(|error| tracing::warn!("No call is traced: no way to X-Ray's daemon at {address}: {error}"))
        .ok()
}

fn connected(address: &str) -> io::Result<Arc<UdpSocket>> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(address)?;
    socket.set_nonblocking(true)?;
    Ok(Arc::new(socket))
}

/// Tells the daemon of each try of a call that belongs to a sampled trace.
#[derive(Debug)]
pub(crate) struct Traced {
    pub connector: SharedHttpConnector,
    pub daemon: Arc<UdpSocket>,
}

impl HttpConnector for Traced {
    fn call(&self, mut request: HttpRequest) -> HttpConnectorFuture {
        let Some(mut call) = Call::of(&mut request, &self.daemon) else { return self.connector.call(request) };
        let answer = self.connector.call(request);
        HttpConnectorFuture::new(async move {
            let answer = answer.await;
            if let Ok(answer) = &answer {
                call.answered(answer.status().as_u16(), answer.headers().get("x-amzn-requestid"));
            }
            answer
        })
    }
}

/// A subsegment: <https://docs.aws.amazon.com/xray/latest/devguide/xray-api-segmentdocuments.html#api-segmentdocuments-subsegments>.
/// It is sent when the call is over, also when nobody waits for the answer any longer.
struct Call {
    daemon: Arc<UdpSocket>,
    subsegment: Value,
}

impl Call {
    /// The trace is in the header that the SDK takes from Lambda. What the call leads to hangs under it.
    fn of(request: &mut HttpRequest, daemon: &Arc<UdpSocket>) -> Option<Self> {
        let header = request.headers().get(TRACE)?;
        let field = |name: &str| header.split(';').find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
        let (trace, parent) = (field("Root")?, field("Parent")?);
        if field("Sampled")? != "1" {
            return None;
        }
        let id = format!("{:016x}", fastrand::u64(..));
        let onward = header.replace(&format!("Parent={parent}"), &format!("Parent={id}"));
        let (region, service) = scope(request).unwrap_or(("", "AWS"));
        let subsegment = json!({
            "name": service,
            "id": id,
            "trace_id": trace,
            "parent_id": parent,
            "type": "subsegment",
            "namespace": "aws",
            "start_time": seconds(),
            "aws": {"operation": operation(request), "region": region},
            "fault": true,
        });
        request.headers_mut().insert(TRACE, onward);
        Some(Self { daemon: Arc::clone(daemon), subsegment })
    }

    fn answered(&mut self, status: u16, request_id: Option<&str>) {
        self.subsegment["http"] = json!({"response": {"status": status}});
        self.subsegment["aws"]["request_id"] = request_id.into();
        self.subsegment["fault"] = (status >= 500).into();
        self.subsegment["error"] = (400..500).contains(&status).into();
        self.subsegment["throttle"] = (status == 429).into();
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.subsegment["end_time"] = seconds().into();
        // One that does not arrive is missing from the trace, and from nothing else.
        _ = self.daemon.send(format!("{{\"format\":\"json\",\"version\":1}}\n{}", self.subsegment).as_bytes());
    }
}

/// The region and the service that a request is signed for.
fn scope(request: &HttpRequest) -> Option<(&str, &str)> {
    let (_, credential) = request.headers().get("authorization")?.split_once("Credential=")?;
    let mut fields = credential.split(',').next()?.rsplit('/').skip(1);
    let service = fields.next()?;
    Some((fields.next()?, service))
}

/// By name, or, where the protocol has none, by method.
fn operation(request: &HttpRequest) -> &str {
    let target = || request.headers().get("x-amz-target")?.rsplit('.').next();
    let action = || std::str::from_utf8(request.body().bytes()?).ok()?.strip_prefix("Action=")?.split('&').next();
    target().or_else(action).unwrap_or_else(|| request.method())
}

fn seconds() -> f64 {
    (now() - OffsetDateTime::UNIX_EPOCH).as_seconds_f64()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
    use aws_smithy_runtime_api::client::result::ConnectorError;
    use aws_smithy_types::body::SdkBody;

    use super::*;

    const INVOCATION: &str = "Root=1-581cf771-a006649127e371903a2de979;Parent=70de5b6f19ff9a0a;Sampled=1;Lineage=1:2b8f31:0";

    /// Answers at once with a status, or not at all, after `seen` has looked at the request.
    #[derive(Debug)]
    struct Answers(Option<u16>, std::sync::mpsc::Sender<String>);

    impl HttpConnector for Answers {
        fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
            self.1.send(request.headers().get(TRACE).unwrap_or_default().to_owned()).expect("the test listens");
            HttpConnectorFuture::ready(match self.0 {
                Some(status) => {
                    let mut answer = HttpResponse::new(status.try_into().expect("a status"), SdkBody::empty());
                    answer.headers_mut().insert("x-amzn-requestid", "c6af9ac6-7b61-11e6-9a41-93e8deadbeef");
                    Ok(answer)
                }
                None => Err(ConnectorError::timeout("nobody answers".into())),
            })
        }
    }

    struct Told {
        subsegment: Option<Value>,
        /// The trace header as AWS gets it.
        onward: String,
    }

    fn told(answer: Option<u16>, wait: bool, headers: &[(&'static str, &'static str)], body: &'static str) -> Told {
        let listening = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        listening.set_read_timeout(Some(Duration::from_millis(200))).expect("a time to wait");
        let daemon = connected(&listening.local_addr().expect("an address").to_string()).expect("a socket");
        let (seen, saw) = std::sync::mpsc::channel();
        let traced = Traced { connector: SharedHttpConnector::new(Answers(answer, seen)), daemon };
        let mut request = HttpRequest::new(SdkBody::from(body));
        request.set_method("POST").expect("a method");
        for (name, value) in headers {
            request.headers_mut().insert(*name, *value);
        }
        let call = traced.call(request);
        if wait {
            _ = tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(call);
        } else {
            drop(call);
        }
        let mut datagram = [0; 4096];
        let subsegment = listening.recv(&mut datagram).ok().map(|length| {
            let (header, document) = std::str::from_utf8(&datagram[..length]).expect("text").split_once('\n').expect("two lines");
            assert_eq!(serde_json::from_str::<Value>(header).expect("JSON"), json!({"format": "json", "version": 1}));
            assert!(!document.contains("AKIDEXAMPLE") && !document.contains("hunter2"), "{document}");
            serde_json::from_str(document).expect("JSON")
        });
        Told { subsegment, onward: saw.recv().expect("a request") }
    }

    const SIGNED: (&str, &str) = (
        "authorization",
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261127/eu-central-1/secretsmanager/aws4_request, SignedHeaders=host, Signature=5d67",
    );
    const TARGET: (&str, &str) = ("x-amz-target", "secretsmanager.GetSecretValue");

    #[test]
    fn a_call_of_a_sampled_trace_is_a_subsegment_of_the_invocation_and_what_it_leads_to_hangs_under_it() {
        let Told { subsegment, onward } = told(Some(200), true, &[(TRACE, INVOCATION), SIGNED, TARGET], "hunter2");
        let mut subsegment = subsegment.expect("a subsegment");
        let mut take = |name: &str| subsegment.as_object_mut().expect("an object").remove(name).expect(name);
        let (began, ended) = (take("start_time").as_f64().expect("seconds"), take("end_time").as_f64().expect("seconds"));
        assert!(began > 1.7e9 && (0.0..10.0).contains(&(ended - began)), "{began} {ended}");
        let id = take("id").as_str().expect("text").to_owned();
        assert!(id.len() == 16 && id.bytes().all(|digit| digit.is_ascii_hexdigit()), "{id}");
        assert_eq!(onward, INVOCATION.replace("70de5b6f19ff9a0a", &id));
        let request_id = "c6af9ac6-7b61-11e6-9a41-93e8deadbeef";
        assert_eq!(
            subsegment,
            json!({
                "name": "secretsmanager", "type": "subsegment", "namespace": "aws",
                "trace_id": "1-581cf771-a006649127e371903a2de979", "parent_id": "70de5b6f19ff9a0a",
                "aws": {"operation": "GetSecretValue", "region": "eu-central-1", "request_id": request_id},
                "http": {"response": {"status": 200}}, "error": false, "fault": false, "throttle": false,
            })
        );
    }

    #[test]
    fn what_is_not_sampled_goes_as_it_is() {
        for header in [&INVOCATION.replace("Sampled=1", "Sampled=0"), "Root=1-581cf771-a006649127e371903a2de979", "rubbish"] {
            let header: &'static str = header.to_owned().leak();
            let Told { subsegment, onward } = told(Some(200), true, &[(TRACE, header), SIGNED, TARGET], "");
            assert!(subsegment.is_none() && onward == header, "{header}: {subsegment:?} {onward}");
        }
        let Told { subsegment, onward } = told(Some(200), true, &[SIGNED, TARGET], "");
        assert!(subsegment.is_none() && onward.is_empty(), "{subsegment:?} {onward}");
    }

    #[test]
    fn a_call_is_named_by_its_target_its_action_or_its_method() {
        let rows = [
            (Some(TARGET), "Action=No", "GetSecretValue"),
            (None, "Action=DescribeTrustStores&Version=2015-12-01", "DescribeTrustStores"),
            (None, "<xml/>", "POST"),
        ];
        for (target, body, operation) in rows {
            let headers: Vec<_> = [(TRACE, INVOCATION)].into_iter().chain(target).collect();
            let subsegment = told(Some(200), true, &headers, body).subsegment.expect("a subsegment");
            assert_eq!((subsegment["aws"]["operation"].as_str(), subsegment["name"].as_str()), (Some(operation), Some("AWS")));
        }
    }

    #[test]
    fn what_failed_is_told_as_such_and_so_is_what_was_given_up() {
        let rows = [
            (Some(400), true, [true, false, false]),
            (Some(429), true, [true, false, true]),
            (Some(503), true, [false, true, false]),
            (None, true, [false, true, false]),
            (Some(200), false, [false, true, false]),
        ];
        for (answer, wait, expected) in rows {
            let subsegment = told(answer, wait, &[(TRACE, INVOCATION), SIGNED, TARGET], "").subsegment.expect("a subsegment");
            let found = ["error", "fault", "throttle"].map(|name| subsegment[name].as_bool().unwrap_or_default());
            assert_eq!(found, expected, "{answer:?} {wait}");
        }
    }
}
