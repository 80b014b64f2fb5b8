//! A rule: a CEL expression of a schema (`x-kubernetes-validations`) with its message.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;

use cel::{Context, ExecutionError, Program, Value as Cel};
use serde_json::Value;

use super::functions;
use crate::failure::{Cause, reason};

#[derive(Debug)]
pub struct Rule {
    pub rule: String,
    message: String,
    message_expression: Option<Expression>,
    field_path: String,
    reason: &'static str,
    pub(super) compares: bool,
    program: Expression,
}

/// An expression that is compiled when it is first needed.
#[derive(Debug)]
pub(super) struct Expression {
    text: String,
    program: OnceLock<Result<Program, String>>,
}

const LONGEST: usize = 16 * 1024;
/// Expressions nested deeper than this are not compiled: the parser works on the stack.
const DEEPEST: usize = 48;

impl Expression {
    pub(super) fn new(text: &str) -> Self {
        Self { text: text.to_owned(), program: OnceLock::new() }
    }

    fn program(&self) -> Result<&Program, &str> {
        self.program.get_or_init(|| compile(&self.text)).as_ref().map_err(String::as_str)
    }

    pub(super) fn run(&self, context: &Context<'_, '_>) -> Result<Cel, String> {
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
fn compile(text: &str) -> Result<Program, String> {
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

    pub(super) fn judge(&self, context: &Context<'_, '_>, type_name: &str, path: &str) -> Option<Cause> {
        if let Some(why) = self.unreadable() {
            tracing::warn!(rule = self.rule, why, "rule is not checked");
            return None;
        }
        let detail = match self.program.run(context) {
            Ok(Cel::Bool(true)) => return None,
            Ok(Cel::Bool(false)) => match self.message_expression.as_ref().map(|e| e.run(context)) {
                Some(Ok(Cel::String(text))) if !text.trim().is_empty() => text.to_string(),
                _ if self.message.is_empty() => format!("failed rule: {}", self.rule),
                _ => self.message.clone(),
            },
            Ok(_) => format!("rule is not a condition evaluating rule: {}", self.said()),
            Err(why) => format!("{why} evaluating rule: {}", self.said()),
        };
        let message = match self.reason {
            reason::FORBIDDEN => format!("Forbidden: {detail}"),
            reason::REQUIRED => format!("Required value: {detail}"),
            reason::DUPLICATE => format!("Duplicate value: \"{type_name}\""),
            _ => format!("Invalid value: \"{type_name}\": {detail}"),
        };
        let field = format!("{path}{}", self.field_path);
        let field = field.trim_start_matches('.');
        Some(Cause::new(self.reason, if field.is_empty() { "<nil>" } else { field }, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

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
}
