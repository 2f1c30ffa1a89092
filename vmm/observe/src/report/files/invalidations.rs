//! Writes and reads `invalidations.csv`: one line per kept invalidation.

use std::io::{self, BufRead, Write};

use refault_bus::{AddressSpace, Iova, Pasid};

use super::faults_read::CsvError;
use crate::trace::Invalidation;

const HEADER: &str = "start_ns,duration_ns,pasid,key,iova,size_shift";

/// Writes the header and a line for each invalidation.
pub(in crate::report) fn write(out: &mut impl Write, invalidations: &[Invalidation]) -> io::Result<()> {
    writeln!(out, "{HEADER}")?;
    for Invalidation { start, duration, space, iova, size_shift } in invalidations {
        let hex = |id: Option<u32>| id.map_or(String::new(), |id| format!("{id:#x}"));
        let (pasid, key) = (hex(space.pasid().map(Pasid::get)), hex(space.key()));
        writeln!(out, "{start},{duration},{pasid},{key},{:#x},{size_shift}", iova.0)?;
    }
    Ok(())
}

/// Reads a file by [`write()`], and passes each invalidation to `sink`.
pub(in crate::report) fn read(
    input: impl BufRead,
    mut sink: impl FnMut(&Invalidation),
) -> Result<(), CsvError> {
    let mut lines = input.lines();
    if lines.next().transpose()?.as_deref() != Some(HEADER) {
        return Err(CsvError::Header("start_ns"));
    }
    for (text, line) in lines.zip(2..) {
        let text = text?;
        let invalidation = parse(&text).ok_or_else(|| CsvError::Field {
            line,
            column: HEADER,
            value: text.clone(),
            expected: "an invalidation",
        })?;
        sink(&invalidation);
    }
    Ok(())
}

fn parse(text: &str) -> Option<Invalidation> {
    let fields: Vec<&str> = text.split(',').collect();
    let [start, duration, pasid, key, iova, size_shift] = fields[..] else { return None };
    let hex = |text: &str| u64::from_str_radix(text.strip_prefix("0x")?, 16).ok();
    let id = |text: &str| hex(text).and_then(|id| u32::try_from(id).ok());
    let space = match (pasid, key) {
        ("", "") => AddressSpace::Function,
        ("", key) => AddressSpace::Region(id(key)?),
        (pasid, _) => AddressSpace::Process(Pasid::new(id(pasid)?)?),
    };
    Some(Invalidation {
        start: start.parse().ok()?,
        duration: duration.parse().ok()?,
        space,
        iova: Iova(hex(iova)?),
        size_shift: size_shift.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let spaces =
            [AddressSpace::Function, AddressSpace::Process(Pasid::truncated(7)), AddressSpace::Region(0x101)];
        let all: Vec<_> = spaces
            .into_iter()
            .zip(1u8..)
            .map(|(space, number)| Invalidation {
                start: u64::MAX - u64::from(number),
                duration: u32::from(number),
                space,
                iova: Iova(u64::from(number) << 40),
                size_shift: 63 + number,
            })
            .collect();
        let mut text = Vec::new();
        write(&mut text, &all).unwrap();
        let mut back = Vec::new();
        read(text.as_slice(), |one| back.push(*one)).unwrap();
        assert_eq!(back, all);
    }

    #[test]
    fn an_invalid_line_is_named() {
        let error = |text: &str| read(text.as_bytes(), |_| ()).unwrap_err().to_string();
        assert!(error("something else").contains("no column"));
        assert!(error(&format!("{HEADER}\n1,2,,,0x0,12\n1,2,3\n")).contains("line 3"));
    }
}
