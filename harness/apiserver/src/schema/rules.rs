//! Rules: the CEL expressions of a schema (`x-kubernetes-validations`) and what they say about a value.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;

use cel::objects::Key;
use cel::{Context, ExecutionError, Program, Value as Cel};
use serde_json::Value;

use super::compiled::{Schema, Type};
use super::functions;
use super::validate::{earlier, join, reason};
use crate::failure::Cause;

/// One rule.
#[derive(Debug)]
pub struct Rule {
    /// The expression.
    pub rule: String,
    message: String,
    message_expression: Option<Expression>,
    field_path: String,
    reason: &'static str,
    compares: bool,
    program: Expression,
}

/// An expression that is compiled when it is first needed.
#[derive(Debug)]
struct Expression {
    text: String,
    program: OnceLock<Result<Program, String>>,
}

/// Longer expressions are not compiled.
const LONGEST: usize = 16 * 1024;
/// Expressions nested deeper than this are not compiled: the parser works on the stack.
const DEEPEST: usize = 48;

impl Expression {
    fn new(text: &str) -> Self {
        Self { text: text.to_owned(), program: OnceLock::new() }
    }

    fn program(&self) -> Result<&Program, &str> {
        self.program.get_or_init(|| compile(&self.text)).as_ref().map_err(String::as_str)
    }

    fn run(&self, context: &Context<'_, '_>) -> Result<Cel, String> {
        let program = self.program().map_err(str::to_owned)?;
        let outcome =
            catch_unwind(AssertUnwindSafe(|| program.execute(context))).map_err(|_| "internal error".to_owned())?;
        outcome.map_err(|error| match error {
            ExecutionError::NoSuchKey(key) => format!("no such key: {key}"),
            ExecutionError::NoSuchOverload(_) => "no such overload".to_owned(),
            other => other.to_string(),
        })
    }
}

/// Compiles an expression; never panics, whatever the text.
pub fn compile(text: &str) -> Result<Program, String> {
    if text.len() > LONGEST {
        return Err(format!("longer than {LONGEST} bytes"));
    }
    if nesting(text) > DEEPEST {
        return Err(format!("nested deeper than {DEEPEST}"));
    }
    catch_unwind(AssertUnwindSafe(|| functions::ENV.compile(text)))
        .map_err(|_| "the parser gave up".to_owned())?
        .map_err(|errors| errors.to_string())
}

/// How deep brackets, chains of unary operators and conditionals go.
fn nesting(text: &str) -> usize {
    let (mut open, mut deepest, mut unary, mut chained) = (0_usize, 0_usize, 0_usize, 0_usize);
    for letter in text.chars() {
        match letter {
            '(' | '[' | '{' => open += 1,
            ')' | ']' | '}' => open = open.saturating_sub(1),
            '?' => chained += 1,
            _ => {}
        }
        match letter {
            '!' | '-' => unary += 1,
            letter if letter.is_whitespace() => {}
            _ => unary = 0,
        }
        // A sum of conditionals in brackets is long, not deep: real rules have sixteen of them.
        deepest = deepest.max(open + unary + chained / 8);
    }
    deepest
}

impl Rule {
    pub(super) fn read(source: &Value) -> Option<Self> {
        let rule = source["rule"].as_str()?.trim().to_owned();
        Some(Self {
            message: source["message"].as_str().unwrap_or("").trim().to_owned(),
            message_expression: source["messageExpression"].as_str().map(Expression::new),
            field_path: source["fieldPath"].as_str().unwrap_or("").to_owned(),
            reason: match source["reason"].as_str() {
                Some("FieldValueForbidden") => reason::FORBIDDEN,
                Some("FieldValueRequired") => reason::REQUIRED,
                Some("FieldValueDuplicate") => reason::DUPLICATE,
                _ => reason::INVALID,
            },
            compares: rule.contains("oldSelf"),
            program: Expression::new(&rule),
            rule,
        })
    }

    /// Why the rule cannot be compiled here, if it cannot.
    pub fn unreadable(&self) -> Option<&str> {
        self.program.program().err()
    }

    fn said(&self) -> &str {
        if self.message.is_empty() { &self.rule } else { &self.message }
    }

    fn judge(&self, context: &Context<'_, '_>, word: &str, path: &str) -> Option<Cause> {
        if let Some(why) = self.unreadable() {
            tracing::warn!(rule = self.rule, why, "rule is not checked");
            return None;
        }
        let detail = match self.program.run(context) {
            Ok(Cel::Bool(true)) => return None,
            Ok(Cel::Bool(false)) => self
                .message_expression
                .as_ref()
                .and_then(|e| match e.run(context) {
                    Ok(Cel::String(text)) if !text.trim().is_empty() => Some(text.to_string()),
                    _ => None,
                })
                .unwrap_or_else(|| {
                    if self.message.is_empty() { format!("failed rule: {}", self.rule) } else { self.message.clone() }
                }),
            Ok(_) => format!("rule is not a condition evaluating rule: {}", self.said()),
            Err(why) => format!("{why} evaluating rule: {}", self.said()),
        };
        let message = match self.reason {
            reason::FORBIDDEN => format!("Forbidden: {detail}"),
            reason::REQUIRED => format!("Required value: {detail}"),
            reason::DUPLICATE => format!("Duplicate value: \"{word}\""),
            _ => format!("Invalid value: \"{word}\": {detail}"),
        };
        let field = format!("{path}{}", self.field_path);
        let field = field.trim_start_matches('.');
        Some(Cause { reason: self.reason, message, field: if field.is_empty() { "<nil>" } else { field }.to_owned() })
    }
}

