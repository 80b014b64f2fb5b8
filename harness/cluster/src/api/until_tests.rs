//! Rows of what counts as reached and what does not.
