//! How the demo speaks: chapters, sentences, checks, and what others said in their own words.

use std::time::Duration;

use indicatif::ProgressBar;

use crate::failure::Failure;
use crate::output;
use crate::style::Style;
use crate::text::visible;

/// Columns of a line, indent included. Narrower than most terminals, and readable in a log.
const COLUMNS: usize = 110;

/// What stands before a sentence.
const INDENT: &str = "   ";

/// Speaks on stdout, while a spinner on stderr shows that work goes on; without a terminal there is none.
pub(super) struct Teller {
    style: Style,
    spinner: ProgressBar,
    chapters: std::cell::Cell<u32>,
}

impl Teller {
    pub(super) fn new() -> Self {
        let spinner = ProgressBar::new_spinner();
        spinner.enable_steady_tick(Duration::from_millis(80));
        Self { style: Style::of(&std::io::stdout()), spinner, chapters: std::cell::Cell::new(0) }
    }

    pub(super) fn title(&self, text: &str) -> Result<(), Failure> {
        self.print(&format!("{}\n", self.style.bold(&visible(text))))
    }

    /// Begins a chapter, and says what is going on until it has something to tell.
    pub(super) fn chapter(&self, name: &str, working: &str) -> Result<(), Failure> {
        self.chapters.set(self.chapters.get().saturating_add(1));
        self.spinner.set_message(working.to_owned());
        self.print(&format!("\n{}  {}\n", self.chapters.get(), self.style.bold(&visible(name))))
    }

    /// A sentence or two, broken into lines.
    pub(super) fn say(&self, text: &str) -> Result<(), Failure> {
        self.print(&wrapped(&visible(text), INDENT, INDENT))
    }

    /// Something that was checked.
    pub(super) fn holds(&self, text: &str) -> Result<(), Failure> {
        let lines = wrapped(&visible(text), "   ✓ ", "     ");
        self.print(&lines.replacen('✓', &self.style.green("✓"), 1))
    }

    /// What somebody was told, in the words of whoever said it.
    pub(super) fn quote(&self, text: &str) -> Result<(), Failure> {
        let lines = wrapped(&visible(text), "     │ ", "     │ ");
        let painted = lines.lines().map(|line| match line.split_once('│') {
            Some((before, said)) => format!("{before}{}{}\n", self.style.dim("│"), self.style.red(said)),
            None => format!("{line}\n"),
        });
        self.print(&painted.collect::<String>())
    }

    /// A table, set under the sentences. Its cells were made harmless when they were put in.
    pub(super) fn table(&self, rendered: &str) -> Result<(), Failure> {
        self.print(&rendered.lines().map(|line| format!("{INDENT}{line}\n")).collect::<String>())
    }

    /// The last sentence; the spinner is gone before it.
    pub(super) fn end(&self, text: &str) -> Result<(), Failure> {
        self.spinner.finish_and_clear();
        self.print(&format!("\n{}\n", self.style.green(&visible(text))))
    }

    fn print(&self, text: &str) -> Result<(), Failure> {
        self.spinner.suspend(|| output::print(text))
    }
}

/// Breaks a text at its spaces.
fn wrapped(text: &str, first: &str, following: &str) -> String {
    let mut lines = String::from(first);
    let mut column = first.chars().count();
    let mut is_fresh = true;
    for word in text.split_whitespace() {
        let width = word.chars().count();
        if !is_fresh && column.saturating_add(width).saturating_add(1) > COLUMNS {
            lines.push('\n');
            lines.push_str(following);
            column = following.chars().count();
            is_fresh = true;
        }
        if !is_fresh {
            lines.push(' ');
            column = column.saturating_add(1);
        }
        lines.push_str(word);
        column = column.saturating_add(width);
        is_fresh = false;
    }
    lines.push('\n');
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_sentences_are_broken_at_their_spaces() {
        let text = "word ".repeat(60);
        let lines = wrapped(&text, "   ✓ ", "     ");
        assert!(lines.lines().all(|line| line.chars().count() <= COLUMNS));
        assert!(lines.starts_with("   ✓ word word"));
        assert!(lines.lines().nth(1).unwrap().starts_with("     word"));
        assert_eq!(wrapped("a  b", "> ", "  "), "> a b\n");
    }
}
