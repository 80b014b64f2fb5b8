//! Functions of Kubernetes' CEL that the standard environment lacks.

use std::sync::{Arc, LazyLock};

use cel::common::types::{CelBool, CelDouble, CelString, DOUBLE_TYPE, STRING_TYPE};
use cel::{Env, ExecutionError, common::value::CowVal, extensions};

/// The environment that rules are compiled and evaluated in.
pub(crate) static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut env = Env::stdlib();
    extend(&mut env).expect("no function is declared twice");
    Arc::new(env)
});

fn text<'a>(args: &'a [CowVal<'_, '_>], at: usize) -> Result<&'a str, ExecutionError> {
    args.get(at)
        .and_then(|value| value.downcast_ref::<CelString<'_>>())
        .map(|value| value.inner())
        .ok_or_else(ExecutionError::missing_argument_or_target)
}

fn number(args: &[CowVal<'_, '_>], at: usize) -> Result<f64, ExecutionError> {
    args.get(at)
        .and_then(|value| value.downcast_ref::<CelDouble>())
        .map(|value| *value.inner())
        .ok_or_else(ExecutionError::missing_argument_or_target)
}

fn yes<'b, 'v>(value: bool) -> Result<CowVal<'b, 'v>, ExecutionError> {
    Ok(CowVal::owned(CelBool::from(value)))
}

fn string<'b, 'v>(value: String) -> Result<CowVal<'b, 'v>, ExecutionError> {
    Ok(CowVal::owned(CelString::from(value)))
}

/// Scheme and host of the URL that a getter is called on; empty where it is none.
fn url(args: &[CowVal<'_, '_>]) -> Result<(String, String), ExecutionError> {
    Ok(parts(text(args, 0)?).unwrap_or_default())
}

fn extend(env: &mut Env) -> Result<(), cel::DeclarationError> {
    extensions::strings(env)?;
    extensions::lists(env)?;
    env.add_overload("isURL", "string_is_url", vec![STRING_TYPE], |args| yes(parts(text(&args, 0)?).is_some()))?;
    // A URL is kept as its text: the getters take it apart again.
    env.add_overload("url", "string_to_url", vec![STRING_TYPE], |args| {
        let url = text(&args, 0)?;
        if parts(url).is_none() {
            return Err(ExecutionError::function_error("url", "URL parse error"));
        }
        string(url.to_owned())
    })?;
    env.add_member_overload("getScheme", "url_get_scheme", STRING_TYPE, vec![], |args| string(url(&args)?.0))?;
    env.add_member_overload("getHost", "url_get_host", STRING_TYPE, vec![], |args| string(url(&args)?.1))?;
    env.add_member_overload("getHostname", "url_get_hostname", STRING_TYPE, vec![], |args| {
        let host = url(&args)?.1;
        string(host.rsplit_once(':').map_or(host.clone(), |(name, _)| name.to_owned()))
    })?;
    env.add_overload("isIP", "string_is_ip", vec![STRING_TYPE], |args| {
        yes(text(&args, 0)?.parse::<std::net::IpAddr>().is_ok())
    })?;
    env.add_overload("isCIDR", "string_is_cidr", vec![STRING_TYPE], |args| yes(is_cidr(text(&args, 0)?)))?;
    env.add_overload("isQuantity", "string_is_quantity", vec![STRING_TYPE], |args| {
        yes(quantity(text(&args, 0)?).is_some())
    })?;
    env.add_overload("quantity", "string_to_quantity", vec![STRING_TYPE], |args| {
        quantity(text(&args, 0)?)
            .map(|value| CowVal::owned(CelDouble::from(value)))
            .ok_or_else(|| ExecutionError::function_error("quantity", "quantities must match the regular expression"))
    })?;
    env.add_member_overload("isLessThan", "quantity_is_less_than", DOUBLE_TYPE, vec![DOUBLE_TYPE], |args| {
        yes(number(&args, 0)? < number(&args, 1)?)
    })?;
    env.add_member_overload("isGreaterThan", "quantity_is_greater_than", DOUBLE_TYPE, vec![DOUBLE_TYPE], |args| {
        yes(number(&args, 0)? > number(&args, 1)?)
    })
}

/// Scheme and host (with port) of an absolute URL.
fn parts(text: &str) -> Option<(String, String)> {
    let uri: http::Uri = text.parse().ok()?;
    Some((uri.scheme_str()?.to_owned(), uri.authority()?.as_str().to_owned()))
}

fn is_cidr(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else { return false };
    match (address.parse::<std::net::IpAddr>(), bits.parse::<u8>()) {
        (Ok(address), Ok(bits)) => bits <= if address.is_ipv4() { 32 } else { 128 },
        _ => false,
    }
}

pub(crate) fn quantity(text: &str) -> Option<f64> {
    const UNITS: [(&str, f64); 14] = [
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("Pi", 1_125_899_906_842_624.0),
        ("Ei", 1_152_921_504_606_846_976.0),
        ("n", 1e-9),
        ("u", 1e-6),
        ("m", 1e-3),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
    ];
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return None;
    }
    for (unit, factor) in UNITS {
        if let Some(digits) = text.strip_suffix(unit) {
            return digits.parse::<f64>().ok().map(|n| n * factor);
        }
    }
    text.parse().ok()
}
