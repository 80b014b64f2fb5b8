//! Front: what is typed to call igc here, for messages that tell somebody what to type.

/// The variable by which the program that is igc's front says how it is called and, a line each, what else it can do: `NAME`,
/// then `COMMAND`, a tab, and what it does.
pub const VARIABLE: &str = "IGC_FRONT";

pub fn name() -> String {
    let said = std::env::var(VARIABLE).unwrap_or_default();
    said.lines().next().unwrap_or("igc").to_owned()
}

/// A command as it is typed here: `igc down`.
pub fn command(arguments: &str) -> String {
    format!("{} {arguments}", name())
}

/// The front by which a command was typed.
pub fn of(command: &[String]) -> &'static str {
    let typed: Vec<&str> = command.iter().map(String::as_str).collect();
    if typed.starts_with(&["cargo", "xtask"]) { "cargo xtask" } else { "igc" }
}
