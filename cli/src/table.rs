//! Aligned columns. Every cell is made harmless on its way in.

use crate::text::visible;

/// Characters between two columns.
const GAP: &str = "  ";

/// Rows under heads.
#[derive(Debug)]
pub(crate) struct Table {
    heads: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(heads: impl Into<Vec<&'static str>>) -> Self {
        Self { heads: heads.into(), rows: Vec::new() }
    }

    /// Adds a row, one cell for each head.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = impl AsRef<str>>) {
        self.rows.push(cells.into_iter().map(|cell| visible(cell.as_ref()).into_owned()).collect());
    }

    /// The table, each line ended.
    pub(crate) fn render(&self) -> String {
        let heads: Vec<String> = self.heads.iter().map(|head| (*head).to_owned()).collect();
        let rows: Vec<&Vec<String>> = std::iter::once(&heads).chain(&self.rows).collect();
        aligned(&rows)
    }
}

/// Names and values, one pair to a line.
pub(crate) fn fields<'f>(pairs: impl IntoIterator<Item = (&'f str, String)>) -> String {
    let rows: Vec<Vec<String>> =
        pairs.into_iter().map(|(name, value)| vec![name.to_owned(), visible(&value).into_owned()]).collect();
    aligned(&rows.iter().collect::<Vec<_>>())
}

fn aligned(rows: &[&Vec<String>]) -> String {
    let columns = rows.iter().map(|row| row.len()).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(cells.join(GAP).trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_and_lines_end_where_their_text_does() {
        let mut table = Table::new(["name", "value"]);
        table.row(["a", "1"]);
        table.row(["longer", "\u{1b}[31m2"]);
        assert_eq!(table.render(), "name    value\na       1\nlonger  [31m2\n");
        assert_eq!(fields([("a", "x".to_owned()), ("bcd", "y".to_owned())]), "a    x\nbcd  y\n");
    }
}
