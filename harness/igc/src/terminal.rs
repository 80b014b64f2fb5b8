//! What is known of the terminal that this program prints to.

use std::{env, io::IsTerminal};

use verdict::render::Colour;

/// How wide two columns are where the terminal does not say.
const WIDTH: usize = 150;

pub fn colour() -> Colour {
    let wanted = env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    if wanted && std::io::stdout().is_terminal() { Colour::Ansi } else { Colour::Plain }
}

pub fn width() -> usize {
    env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok()).unwrap_or(WIDTH)
}
