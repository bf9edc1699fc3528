//! A certificate authority of the laboratory's own, and the certificates it signs.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

/// The private authority that all servers of a laboratory trust, and nobody else does.
pub struct Ca {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate for one server and its private key, both in PEM.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The leaf certificate.
    pub certificate: String,
    /// Its private key (PKCS #8).
    pub key: String,
}

impl Ca {
    /// Makes a new authority.
    pub fn new() -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        limit(&mut params)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "dmuc laboratory");
        let certificate = params.self_signed(&key)?.pem();
        Ok(Self { certificate, issuer: Issuer::new(params, key) })
    }

    /// The authority's own certificate in PEM.
    pub fn pem(&self) -> &str {
        &self.certificate
    }

    /// Signs a certificate that names `domains` and is good for both ends of a link.
    pub fn issue(&self, domains: &[String]) -> Result<Identity> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(domains)?;
        limit(&mut params)?;
        if let Some(first) = domains.first() {
            params.distinguished_name.push(DnType::CommonName, first.as_str());
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Identity { certificate, key: key.serialize_pem() })
    }
}

/// Some years from now. Without a limit the end is so far away that Erlang has no timer for
/// it, and ejabberd, which sets one for every certificate, then uses none at all.
fn limit(params: &mut CertificateParams) -> Result<()> {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let year = 1970 + i32::try_from(seconds / 31_556_952)?;
    params.not_before = date_time_ymd(year - 1, 1, 1);
    params.not_after = date_time_ymd(year + 5, 1, 1);
    Ok(())
}

impl Identity {
    /// Writes `cert.pem`, `key.pem` and both together as `both.pem` into `dir`.
    pub fn write(&self, dir: &Path) -> Result<()> {
        std::fs::write(dir.join("cert.pem"), &self.certificate)?;
        std::fs::write(dir.join("key.pem"), &self.key)?;
        std::fs::write(dir.join("both.pem"), format!("{}{}", self.certificate, self.key))?;
        Ok(())
    }
}
