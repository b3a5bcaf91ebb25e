//! What a load balancer makes of a client's certificates, as far as documents tell, and as s2n-tls, which AWS runs, has it where
//! they do not.

use time::OffsetDateTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

use super::certificate::{is_list_of, is_signed_by, is_supported, may_sign_certificates, parsed};
use super::not_found;
use crate::{AwsError, World};

/// From the client's certificate to the root.
const MOST_LINKS: usize = 4;
const MOST_MESSAGE_BYTES: usize = 64 * 1024;

/// Why a connection fails. Of several paths the one that came furthest tells, in this order.
/// <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-connection-logs.html>
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Failure {
    UnmappedConnectionError,
    ClientCertMaxSizeExceeded,
    ClientCertTypeUnsupported,
    ClientCertUntrusted,
    ClientCertMaxChainDepthExceeded,
    ClientCertNotYetValid,
    ClientCertExpired,
    ClientCertInvalid,
    ClientCertPurposeInvalid,
    ClientCertCrlHit,
}

/// The field `tls_verify_status` of the connection log for a client that sends this chain, in PEM with its own certificate first,
/// to a listener: `Success`, `Failed:` with the reason, or `-` where the load balancer does not verify.
///
/// What is logged for a client without a certificate is not documented: it is taken for `Failed:UnmappedConnectionError`. A list
/// of revoked certificates holds beyond its next update.
pub fn tls_verify_status(
    world: &mut World,
    now: OffsetDateTime,
    listener_arn: &str,
    chain_pem: &str,
) -> Result<String, AwsError> {
    let listener = world.elbv2.listeners.get(listener_arn).ok_or_else(|| not_found("Listener", listener_arn))?;
    let mutual_authentication = listener.mutual_authentication();
    if mutual_authentication["Mode"] != "verify" {
        return Ok("-".into());
    }
    let arn = mutual_authentication["TrustStoreArn"].as_str().unwrap_or_default();
    let trust_store = world.elbv2.trust_stores.get(arn).ok_or_else(|| not_found("TrustStore", arn))?;
    let trusted: Vec<_> = trust_store.authorities.iter().filter_map(|der| parsed(der)).collect();
    let lists = trust_store.revocation_lists.values().filter_map(|list| CertificateRevocationList::from_der(&list.der).ok());
    let verifier = Verifier {
        now,
        ignores_expiry: mutual_authentication["IgnoreClientCertificateExpiry"] == true,
        lists: lists.map(|(_, list)| list).collect(),
        trusted: &trusted,
    };
    Ok(match verifier.verify(chain_pem) {
        Ok(()) => "Success".into(),
        Err(failure) => format!("Failed:{failure:?}"),
    })
}

struct Verifier<'a> {
    now: OffsetDateTime,
    ignores_expiry: bool,
    trusted: &'a [X509Certificate<'a>],
    lists: Vec<CertificateRevocationList<'a>>,
}

