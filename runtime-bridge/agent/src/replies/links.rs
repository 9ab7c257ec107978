//! Which connections belong to replicas and cluster nodes, told by what the server says there.
//!
//! Any client may ask to be a replica, so the question says nothing: the answer does. Redis writes it by a call of its
//! own (`replication.c`, `masterTryPartialResynchronization` and `replicationSetupSlaveForFullResync`). A node of a
//! cluster speaks in messages with a signature (`cluster.h`, `clusterMsg`).

use super::Put;
use crate::readable;
use crate::stage::Pieces;

/// The answer to `PSYNC` is not longer: the command, an identifier of 40 digits, an offset.
const LONGEST_ANSWER: usize = b"+FULLRESYNC ".len() + 40 + 1 + 20 + 2;
/// A message of the cluster bus is not shorter: its header has a bit for each slot.
const SHORTEST_MESSAGE: usize = 16384 / 8;

/// Whether this write says that the connection is a link from now on. Of TLS nothing can be told.
pub fn begins(put: &Put) -> bool {
    let Some(Pieces::One(data, len)) = put.pieces else { return false };
    let len = len.min(put.len);
    let looks = match len {
        11..=LONGEST_ANSWER => len,
        SHORTEST_MESSAGE.. => 8,
        _ => return false,
    };
    if !readable::all(data, looks) {
        return false;
    }
    // SAFETY: they were found readable a moment ago, and their address is not null then.
    let bytes = unsafe { std::slice::from_raw_parts(data.cast::<u8>(), looks) };
    if len == looks { is_answer(bytes) } else { is_message(bytes, len) }
}

/// `+FULLRESYNC <id> <offset>` or `+CONTINUE`, perhaps with an id, and nothing else.
fn is_answer(bytes: &[u8]) -> bool {
    let Some(line) = bytes.strip_suffix(b"\r\n") else { return false };
    let mut words = line.split(|byte| *byte == b' ');
    let command = words.next();
    let id = words.next();
    let offset = words.next();
    let is_id = |id: &[u8]| id.len() == 40 && id.iter().all(u8::is_ascii_alphanumeric);
    let is_number = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    words.next().is_none()
        && match (command, id, offset) {
            (Some(b"+FULLRESYNC"), Some(id), Some(offset)) => is_id(id) && is_number(offset),
            (Some(b"+CONTINUE"), None, None) => true,
            (Some(b"+CONTINUE"), Some(id), None) => is_id(id),
            _ => false,
        }
}

/// The first bytes of a message of the cluster bus, and how many are written.
fn is_message(first: &[u8], written: usize) -> bool {
    let [b'R', b'C', b'm', b'b', a, b, c, d] = first else { return false };
    let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
    (SHORTEST_MESSAGE..=written).contains(&length)
}

#[cfg(test)]
mod tests {
    use super::{begins, is_answer, is_message};
    use crate::replies::Put;
    use crate::stage::Pieces;

    const ID: &str = "8de1787ba490483314a4d30f1c628bc5025eb761";

    fn says(bytes: &[u8]) -> bool {
        let pieces = Some(Pieces::One(bytes.as_ptr().cast(), bytes.len()));
        begins(&Put { pieces, len: bytes.len(), at_once: false, quiet: false })
    }

    #[test]
    fn the_answers_to_psync_are_known() {
        for offset in ["0", "2443808505", "18446744073709551615"] {
            assert!(says(format!("+FULLRESYNC {ID} {offset}\r\n").as_bytes()));
        }
        assert!(says(b"+CONTINUE\r\n"));
        assert!(says(format!("+CONTINUE {ID}\r\n").as_bytes()));
    }

    #[test]
    fn nothing_else_is() {
        for text in [
            "+FULLRESYNC\r\n".to_owned(),
            format!("+FULLRESYNC {ID}\r\n"),
            format!("+FULLRESYNC {ID} \r\n"),
            format!("+FULLRESYNC {ID} x\r\n"),
            format!("+FULLRESYNC {ID} 1"),
            format!("+FULLRESYNC {ID} 1\r\n+OK\r\n"),
            format!("+FULLRESYNC {} 1\r\n", &ID[1..]),
            format!("-FULLRESYNC {ID} 1\r\n"),
            format!("$71\r\n+FULLRESYNC {ID} 1\r\n"),
            format!("+CONTINUE {ID} 1\r\n"),
            "+CONTINUED\r\n".to_owned(),
            "+CONTINUE \r\n".to_owned(),
            "+OK\r\n+CONTINUE\r\n".to_owned(),
            "-NOMASTERLINK Can't SYNC while not connected with my master\r\n".to_owned(),
        ] {
            assert!(!says(text.as_bytes()), "{text}");
        }
        assert!(!is_answer(b""));
        // Every answer with one byte exchanged.
        let answer = format!("+FULLRESYNC {ID} 0\r\n").into_bytes();
        for at in 0..answer.len() {
            let mut other = answer.clone();
            other[at] = b'~';
            assert!(!says(&other), "{at}");
        }
    }

    #[test]
    fn a_node_speaks_in_messages() {
        let mut message = vec![0; 2256];
        message[..8].copy_from_slice(b"RCmb\0\0\x08\xd0");
        assert!(says(&message));
        // Several at once.
        message.resize(4512, 0);
        assert!(says(&message));
        assert!(!says(&message[..2255]));
        message[3] = b'c';
        assert!(!says(&message));
        assert!(!is_message(b"RCmb\0\0\0\x08", 4096));
    }

    #[test]
    fn memory_that_cannot_be_read_is_not() {
        let pieces = Some(Pieces::One(std::ptr::without_provenance(8), 60));
        assert!(!begins(&Put { pieces, len: 60, at_once: false, quiet: false }));
        assert!(!begins(&Put { pieces: None, len: 60, at_once: false, quiet: false }));
    }
}
