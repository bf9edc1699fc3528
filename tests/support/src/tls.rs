//! TLS for the wire and for peers: both ends of a server link, with certificates of both.

use std::sync::Arc;

use anyhow::Result;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::ca::{Ca, Identity};

/// Both roles of TLS for one identity.
#[derive(Clone)]
pub struct Tls {
    /// For connections that come in.
    pub acceptor: TlsAcceptor,
    /// For connections that go out.
    pub connector: TlsConnector,
}

impl Tls {
    /// TLS as `identity`, trusting `ca` alone and asking for a certificate from everybody.
    pub fn new(ca: &Ca, identity: &Identity) -> Result<Self> {
        let provider: Arc<CryptoProvider> = Arc::new(ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(ca.pem().as_bytes())?)?;
        let roots = Arc::new(roots);
        let chain = vec![CertificateDer::from_pem_slice(identity.certificate.as_bytes())?];
        let key = || PrivateKeyDer::from_pem_slice(identity.key.as_bytes());

        let server = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(
                WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
                    .build()?,
            )
            .with_single_cert(chain.clone(), key()?)?;
        let client = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()?
            .with_webpki_verifier(
                WebPkiServerVerifier::builder_with_provider(roots, provider).build()?,
            )
            .with_client_auth_cert(chain, key()?)?;
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(server)),
            connector: TlsConnector::from(Arc::new(client)),
        })
    }
}
