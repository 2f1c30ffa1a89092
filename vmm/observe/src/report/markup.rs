//! HTML and SVG text. All data from a run's files is escaped here.

use std::fmt;

/// A string, escaped for text and double-quoted attributes.
pub(super) struct Text<'a>(pub(super) &'a str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for char in self.0.chars() {
            match char {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                // Not allowed in XML even when escaped, but possible in a guest's log.
                '\0'..='\x08' | '\x0b' | '\x0c' | '\x0e'..='\x1f' | '\x7f' => f.write_str("\u{fffd}")?,
                other => write!(f, "{other}")?,
            }
        }
        Ok(())
    }
}

/// An HTML table whose first column is a header.
#[derive(Debug, Default)]
pub(super) struct HtmlTable {
    head: String,
    body: String,
}

impl HtmlTable {
    /// A table with these columns: titles and tooltips.
    pub(super) fn new(columns: &[(&str, &str)]) -> Self {
        let mut head = String::new();
        for (title, about) in columns {
            let title = Text(title);
            match *about {
                "" => head += &format!("<th scope=\"col\">{title}</th>"),
                about => head += &format!("<th scope=\"col\" title=\"{}\">{title}</th>", Text(about)),
            }
        }
        Self { head, body: String::new() }
    }

    /// Adds a row of markup.
    pub(super) fn row(&mut self, header: &str, cells: &[String]) {
        let cells: String = cells.iter().map(|cell| format!("<td>{cell}</td>")).collect();
        self.body += &format!("<tr><th scope=\"row\">{header}</th>{cells}</tr>\n");
    }

    /// The table, in a box that scrolls if the table is too wide.
    pub(super) fn finish(self, class: &str) -> String {
        let Self { head, body } = self;
        format!(
            "<div class=\"scroll\"><table class=\"{class}\"><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>\n"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_in_data_is_escaped() {
        let text = Text("<b a=\"1\">&\u{1b}[0m").to_string();
        assert_eq!(text, "&lt;b a=&quot;1&quot;&gt;&amp;\u{fffd}[0m");
    }
}