/// Whether a rule holds for a value that no schema describes; never panics, whatever the rule.
pub fn holds(rule: &str, value: &Value) -> Result<bool, String> {
    let expression = Expression::new(rule);
    let mut context = Context::with_env(functions::ENV.clone());
    context.add_variable_from_value("self", cel_of(None, value));
    match expression.run(&context)? {
        Cel::Bool(held) => Ok(held),
        _ => Err("the rule is not a condition".into()),
    }
}

/// What the rules say about a value; `old` is what it was before an update.
pub(crate) fn judge(schema: &Schema, value: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    node(schema, value, old, "", &mut causes);
    causes
}

fn node(schema: &Schema, value: &Value, old: Option<&Value>, path: &str, causes: &mut Vec<Cause>) {
    if !schema.has_rules || old == Some(value) || (value.is_null() && schema.nullable) {
        return;
    }
    if !schema.rules.is_empty() {
        let mut context = Context::with_env(functions::ENV.clone());
        context.add_variable_from_value("self", cel_of(Some(schema), value));
        if let Some(old) = old {
            context.add_variable_from_value("oldSelf", cel_of(Some(schema), old));
        }
        for rule in &schema.rules {
            if rule.compares && old.is_none() {
                continue;
            }
            causes.extend(rule.judge(&context, schema.word(), path));
        }
    }
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                if let Some(below) = schema.field(key) {
                    node(below, value, old.and_then(|o| o.get(key)), &join(path, key), causes);
                }
            }
        }
        Value::Array(items) => {
            if let Some(below) = &schema.items {
                for (at, item) in items.iter().enumerate() {
                    let before = earlier(&schema.list, old, item);
                    node(below, item, before, &format!("{path}[{at}]"), causes);
                }
            }
        }
        _ => {}
    }
}

/// A value as rules see it.
pub(crate) fn cel_of(schema: Option<&Schema>, value: &Value) -> Cel {
    match value {
        Value::Null => Cel::Null,
        Value::Bool(value) => Cel::Bool(*value),
        Value::Number(number) => {
            let fractional = schema.and_then(|s| s.kind) == Some(Type::Number);
            match number.as_i64() {
                Some(whole) if !fractional => Cel::Int(whole),
                _ => {
                    let float = number.as_f64().unwrap_or(0.0);
                    if schema.and_then(|s| s.kind) == Some(Type::Integer) {
                        Cel::Int(float as i64)
                    } else {
                        Cel::Float(float)
                    }
                }
            }
        }
        Value::String(text) => Cel::from(text.as_str()),
        Value::Array(items) => {
            let below = schema.and_then(|s| s.items.as_deref());
            Cel::from(items.iter().map(|item| cel_of(below, item)).collect::<Vec<Cel>>())
        }
        Value::Object(map) => {
            let mut fields: HashMap<Key, Cel> = HashMap::with_capacity(map.len());
            for (key, value) in map {
                let below = schema.and_then(|s| s.field(key));
                let named = schema.is_some_and(|s| s.properties.contains_key(key));
                let key = if named { escape(key) } else { key.clone() };
                fields.insert(Key::from(key), cel_of(below, value));
            }
            Cel::from(fields)
        }
    }
}

