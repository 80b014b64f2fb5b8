//! Matching a route: by the head of a request, and by the model that its body names.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method};
use serde_json::json;

use super::{Exchange, Stop, headers};
use crate::dataplane::{
    ai,
    local_reply::{Failure, LocalReply},
    routing::{Entry, ExistingHeader, Extraction, Rule},
};

/// What Envoy buffers of a body where nothing else is said (docs/facts/envoy-ai-gateway.md E8).
const DEFAULT_BUFFER: usize = 32 * 1024;

impl Exchange<'_> {
    pub(super) async fn route(&mut self) -> Result<Arc<Entry>, Stop> {
        let mut entry = self.choose()?;
        if let Some(extraction) = entry.rule.extraction.clone() {
            self.extract_model(&entry.rule, &extraction).await?;
            entry = self.choose()?;
        }
        let entry = self.interceptor().routed(self.table, entry);
        self.entry = Some(Arc::clone(&entry));
        Ok(entry)
    }

    fn choose(&self) -> Result<Arc<Entry>, Failure> {
        let chosen = self.table.choose(self.port, &self.head()).cloned();
        self.interceptor().matched(self.table, &self.head(), chosen)
    }

    /// Finds the model in the body and puts it where routes look for it; some paths are answered here.
    async fn extract_model(&mut self, rule: &Rule, extraction: &Extraction) -> Result<(), Stop> {
        if self.method == Method::GET && self.path == "/v1/models" {
            return Err(Stop::Reply(models(extraction, &self.host)));
        }
        if !self.interceptor().serves_path(extraction.paths.contains(&self.path.as_str())) {
            return Err(Failure::UnsupportedPath(self.path.clone()).into());
        }
        let bound = rule.buffer_limit.unwrap_or(DEFAULT_BUFFER);
        let body = self.read_body(bound).await?.ok_or(Failure::BodyTooLarge)?;
        let malformed = |error: serde_json::Error| Failure::MalformedJson {
            path: self.path.clone(),
            words: error.to_string(),
            body: body.clone(),
        };
        // Without a body the parser is never called.
        let model = if body.is_empty() { None } else { ai::request(&ai::parse(&body).map_err(malformed)?).model };
        let id = format!("{}-{}", headers::text(&self.headers, &headers::REQUEST_ID), headers::random_id());
        headers::set(&mut self.headers, extraction.id_header, id);
        if let Some(model) = self.interceptor().model(extraction, &self.head(), model)
            && let Ok(model) = HeaderValue::from_str(&model)
        {
            let name = HeaderName::from_static(extraction.header);
            match extraction.existing {
                ExistingHeader::Overwritten => _ = self.headers.insert(name, model),
                ExistingHeader::Appended => _ = self.headers.append(name, model),
            }
        }
        let path = self.target();
        headers::set(&mut self.headers, extraction.path_header, path);
        Ok(())
    }
}

/// `GET /v1/models` from the configuration, for one host.
fn models(extraction: &Extraction, host: &str) -> LocalReply {
    let data: Vec<String> = extraction
        .models
        .iter()
        .filter(|(pattern, ..)| pattern.covers(host))
        .map(|(_, id, owner, created)| {
            let (id, owner) = (json!(id), json!(owner));
            format!(r#"{{"id":{id},"created":{created},"object":"model","owned_by":{owner}}}"#)
        })
        .collect();
    LocalReply::typed(200, "application/json", format!(r#"{{"data":[{}],"object":"list"}}"#, data.join(",")))
}
