//! The layouts of trace events, from the kernel's `events/*/*/format`.

use std::collections::BTreeMap;

/// The layouts of all traced events, by event id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Formats(BTreeMap<u16, Format>);

/// One event's layout.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Format {
    /// Name of the event.
    pub(super) name: String,
    fields: BTreeMap<String, (usize, usize)>,
}

impl Formats {
    /// Parses the concatenated descriptions; other lines are ignored.
    pub(super) fn parse(text: &str) -> Self {
        let mut formats = BTreeMap::new();
        let (mut format, mut id) = (Format::default(), None);
        for line in text.lines().map(str::trim) {
            if let Some(name) = line.strip_prefix("name: ") {
                keep(&mut formats, id.take(), std::mem::take(&mut format));
                format.name = name.into();
            } else if let Some(number) = line.strip_prefix("ID: ") {
                id = number.parse().ok();
            } else if let Some((name, place)) = line.strip_prefix("field:").and_then(field) {
                format.fields.insert(name, place);
            }
        }
        keep(&mut formats, id, format);
        Self(formats)
    }

    /// The layout of the event with this data.
    pub(super) fn of(&self, data: &[u8]) -> Option<&Format> {
        let id = data.first_chunk().map(|bytes| u16::from_le_bytes(*bytes))?;
        self.0.get(&id)
    }
}

impl Format {
    /// The value of an unsigned field of up to eight bytes.
    pub(super) fn value(&self, data: &[u8], field: &str) -> Option<u64> {
        let &(offset, size) = self.fields.get(field)?;
        let bytes = data.get(offset..offset.checked_add(size)?)?;
        let mut value = [0; 8];
        value.get_mut(..size)?.copy_from_slice(bytes);
        Some(u64::from_le_bytes(value))
    }
}

fn keep(formats: &mut BTreeMap<u16, Format>, id: Option<u16>, format: Format) {
    if let Some(id) = id {
        formats.insert(id, format);
    }
}

/// `u64 qw0;  offset:8;  size:8;  signed:0;`
fn field(text: &str) -> Option<(String, (usize, usize))> {
    let mut parts = text.split(';').map(str::trim);
    let name = parts.next()?.split_whitespace().next_back()?;
    let mut number = |key: &str| parts.next()?.strip_prefix(key)?.parse().ok();
    Some((name.into(), (number("offset:")?, number("size:")?)))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) const TEXT: &str = "name: qi_submit
ID: 300
format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;

\tfield:u64 qw0;\toffset:8;\tsize:8;\tsigned:0;
\tfield:u64 qw1;\toffset:16;\tsize:8;\tsigned:0;

print fmt: \"%s %s\"
name: taken
ID: 301
format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;

\tfield:unsigned long __probe_ip;\toffset:8;\tsize:8;\tsigned:0;
\tfield:u32 pasid;\toffset:16;\tsize:4;\tsigned:0;
";

    #[test]
    fn a_field_is_found_by_name() {
        let formats = Formats::parse(TEXT);
        let data = [&301u16.to_le_bytes()[..], &[0; 14], &77u32.to_le_bytes()].concat();
        let format = formats.of(&data).expect("known");
        assert_eq!(format.name, "taken");
        assert_eq!(format.value(&data, "pasid"), Some(77));
        assert_eq!(format.value(&data, "qw0"), None, "another event's");
        assert_eq!(format.value(&data[..18], "pasid"), None, "cut off");
        assert_eq!(formats.of(&[0, 0]), None);
    }

    #[test]
    fn invalid_descriptions_have_no_formats() {
        for text in ["", "ID: x", "name: a\nfield:;", "field:u64 a;\toffset:999999999999999999999;\tsize:8;"]
        {
            assert_eq!(Formats::parse(text), Formats::default(), "{text:?}");
        }
    }
}
