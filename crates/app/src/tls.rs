//! A server's own certificate, which may be exchanged while it is open.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio_rustls::TlsAcceptor;

use crate::config::TlsFiles;

/// What new connections are begun with.
pub(crate) struct Tls(Mutex<TlsAcceptor>);

impl Tls {
    pub(crate) fn new(files: &TlsFiles) -> anyhow::Result<Self> {
        acceptor(files).map(|acceptor| Self(Mutex::new(acceptor)))
    }

    /// Reads the files again. Connections that there are stay as they are.
    pub(crate) fn renew(&self, files: &TlsFiles) -> anyhow::Result<()> {
        let acceptor = acceptor(files)?;
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = acceptor;
        Ok(())
    }

    pub(crate) fn current(&self) -> TlsAcceptor {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// From PEM files: the certificate with its chain, and its key.
fn acceptor(files: &TlsFiles) -> anyhow::Result<TlsAcceptor> {
    let (certificate, key) = (&files.certificate, &files.key);
    let unreadable = |path: &std::path::Path| format!("{} cannot be read as PEM", path.display());
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .with_context(|| unreadable(certificate))?;
    anyhow::ensure!(!chain.is_empty(), "{} holds no certificate in PEM", certificate.display());
    let private = PrivateKeyDer::from_pem_file(key).with_context(|| unreadable(key))?;
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private))
        .with_context(|| format!("{} and {} are no pair", certificate.display(), key.display()))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
