//! Tables as Markdown and as LaTeX.

use super::tables::{Cell, Table};

/// A table in Markdown, with a heading.
pub(crate) fn markdown(table: &Table) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let escape = |text: &String| escape_markdown(text);
    let head: Vec<String> = table.head.iter().map(escape).collect();
    let rule: Vec<String> = (0..head.len())
        .map(|i| if i < table.labels { "---" } else { "---:" }.to_owned())
        .collect();
    let mut text = format!("### {}\n\n", escape_markdown(&table.caption));
    if !table.note.is_empty() {
        text += &format!("{}\n\n", escape_markdown(&table.note));
    }
    text += &line(&head);
    text += &line(&rule);
    for row in &table.rows {
        let cells: Vec<String> = row.iter().map(|c| escape_markdown(&joined(c))).collect();
        text += &line(&cells);
    }
    text
}

/// A table in LaTeX, for the package `booktabs`.
pub(crate) fn latex(table: &Table) -> String {
    let line = |cells: Vec<String>| format!("    {} \\\\\n", cells.join(" & "));
    let columns: String = (0..table.head.len())
        .map(|i| if i < table.labels { 'l' } else { 'r' })
        .collect();
    let caption = match table.note.as_str() {
        "" => table.caption.clone(),
        note => format!("{}. {note}", table.caption),
    };
    let head = table.head.iter().map(|h| escape_latex(h)).collect();
    let rows: String = table
        .rows
        .iter()
        .map(|row| line(row.iter().map(|c| escape_latex(&joined(c))).collect()))
        .collect();
    format!(
        "\\begin{{table}}\n  \\centering\n  \\caption{{{}}}\n  \\begin{{tabular}}{{{columns}}}\n    \\toprule\n\
         {}    \\midrule\n{rows}    \\bottomrule\n  \\end{{tabular}}\n\\end{{table}}\n",
        escape_latex(&caption),
        line(head)
    )
}

/// `62.96 ± 0.40 / 63.10 (−0.14), 1 diverged`.
fn joined(cell: &Cell) -> String {
    let mut text = cell.main.clone();
    if let Some(paper) = &cell.paper {
        text += &format!(" / {paper}");
    }
    if let Some(difference) = &cell.difference {
        text += &format!(" ({difference})");
    }
    if let Some(note) = &cell.note {
        text += &format!(", {note}");
    }
    text
}

fn escape_markdown(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '|' | '\\' | '*' | '_' | '`' | '[' | ']' => escaped.extend(['\\', c]),
            '<' => escaped += "&lt;",
            '&' => escaped += "&amp;",
            '\n' | '\r' => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}

fn escape_latex(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '%' | '_' | '&' | '#' | '$' | '{' | '}' => escaped.extend(['\\', c]),
            '\\' => escaped += "\\textbackslash{}",
            '~' => escaped += "\\textasciitilde{}",
            '^' => escaped += "\\textasciicircum{}",
            '<' => escaped += "\\textless{}",
            '>' => escaped += "\\textgreater{}",
            '|' => escaped += "\\textbar{}",
            '±' => escaped += "$\\pm$",
            '−' => escaped += "$-$",
            '–' => escaped += "--",
            '×' => escaped += "$\\times$",
            '✓' => escaped += "$\\surd$",
            '…' => escaped += "\\dots{}",
            '\n' | '\r' => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Oracle: the special characters of each language's own reference.
    #[test]
    fn special_characters() {
        assert_eq!(
            escape_latex("50 %_&#\\"),
            "50 \\%\\_\\&\\#\\textbackslash{}"
        );
        assert_eq!(escape_latex("−0.1 ± 2"), "$-$0.1 $\\pm$ 2");
        assert_eq!(escape_markdown("a|b_c <b>"), "a\\|b\\_c &lt;b>");
    }
}
