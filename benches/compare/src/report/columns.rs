//! Columns that are aligned where they are read as text, and a table where they are read as Markdown.

/// Rows under heads. The first column is aligned to the left, the others to the right.
#[derive(Debug, Clone)]
pub(crate) struct Columns {
    rows: Vec<Vec<String>>,
    /// How many columns from the first on are aligned to the left.
    words: usize,
}

impl Columns {
    /// The first `words` columns are words, the others figures.
    pub(crate) fn new<T: Into<String>>(words: usize, heads: impl IntoIterator<Item = T>) -> Self {
        Self { rows: vec![heads.into_iter().map(Into::into).collect()], words }
    }

    /// Adds a row, one cell for each head.
    pub(crate) fn row<T: Into<String>>(&mut self, cells: impl IntoIterator<Item = T>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    /// The table, each line ended.
    pub(crate) fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for (index, row) in self.rows.iter().enumerate() {
            text.push('|');
            for (column, width) in widths.iter().enumerate() {
                let cell = row.get(column).map(String::as_str).unwrap_or_default();
                if column < self.words {
                    text.push_str(&format!(" {cell:<width$} |"));
                } else {
                    text.push_str(&format!(" {cell:>width$} |"));
                }
            }
            text.push('\n');
            if index == 0 {
                text.push_str(&self.line(&widths));
            }
        }
        text
    }

    /// What makes it a table, and says how its columns are aligned.
    fn line(&self, widths: &[usize]) -> String {
        let mut text = "|".to_owned();
        for (column, width) in widths.iter().enumerate() {
            let dashes = "-".repeat(width.saturating_add(1));
            text.push_str(&if column < self.words { format!("{dashes}-|") } else { format!("{dashes}:|") });
        }
        text.push('\n');
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_aligned_to_the_left_and_figures_to_the_right() {
        let mut columns = Columns::new(1, ["who", "rate"]);
        columns.row(["sealbus", "4.5 M"]);
        columns.row(["redis", "9"]);
        let expected = "| who     |  rate |\n|---------|------:|\n| sealbus | 4.5 M |\n| redis   |     9 |\n";
        assert_eq!(columns.render(), expected);
    }

    #[test]
    fn a_short_row_is_filled() {
        let mut columns = Columns::new(1, ["a", "b"]);
        columns.row(["x"]);
        assert_eq!(columns.render(), "| a | b |\n|---|--:|\n| x |   |\n");
    }
}