/// The name of a field as expressions write it.
fn escape(name: &str) -> String {
    const RESERVED: [&str; 21] = [
        "true",
        "false",
        "null",
        "in",
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
        "while",
    ];
    if RESERVED.contains(&name) {
        return format!("__{name}__");
    }
    if !name.contains(['.', '-', '/']) && !name.contains("__") {
        return name.to_owned();
    }
    name.replace("__", "__underscores__").replace('.', "__dot__").replace('-', "__dash__").replace('/', "__slash__")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;
    use serde_json::json;

    fn said(rules: Value, value: Value, old: Option<Value>) -> Vec<String> {
        let schema = Schema::compile(&json!({"type": "object", "properties": {"spec": {
            "type": "object",
            "properties": {
                "namespace": {"type": "string"}, "a": {"type": "string"}, "n": {"type": "integer"},
                "f": {"type": "number"}, "list": {"type": "array", "items": {"type": "object"}},
                "x-y": {"type": "string"},
            },
            "x-kubernetes-validations": rules}}}));
        let old = old.map(|old| json!({"spec": old}));
        judge(&schema, &json!({"spec": value}), old.as_ref())
            .into_iter()
            .map(|c| format!("{}: {}", c.field, c.message))
            .collect()
    }

    #[rstest]
    #[case::message(json!([{"rule": "has(self.a)", "message": "a is needed"}]), json!({}),
        &["spec: Invalid value: \"object\": a is needed"])]
    #[case::no_message(json!([{"rule": "has(self.a)"}]), json!({}),
        &["spec: Invalid value: \"object\": failed rule: has(self.a)"])]
    #[case::missing_key(json!([{"rule": "self.a == 'x'", "message": "m"}]), json!({}),
        &["spec: Invalid value: \"object\": no such key: a evaluating rule: m"])]
    #[case::expression(json!([{"rule": "self.n > 3", "messageExpression": "'n is ' + string(self.n)"}]), json!({"n": 2}),
        &["spec: Invalid value: \"object\": n is 2"])]
    #[case::field_path(json!([{"rule": "self.n > 3", "message": "m", "fieldPath": ".n"}]), json!({"n": 2}),
        &["spec.n: Invalid value: \"object\": m"])]
    #[case::forbidden(json!([{"rule": "!has(self.a)", "message": "m", "reason": "FieldValueForbidden"}]), json!({"a": ""}),
        &["spec: Forbidden: m"])]
    #[case::reserved(json!([{"rule": "self.__namespace__ == 'x' && self.x__dash__y == 'z'"}]), json!({"namespace": "x", "x-y": "z"}), &[])]
    #[case::float(json!([{"rule": "self.f >= 1.0"}]), json!({"f": 1}), &[])]
    #[case::one_of(json!([{"rule": "[has(self.a),has(self.n)].filter(x,x==true).size() == 1"}]), json!({"n": 1}), &[])]
    #[case::unique(json!([{"rule": "self.list.all(p1, self.list.exists_one(p2, p1.name == p2.name))", "message": "m"}]),
        json!({"list": [{"name": "a"}, {"name": "a"}]}), &["spec: Invalid value: \"object\": m"])]
    #[case::duration(json!([{"rule": "duration(self.a) >= duration('100ms')"}]), json!({"a": "1s"}), &[])]
    #[case::short(json!([{"rule": "duration(self.a) >= duration('100ms')", "message": "m"}]), json!({"a": "1ms"}),
        &["spec: Invalid value: \"object\": m"])]
    #[case::lists(json!([{"rule": "self.a in ['x', 'y'] && self.a.startsWith('x') && self.a.matches('^x$')"}]), json!({"a": "x"}), &[])]
    #[case::url(json!([{"rule": "isURL(self.a) && url(self.a).getScheme() == 'https' && url(self.a).getHostname() == 'e.com'"}]),
        json!({"a": "https://e.com:80/x"}), &[])]
    #[case::quantity(json!([{"rule": "!quantity(self.a).isLessThan(quantity('16384'))"}]), json!({"a": "16Ki"}), &[])]
    #[case::address(json!([{"rule": "!isIP(self.a)"}]), json!({"a": "example.com"}), &[])]
    fn rules_speak_as_the_api_does(#[case] rules: Value, #[case] value: Value, #[case] sentences: &[&str]) {
        assert_eq!(said(rules, value, None), sentences);
    }

    #[test]
    fn rules_about_the_old_value_wait_for_an_update() {
        let rules = json!([{"rule": "self.n == oldSelf.n", "message": "n is immutable"}]);
        assert!(said(rules.clone(), json!({"n": 2}), None).is_empty());
        assert_eq!(
            said(rules.clone(), json!({"n": 2}), Some(json!({"n": 1}))),
            ["spec: Invalid value: \"object\": n is immutable"]
        );
        assert!(said(rules, json!({"n": 1, "a": ""}), Some(json!({"n": 1}))).is_empty());
    }

    #[rstest]
    #[case(&"(".repeat(2000))]
    #[case(&"!".repeat(2000))]
    #[case(&"-".repeat(5000))]
    #[case(&format!("{}1{}", "[".repeat(300), "]".repeat(300)))]
    #[case(&"a?".repeat(2000))]
    #[case(&"x".repeat(20_000))]
    fn absurd_expressions_are_refused(#[case] text: &str) {
        assert!(compile(text).is_err());
    }

    const WORDS: &[&str] = &[
        "self",
        "self.a",
        "has(self.b)",
        "all(x, x)",
        "[1]",
        "'t'",
        "1",
        "0",
        "&&",
        "||",
        "==",
        "<",
        "+",
        "/",
        "%",
        "!",
        "?",
        ":",
        "(",
        ")",
        ".",
        "size()",
        "matches('(')",
        "duration('1s')",
        "in",
        "-9223372036854775808",
        "1.5",
        "null",
        "[",
        "]",
        "{",
        "}",
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Whatever the text, compiling and evaluating it ends without a panic.
        #[test]
        fn odd_rules_are_answered(text in "[ a-z0-9.()\\[\\]{}!?:=&|'\"+*<>-]{0,60}") {
            let _ = holds(&text, &json!({"a": [1, "b"]}));
        }

        /// So does what looks like a rule.
        #[test]
        fn likely_rules_are_answered(words in proptest::collection::vec(proptest::sample::select(WORDS), 0..12)) {
            let _ = holds(&words.join(" "), &json!({"a": [1, "b"]}));
        }
    }
}
