//! The table as one self-contained page.

use std::fmt::Write as _;

use super::cell::{Cell, CellVerdict};
use super::operation::FileOperation;
use super::row::PolicyRow;
use super::table::{LEGEND, line, word};

const STYLE: &str = "
body{font:14px/1.4 system-ui,sans-serif;margin:2em;color:#222;background:#fff}
table{border-collapse:collapse}th,td{border:1px solid #bbb;padding:4px 8px;text-align:left;font-size:13px}
th{background:#f3f3f3}td.good{background:#d6ebf7}td.costs{background:#fff3c9}td.refuses{background:#e9e9e9}
td.harm{background:#d55e00;color:#fff;font-weight:600}dt{font-weight:600}dd{margin:0 0 .4em 1.5em}
details{margin:.2em 0}code{font-size:12px}";

/// A page with the grid. The details of each cell are in its tooltip, and in full below.
pub fn page(cells: &[Cell]) -> String {
    let mut out = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>DMA into files that move</title>\
         <style>{STYLE}</style><h1>DMA into files that move</h1>\
         <p>Every policy (rows) under every operation (columns), on refault's NIC and IOMMU with a model guest. Blue: \
         proceeds, nothing is lost. Yellow: at a cost. Grey: refused. Orange: data is lost, leaked or corrupted.</p><table><tr><th>policy</th>"
    );
    let columns: Vec<FileOperation> = FileOperation::ALL
        .into_iter()
        .filter(|column| cells.iter().any(|cell| cell.operation == *column))
        .collect();
    for column in &columns {
        let _ = write!(out, "<th title=\"{}\">{}</th>", escaped(column.meaning()), column.name());
    }
    for row in PolicyRow::ALL.into_iter().filter(|row| cells.iter().any(|cell| cell.row == *row)) {
        let _ = write!(out, "</tr><tr><th title=\"{}\">{}</th>", escaped(row.meaning()), row.name());
        for column in &columns {
            let cell = cells.iter().find(|cell| cell.row == row && cell.operation == *column);
            out.push_str(&cell.map_or("<td></td>".to_owned(), field));
        }
    }
    out.push_str("</tr></table><h2>Legend</h2><dl>");
    for (word, meaning) in LEGEND {
        let _ = write!(out, "<dt>{}</dt><dd>{}</dd>", escaped(word), escaped(meaning));
    }
    out.push_str("</dl><h2>Policies</h2><dl>");
    for row in PolicyRow::ALL {
        let _ = write!(out, "<dt>{}</dt><dd>{}</dd>", row.name(), escaped(row.meaning()));
    }
    out.push_str("</dl><h2>Operations</h2><dl>");
    for column in FileOperation::ALL {
        let _ = write!(out, "<dt>{}</dt><dd>{}</dd>", column.name(), escaped(column.meaning()));
    }
    out.push_str("</dl><h2>All cells</h2>");
    for cell in cells {
        let _ = write!(out, "<div><code>{}</code></div>", escaped(&line(cell)));
    }
    out.push_str("</html>\n");
    out
}

fn field(cell: &Cell) -> String {
    let class = match cell.verdict() {
        _ if !cell.broken.is_empty() => "harm",
        CellVerdict::Proceeds => "good",
        CellVerdict::Waits | CellVerdict::Stale | CellVerdict::Revokes | CellVerdict::Kills => "costs",
        CellVerdict::Refused(_) | CellVerdict::NoDma(_) => "refuses",
        _ => "harm",
    };
    format!("<td class=\"{class}\" title=\"{}\">{}</td>", escaped(&line(cell)), escaped(&word(cell)))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
