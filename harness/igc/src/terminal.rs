//! What is known of the terminal that this program prints to.

use std::path::{Path, PathBuf};
use std::{env, io::IsTerminal};

use verdict::render::Colour;

/// A path as people type it: relative to the current directory where it is below it.
pub fn shown(path: &Path) -> PathBuf {
    let here = env::current_dir().unwrap_or_default();
    let whole = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    whole.strip_prefix(&here).map_or_else(|_| path.to_owned(), Path::to_owned)
}

const WIDTH: usize = 150;

pub fn colour() -> Colour {
    let wanted = env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    if wanted && std::io::stdout().is_terminal() { Colour::Ansi } else { Colour::Plain }
}

pub fn width() -> usize {
    env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok()).unwrap_or(WIDTH)
}
