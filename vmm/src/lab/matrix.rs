//! `refault lab matrix`.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;

use refault_lab::matrix::{Cell, FileOperation, PolicyRow, html, run, table};
use refault_observe::report::verdicts::{Case, VerdictArgs};
use refault_observe::save::save_atomically;

/// What `refault lab matrix` takes.
#[derive(Args, Debug)]
pub struct MatrixArgs {
    /// Write matrix.csv and matrix.html into this folder
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Only this policy; may be given more than once
    #[arg(long = "policy", value_name = "NAME")]
    policies: Vec<String>,
    /// Only this operation; may be given more than once
    #[arg(long = "operation", value_name = "NAME")]
    operations: Vec<String>,
    /// After the table, a line with all details of each cell
    #[arg(long)]
    long: bool,
    /// A test for each cell
    #[command(flatten)]
    verdicts: VerdictArgs,
}

impl MatrixArgs {
    /// Runs the cells and prints the table. The exit status is 1 if refault itself misbehaved.
    pub fn execute(&self) -> Result<u8> {
        let start = Instant::now();
        let rows =
            chosen(&self.policies, &PolicyRow::ALL.map(|row| (row.name(), row)), "policy", "policies")?;
        let columns = FileOperation::ALL.map(|operation| (operation.name(), operation));
        let columns = chosen(&self.operations, &columns, "operation", "operations")?;
        let mut cells = Vec::new();
        for &row in &rows {
            for &operation in &columns {
                let cell = run(row, operation);
                cells.push(
                    cell.with_context(|| format!("policy {}, operation {}", row.name(), operation.name()))?,
                );
            }
        }
        self.print(&cells)?;
        let broken: Vec<_> = cells.iter().filter(|cell| !cell.broken.is_empty()).collect();
        broken.iter().for_each(|cell| eprintln!("{}", table::line(cell)));
        self.verdicts.leave(
            "refault lab matrix",
            &cells.iter().map(case).collect::<Vec<_>>(),
            start.elapsed(),
            &mut std::io::stdout(),
        )?;
        Ok(u8::from(!broken.is_empty()))
    }

    fn print(&self, cells: &[Cell]) -> Result<()> {
        self.verdicts.print(&table::grid(cells));
        self.verdicts.print(&table::legend());
        for row in PolicyRow::ALL.into_iter().filter(|row| cells.iter().any(|cell| cell.row == *row)) {
            self.verdicts.print(&format!("  {:<21} {}", row.name(), row.meaning()));
        }
        if self.long {
            self.verdicts.print("");
            cells.iter().for_each(|cell| self.verdicts.print(&table::line(cell)));
        }
        let Some(folder) = &self.out else { return Ok(()) };
        let cannot =
            |path: &PathBuf| format!("cannot write {}; give --out a writable folder", path.display());
        fs::create_dir_all(folder).with_context(|| cannot(folder))?;
        let mut csv = Vec::new();
        table::csv(cells, &mut csv)?;
        for (name, bytes) in [("matrix.csv", csv), ("matrix.html", html::page(cells).into_bytes())] {
            let path = folder.join(name);
            save_atomically(&path, |out| out.write_all(&bytes)).with_context(|| cannot(&path))?;
            self.verdicts.print(&format!("wrote {}", path.display()));
        }
        Ok(())
    }
}

/// A policy that loses bytes passes, because the table is there to show it. Only misbehaviour of refault itself fails.
fn case(cell: &Cell) -> Case {
    let failed = (!cell.broken.is_empty()).then(|| table::line(cell));
    Case::new(format!("{} {}", cell.row.name(), cell.operation.name()), failed)
}

/// The values of the given names, or all without any.
fn chosen<T: Copy>(given: &[String], all: &[(&str, T)], one: &str, many: &str) -> Result<Vec<T>> {
    if given.is_empty() {
        return Ok(all.iter().map(|&(_, value)| value).collect());
    }
    let mut values = Vec::new();
    for name in given {
        let Some(&(_, value)) = all.iter().find(|(known, _)| known == name) else {
            let names: Vec<_> = all.iter().map(|(name, _)| *name).collect();
            bail!("there is no {one} {name:?}; the {many} are {}", names.join(", "));
        };
        values.push(value);
    }
    Ok(values)
}