impl Verifier<'_> {
    fn verify(&self, chain_pem: &str) -> Result<(), Failure> {
        if chain_pem.trim().is_empty() {
            return Err(Failure::UnmappedConnectionError);
        }
        let blocks: Result<Vec<_>, _> = Pem::iter_from_buffer(chain_pem.as_bytes()).collect();
        let blocks = blocks.map_err(|_| Failure::ClientCertInvalid)?;
        if blocks.iter().map(|block| block.contents.len()).sum::<usize>() > MOST_MESSAGE_BYTES {
            return Err(Failure::ClientCertMaxSizeExceeded);
        }
        if blocks.len() > MOST_LINKS {
            return Err(Failure::ClientCertMaxChainDepthExceeded);
        }
        let sent: Option<Vec<_>> = blocks.iter().map(|block| parsed(&block.contents)).collect();
        let sent = sent.ok_or(Failure::ClientCertInvalid)?;
        let leaf = sent.first().ok_or(Failure::ClientCertInvalid)?;
        if !is_supported(leaf) {
            return Err(Failure::ClientCertTypeUnsupported);
        }
        self.search(&mut vec![leaf], &sent)
    }

    /// Looks for a path that leads on from these links to a root of the store and in which all is well.
    fn search<'b>(&'b self, links: &mut Vec<&'b X509Certificate<'b>>, sent: &'b [X509Certificate<'b>]) -> Result<(), Failure> {
        let last = links[links.len() - 1];
        if self.trusted.iter().any(|trusted| is_same(trusted, last)) && is_signed_by(last, last) {
            return self.judge(links);
        }
        let mut furthest = Failure::ClientCertUntrusted;
        for issuer in self.trusted.iter().chain(sent) {
            let is_new = !links.iter().any(|link| is_same(link, issuer));
            if !is_new || !may_certify(issuer, links) || !is_signed_by(last, issuer) {
                continue;
            }
            if links.len() == MOST_LINKS {
                furthest = furthest.max(Failure::ClientCertMaxChainDepthExceeded);
                continue;
            }
            links.push(issuer);
            let outcome = self.search(links, sent);
            links.pop();
            match outcome {
                Ok(()) => return Ok(()),
                Err(failure) => furthest = furthest.max(failure),
            }
        }
        Err(furthest)
    }

    /// What is to be said of a path whose signatures are good.
    fn judge(&self, links: &[&X509Certificate<'_>]) -> Result<(), Failure> {
        for (place, link) in links.iter().enumerate() {
            let validity = link.validity();
            if self.now < validity.not_before.to_datetime() {
                return Err(Failure::ClientCertNotYetValid);
            }
            let ignored = self.ignores_expiry && place == 0;
            if self.now > validity.not_after.to_datetime() && !ignored {
                return Err(Failure::ClientCertExpired);
            }
        }
        if links.iter().any(|link| has_unknown_critical_extension(link)) {
            return Err(Failure::ClientCertInvalid);
        }
        let (leaf, authorities) = (links[0], &links[1..]);
        let below_root = &authorities[..authorities.len().saturating_sub(1)];
        if !is_for_clients(leaf) || !below_root.iter().all(|link| lets_clients_be(link)) {
            return Err(Failure::ClientCertPurposeInvalid);
        }
        let revoked = links.windows(2).any(|pair| {
            let lists = self.lists.iter().filter(|list| is_list_of(list, pair[1]));
            lists.flat_map(|list| list.iter_revoked_certificates()).any(|entry| entry.raw_serial() == pair[0].raw_serial())
        });
        if revoked { Err(Failure::ClientCertCrlHit) } else { Ok(()) }
    }
}

fn is_same(one: &X509Certificate<'_>, other: &X509Certificate<'_>) -> bool {
    one.tbs_certificate.as_ref() == other.tbs_certificate.as_ref() && one.signature_value == other.signature_value
}

/// A CA whose path length, where it has one, has room for the CAs among the links.
fn may_certify(issuer: &X509Certificate<'_>, links: &[&X509Certificate<'_>]) -> bool {
    let constraints = issuer.basic_constraints().ok().flatten().and_then(|constraints| constraints.value.path_len_constraint);
    may_sign_certificates(issuer) && constraints.is_none_or(|most| links.len() as u64 - 1 <= u64::from(most))
}

fn is_for_clients(leaf: &X509Certificate<'_>) -> bool {
    let usage = leaf.key_usage().ok().flatten();
    let purposes = leaf.extended_key_usage().ok().flatten();
    usage.is_none_or(|usage| usage.value.digital_signature() || usage.value.key_agreement())
        && purposes.is_none_or(|purposes| purposes.value.client_auth)
}

fn lets_clients_be(authority: &X509Certificate<'_>) -> bool {
    let purposes = authority.extended_key_usage().ok().flatten();
    purposes.is_none_or(|purposes| purposes.value.client_auth || purposes.value.any)
}

fn has_unknown_critical_extension(certificate: &X509Certificate<'_>) -> bool {
    // Name constraints are not looked at here, so a certificate that has them cannot be said to be good.
    let unknown = |extension: &ParsedExtension<'_>| {
        matches!(
            extension,
            ParsedExtension::UnsupportedExtension { .. }
                | ParsedExtension::ParseError { .. }
                | ParsedExtension::NameConstraints(_)
        )
    };
    certificate.extensions().iter().any(|extension| extension.critical && unknown(extension.parsed_extension()))
}
