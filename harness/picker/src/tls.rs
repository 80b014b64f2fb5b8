//! TLS of the picker's port: gateways do not verify its certificate, so that one made at the start will do.

use std::sync::Arc;

use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{
        CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer,
        pem::{self, PemObject},
    },
};

#[derive(Clone)]
pub struct Tls {
    config: Arc<ServerConfig>,
    certificate: CertificateDer<'static>,
}

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    #[error("read the {what} (PEM): {source}")]
    Read { what: &'static str, source: pem::Error },
    #[error("use the certificate: {0}")]
    Use(#[from] rustls::Error),
}

impl Tls {
    /// Makes a certificate for these names, signed by itself.
    pub fn self_signed(names: &[&str]) -> Result<Self, TlsError> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names)?;
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        Self::of(vec![made.cert.der().clone()], key.into())
    }

    /// Takes a certificate chain and its key.
    pub fn from_pem(certificates: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let read = |what| move |source| TlsError::Read { what, source };
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificates).collect();
        let chain = chain.and_then(|chain| if chain.is_empty() { Err(pem::Error::NoItemsFound) } else { Ok(chain) });
        Self::of(chain.map_err(read("certificate"))?, PrivateKeyDer::from_pem_slice(key).map_err(read("key"))?)
    }

    fn of(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Self, TlsError> {
        let certificate = chain.first().cloned().unwrap_or_else(|| vec![].into()); // without one, none can be used
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self { config: Arc::new(config), certificate })
    }

    /// The certificate in DER, for a client that verifies it.
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_used_is_said() {
        let error = |result: Result<Tls, TlsError>| result.err().map(|e| e.to_string()).unwrap_or_default();
        let empty = error(Tls::from_pem(b"", b""));
        assert!(empty.starts_with("read the certificate (PEM): "), "{empty}");
        let made = rcgen::generate_simple_self_signed(["a".to_owned()]).unwrap();
        let pem = made.cert.der().iter().map(|b| format!("{b:02x}")).collect::<String>();
        assert!(error(Tls::from_pem(pem.as_bytes(), b"")).starts_with("read the certificate"), "hexadecimal is no PEM");
        assert!(error(Tls::self_signed(&["\u{e9}"])).starts_with("make a certificate: "));
        assert!(Tls::self_signed(&["localhost", "127.0.0.1"]).is_ok());
    }
}
