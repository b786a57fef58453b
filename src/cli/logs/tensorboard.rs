//! Event files of TensorBoard: records with a length and two masked checksums, each an `Event` in protobuf.
//!
//! The container is that of TensorFlow's `record_writer.cc`, the messages those of `event.proto` and `summary.proto`, of which the
//! few fields that curves and texts need are written.

use std::fs::{File, create_dir_all};
use std::io::{self, BufWriter, Write as _};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use super::Sink;

/// Opens a folder with a subfolder a stage.
pub(super) fn open(dir: PathBuf, _: &str) -> io::Result<Box<dyn Sink>> {
    create_dir_all(&dir)?;
    Ok(Box::new(TensorBoard { dir, file: None }))
}

/// The log of a run.
#[derive(Debug)]
struct TensorBoard {
    dir: PathBuf,
    file: Option<BufWriter<File>>,
}

impl Sink for TensorBoard {
    fn begin(&mut self, stage: &str, keys: &[(String, String)]) -> io::Result<()> {
        let dir = self.dir.join(stage);
        create_dir_all(&dir)?;
        let now = seconds();
        let name = format!(
            "events.out.tfevents.{:010}.peftc.{}",
            now as u64,
            std::process::id()
        );
        let mut file = File::options()
            .create(true)
            .append(true)
            .open(dir.join(name))
            .map(BufWriter::new)?;
        let mut version = Message::default();
        version.double(1, now).bytes(3, b"brain.Event:2");
        file.write_all(&record(&version.0))?;
        let rows = keys
            .iter()
            .map(|(key, value)| format!("| {key} | {} |\n", value.replace('|', "\\|")));
        let table = format!(
            "| key | value |\n| --- | --- |\n{}",
            rows.collect::<String>()
        );
        file.write_all(&record(&event(now, 0, &[text("keys", &table)])))?;
        file.flush()?;
        self.file = Some(file);
        Ok(())
    }

    fn numbers(&mut self, step: u64, numbers: &[(String, f64)]) -> io::Result<()> {
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        let values: Vec<Message> = numbers
            .iter()
            .map(|(name, value)| scalar(name, *value))
            .collect();
        file.write_all(&record(&event(seconds(), step, &values)))?;
        // Who looks on sees each step.
        file.flush()
    }

    fn end(&mut self, _: bool) -> io::Result<()> {
        match self.file.take() {
            Some(mut file) => file.flush(),
            None => Ok(()),
        }
    }
}

/// Seconds since 1970.
fn seconds() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}

/// A message of protobuf being written.
#[derive(Debug, Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut n: u64) {
        while n >= 0x80 {
            self.0.push(n as u8 | 0x80);
            n >>= 7;
        }
        self.0.push(n as u8);
    }

    fn key(&mut self, field: u64, wire: u64) {
        self.varint(field << 3 | wire);
    }

    fn int(&mut self, field: u64, n: u64) -> &mut Self {
        self.key(field, 0);
        self.varint(n);
        self
    }

    fn double(&mut self, field: u64, x: f64) -> &mut Self {
        self.key(field, 1);
        self.0.extend(x.to_le_bytes());
        self
    }

    fn float(&mut self, field: u64, x: f32) -> &mut Self {
        self.key(field, 5);
        self.0.extend(x.to_le_bytes());
        self
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) -> &mut Self {
        self.key(field, 2);
        self.varint(bytes.len() as u64);
        self.0.extend(bytes);
        self
    }

    fn message(&mut self, field: u64, own: &Self) -> &mut Self {
        self.bytes(field, &own.0)
    }
}

/// An `Event` with a summary.
fn event(time: f64, step: u64, values: &[Message]) -> Vec<u8> {
    let mut summary = Message::default();
    values.iter().for_each(|value| {
        summary.message(1, value);
    });
    let mut event = Message::default();
    event.double(1, time).int(2, step).message(5, &summary);
    event.0
}

/// A `Summary.Value` with a number.
fn scalar(tag: &str, value: f64) -> Message {
    let mut own = Message::default();
    own.bytes(1, tag.as_bytes()).float(2, value as f32);
    own
}

/// A `Summary.Value` with a text in Markdown, as the plugin `text` shows it.
fn text(tag: &str, text: &str) -> Message {
    let mut plugin = Message::default();
    plugin.bytes(1, b"text");
    let mut metadata = Message::default();
    metadata.message(1, &plugin);
    let (mut dim, mut shape, mut tensor) =
        (Message::default(), Message::default(), Message::default());
    dim.int(1, 1);
    shape.message(2, &dim);
    // DT_STRING.
    tensor
        .int(1, 7)
        .message(2, &shape)
        .bytes(8, text.as_bytes());
    let mut own = Message::default();
    own.bytes(1, tag.as_bytes())
        .message(8, &tensor)
        .message(9, &metadata);
    own
}

/// A record of the container.
fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut out = Vec::with_capacity(data.len() + 16);
    out.extend(length);
    out.extend(masked(&length).to_le_bytes());
    out.extend(data);
    out.extend(masked(data).to_le_bytes());
    out
}

/// The checksum as it is stored, so that a checksum of checksums is none.
fn masked(data: &[u8]) -> u32 {
    crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C (Castagnoli), bit by bit: records are short.
fn crc32c(data: &[u8]) -> u32 {
    let byte = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |c, _| {
            if c & 1 == 1 {
                c >> 1 ^ 0x82f6_3b78
            } else {
                c >> 1
            }
        })
    };
    !data.iter().fold(!0, byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_standard() {
        // RFC 3720, B.4, and the check value of the catalogue of CRCs.
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
    }

    #[test]
    fn an_event_has_the_bytes_that_tensorboard_writes() {
        // `Event(wall_time=1.5, step=300, summary=Summary(value=[Value(tag="loss", simple_value=0.5)]))`, serialized by TensorBoard.
        let own = event(1.5, 300, &[scalar("loss", 0.5)]);
        let hex: String = own.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(
            hex,
            "09000000000000f83f10ac022a0d0a0b0a046c6f7373150000003f"
        );
    }
}
