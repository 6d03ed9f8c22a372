//! Makes `docs/performance.md` of what the other commands have written.

mod plot;
mod rows;
mod text;

use std::path::Path;

pub use plot::draw;
pub use rows::{Figures, read};

/// The document and the picture that it shows.
///
/// # Errors
/// What went wrong, for the user: a file that cannot be written, or a picture that cannot be drawn.
pub fn write(figures: &Figures, markdown: &Path) -> Result<(), String> {
    let picture = markdown.with_extension("svg");
    let failed = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
    std::fs::write(&picture, draw(figures)?).map_err(|error| failed(&picture, error))?;
    let name = picture.file_name().unwrap_or_default().to_string_lossy();
    let document = text::document(figures, &name);
    std::fs::write(markdown, document).map_err(|error| failed(markdown, error))
}
