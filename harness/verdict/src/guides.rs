//! Guides: the manifests that they print, word by word, each once in `manifests/guides/<guide>/<name>.yaml`.

macro_rules! printed {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../../manifests/guides/", $name, ".yaml")))),*]
    };
}

const PRINTED: &[(&str, &str)] = printed![
    "guide-000/backend",
    "guide-000/gateway",
    "guide-000/inference-service",
    "guide-000/route",
    "guide-000/token-budget",
    "guide-000/transformation",
    "guide-001/gateway",
    "guide-001/llm-service",
    "guide-001/llm-service-config",
    "guide-001/route",
    "guide-001/token-limit",
    "guide-002/ai-backend",
    "guide-002/api-key",
    "guide-002/backend-tls",
    "guide-002/gateway",
    "guide-002/inference-service",
    "guide-002/reference-grant",
    "guide-002/route",
    "guide-002/token-limit",
    "guide-004/gateway-and-route",
];

/// The YAML of one, by `<guide>/<name>`; otherwise names that may have been meant.
pub fn printed(name: &str) -> Result<&'static str, Vec<String>> {
    let known = || PRINTED.iter().map(|(name, _)| *name);
    let found = PRINTED.iter().find(|(known, _)| *known == name);
    found.map(|(_, text)| *text).ok_or_else(|| crate::names::near(name, known()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_here() {
        let root = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../manifests/guides"));
        let inside = |folder: &std::path::Path| std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let files = inside(root).flat_map(|guide| inside(&guide)).collect::<Vec<_>>();
        let name =
            |file: &std::path::PathBuf| file.strip_prefix(root).unwrap().with_extension("").display().to_string();
        let mut names: Vec<String> = files.iter().map(name).collect();
        names.sort();
        assert_eq!(names, PRINTED.iter().map(|(name, _)| (*name).to_owned()).collect::<Vec<_>>());
    }

    #[test]
    fn a_name_that_is_none_has_near_ones() {
        assert!(printed("guide-000/route").unwrap().contains("kind: HTTPRoute"));
        assert_eq!(printed("guide-000/routes").unwrap_err()[0], "guide-000/route");
    }
}
