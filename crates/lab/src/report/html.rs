//! Pieces of HTML. Everything that comes from files passes through [`escape`].

use super::tables::{Cell, Table};

/// Text, safe in elements and in quoted attributes.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\'' => escaped += "&#39;",
            c => escaped.push(c),
        }
    }
    escaped
}

/// A table in a container that scrolls by itself and can be reached by keyboard.
pub(crate) fn table(table: &Table) -> String {
    let caption = escape(&table.caption);
    let note = match table.note.as_str() {
        "" => String::new(),
        note => format!("<span class=\"note\">{}</span>", escape(note)),
    };
    let class = |i: usize| {
        if i < table.labels { "label" } else { "number" }
    };
    let head: String = (table.head.iter().enumerate())
        .map(|(i, h)| {
            format!(
                "<th scope=\"col\" class=\"{}\">{}</th>",
                class(i),
                escape(h)
            )
        })
        .collect();
    let cell = |(i, cell): (usize, &Cell)| match i {
        0 => format!("<th scope=\"row\">{}</th>", content(cell)),
        _ => format!("<td class=\"{}\">{}</td>", class(i), content(cell)),
    };
    let row = |row: &Vec<Cell>| {
        let cells: String = row.iter().enumerate().map(cell).collect();
        format!("<tr>{cells}</tr>\n")
    };
    let rows: String = table.rows.iter().map(row).collect();
    format!(
        "<div class=\"scroll\" role=\"region\" aria-label=\"{caption}\" tabindex=\"0\">\n<table>\n\
         <caption><div>{caption}{note}</div></caption>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table>\n</div>\n"
    )
}

fn content(cell: &Cell) -> String {
    let mut html = escape(&cell.main);
    if let Some(paper) = &cell.paper {
        html += &format!(" <span class=\"paper\">paper {}</span>", escape(paper));
    }
    if let Some(difference) = &cell.difference {
        html += &format!(" <span class=\"difference\">{}</span>", escape(difference));
    }
    if let Some(note) = &cell.note {
        html += &format!(" <span class=\"trouble\">{}</span>", escape(note));
    }
    html
}

/// Names and their values.
pub(crate) fn pairs<'a>(pairs: impl Iterator<Item = (&'a str, String)>) -> String {
    let pair = |(name, value): (&str, String)| {
        format!(
            "<div><dt>{}</dt><dd>{}</dd></div>\n",
            escape(name),
            escape(&value)
        )
    };
    let all: String = pairs.map(pair).collect();
    format!("<dl>\n{all}</dl>\n")
}

/// Text behind a line that opens it.
pub(crate) fn details(summary: &str, content: &str) -> String {
    format!(
        "<details><summary>{}</summary>\n{content}</details>\n",
        escape(summary)
    )
}
