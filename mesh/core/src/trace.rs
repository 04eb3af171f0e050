//! W3C Trace Context: the identity of a request across all of its hops.
//!
//! Parsing is by hand because it happens for every request, also for those that nobody samples.

use std::fmt;

use fastrand::Rng;

/// The `traceparent` of a request: version 00 of <https://www.w3.org/TR/trace-context/>.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// 16 bytes, never all zero.
    pub trace_id: u128,
    /// The span that caused this hop; never zero.
    pub span_id: u64,
    /// Whether the trace is recorded.
    pub sampled: bool,
}

impl TraceParent {
    /// Reads the header. Later versions are read as far as version 00 goes, as the standard asks.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        if bytes.len() < 55 || bytes[2] != b'-' || bytes[35] != b'-' || bytes[52] != b'-' {
            return None;
        }
        let version = hex(&bytes[..2])?;
        let exact = bytes.len() == 55;
        if version == 0xff || (version == 0 && !exact) || (!exact && bytes[55] != b'-') {
            return None;
        }
        let trace_id = hex(&bytes[3..35])?;
        let span_id = hex(&bytes[36..52])? as u64;
        let flags = hex(&bytes[53..55])?;
        (trace_id != 0 && span_id != 0).then_some(Self { trace_id, span_id, sampled: flags & 1 == 1 })
    }

    /// The context that a hop sends on: the same trace, with that hop's own span as the parent.
    pub const fn child(self, span_id: u64) -> Self {
        Self { span_id, ..self }
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // By hand: it is written for every attempt.
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        hexadecimal(&mut text[3..35], self.trace_id);
        hexadecimal(&mut text[36..52], u128::from(self.span_id));
        hexadecimal(&mut text[53..], u128::from(self.sampled));
        f.write_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

/// Writes a number into all of `digits`.
fn hexadecimal(digits: &mut [u8], mut number: u128) {
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(number & 15) as usize];
        number >>= 4;
    }
}

/// A request's place in its trace at one hop: what came in, this hop's own span, and what goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    trace_id: u128,
    parent: u64,
    span: u64,
    sampled: bool,
    record: bool,
    brought: bool,
}

impl TraceContext {
    /// The place of a request that came with the context `parent`, or begins a trace. `sampled` is the decision for the whole
    /// trace, and `record` whether this hop has a part in it.
    pub fn begin(parent: Option<TraceParent>, sampled: bool, record: bool, rng: &mut Rng) -> Self {
        match parent {
            Some(TraceParent { trace_id, span_id, .. }) => {
                Self { trace_id, parent: 0, span: span_id, sampled, record, brought: true }.child(rng)
            }
            None => {
                let (trace_id, span) = (rng.u128(1..), rng.u64(1..));
                Self { trace_id, parent: 0, span, sampled, record, brought: false }
            }
        }
    }

    /// What is sent on: its span id is the id of the span made with this context.
    pub const fn traceparent(&self) -> TraceParent {
        TraceParent { trace_id: self.trace_id, span_id: self.span, sampled: self.sampled }
    }

    /// What an application is told: nothing of a trace that the mesh began and does not record. It would take the flag
    /// `00` for the order not to record its own.
    pub const fn announced(&self) -> Option<TraceParent> {
        if self.sampled || self.brought { Some(self.traceparent()) } else { None }
    }

    /// The same context, of a trace of which only another node of the mesh told this one.
    #[must_use]
    pub const fn unannounced(self) -> Self {
        Self { brought: false, ..self }
    }

    /// The context of a part of this hop's work, for example of one attempt: the same trace, this span as its parent.
    ///
    /// If the trace is recorded elsewhere but not here, the context stays as it came, so that the next hop's span hangs
    /// from one that exists.
    #[must_use]
    pub fn child(&self, rng: &mut Rng) -> Self {
        if self.sampled && !self.record {
            return *self;
        }
        Self { parent: self.span, span: rng.u64(1..), ..*self }
    }

    /// Whether spans of this context are recorded here.
    pub const fn is_recorded(&self) -> bool {
        self.record
    }

    /// The trace's id, for logs.
    pub const fn trace_id(&self) -> u128 {
        self.trace_id
    }

    /// The id of this hop's span.
    pub const fn span_id(&self) -> u64 {
        self.span
    }

    /// The span that caused this one; 0 if this one begins the trace.
    pub const fn parent_id(&self) -> u64 {
        self.parent
    }
}

/// Lower-case hexadecimal digits only, as the standard asks.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0_u128, |value, byte| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u128::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn the_standards_example_round_trips() {
        let parent = TraceParent::parse(EXAMPLE).expect("valid");
        assert!(parent.sampled);
        assert_eq!(parent.span_id, 0x00f0_67aa_0ba9_02b7);
        assert_eq!(parent.to_string(), EXAMPLE);
        assert!(parent.child(7).to_string().contains("-0000000000000007-01"));
    }

    #[test]
    fn later_versions_are_read_and_broken_ones_are_not() {
        assert!(TraceParent::parse(&EXAMPLE.replacen("00", "01", 1)).is_some());
        assert!(TraceParent::parse(&format!("{}-extra", EXAMPLE.replacen("00", "01", 1))).is_some());
        for text in [
            String::new(),
            format!("{EXAMPLE}-extra"),
            EXAMPLE.replacen("00", "ff", 1),
            EXAMPLE.to_uppercase(),
            EXAMPLE.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            EXAMPLE.replace("00f067aa0ba902b7", &"0".repeat(16)),
            EXAMPLE.replace('-', "_"),
            "é".repeat(30),
        ] {
            assert!(TraceParent::parse(&text).is_none(), "{text}");
        }
    }
}
