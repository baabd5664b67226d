//! Recall, precision and speed of redaction on the labelled corpus:
//! `cargo bench -p mendix-recall --bench recall`.
//!
//! Arguments: `development`, `validation` and `evaluation` for these sets alone; `faults=20` prints so
//! many faults of each kind (but of the evaluation set there is no such thing); `seed=7` and
//! `samples=50000` choose the corpus; `figures` leaves out the speed, which takes longest; `digest`
//! prints nothing but a hash of all that comes out, to see that a change of speed changes no byte.
//! `once` redacts and compresses one shape once and prints nothing else: for a profiler that counts
//! instructions, which other work on the machine does not change (`shape=json` chooses the shape,
//! `dense` all that holds a secret; `rounds=50` does it more often, for one that takes samples).

#![expect(clippy::expect_used, reason = "a benchmark has nothing better to do than stop")]

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    hint::black_box,
    io::Write as _,
    time::{Duration, Instant},
};

use mendix_agent_core::redact::{Redactor, SnapshotKey};
use mendix_corpus::{Kind, Sample, Set, generate, templates};
use mendix_recall::{Report, measure, redacted};

/// Bytes measured at a time: less than the scheduler gives a thread at once.
const SLICE: usize = 256 * 1024;
/// Rounds of each measurement; the best counts.
const ROUNDS: usize = 7;
/// Size of the chunks a stream arrives in.
const CHUNK: usize = 64 * 1024;

fn main() {
    // Cargo adds flags of its own.
    let args: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let number = |name: &str, default: u64| {
        let value = args.iter().find_map(|arg| arg.strip_prefix(name)?.strip_prefix('='));
        value.map_or(default, |value| value.parse().expect("a number"))
    };
    let (seed, count) = (number("seed", 1), number("samples", 40_000) as usize);
    let faults = number("faults", 0) as usize;
    let named = |set: &Set| args.iter().any(|arg| arg == set.name());
    let all = !Set::ALL.iter().any(named);
    for set in Set::ALL.into_iter().filter(|set| all || named(set)) {
        let samples = generate(set, seed, count);
        if args.iter().any(|arg| arg == "once") {
            once(&samples, number("rounds", 1));
            continue;
        }
        if args.iter().any(|arg| arg == "digest") {
            println!("{:016x} {}", digest(&samples), set.name());
            continue;
        }
        println!("== {}: {count} samples of seed {seed}", set.name());
        let report = measure(set, &samples);
        print(set, &report);
        show_faults(&report, faults);
        if !args.iter().any(|arg| arg == "figures") {
            speed(&samples);
        }
    }
}

/// A hash of the redacted texts, sample by sample and as one stream.
fn digest(samples: &[Sample]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for sample in samples {
        redacted(&sample.text).expect("text").hash(&mut hasher);
    }
    let mut stream = Redactor::new(&SnapshotKey::new([1; 32]).into());
    let mut out = Vec::new();
    for sample in samples {
        stream.push(sample.text.as_bytes(), &mut out).expect("text");
        stream.push(b"\n", &mut out).expect("text");
    }
    stream.finish(&mut out).expect("text");
    out.hash(&mut hasher);
    hasher.finish()
}

fn print(set: Set, report: &Report) {
    println!("found           share       interval    secrets           templates");
    for (class, share) in &report.classes {
        println!("{class:<12} {share}  {:>8}", templates(set, Some(*class)));
    }
    for (shape, share) in &report.shapes {
        println!("{:<12} {share}", shape.to_string());
    }
    for (wrap, share) in &report.wraps {
        println!("{:<12} {share}", format!("{wrap:?}"));
    }
    println!("{:<12} {}", "credentials", report.kind(Kind::Credential));
    println!("{:<12} {}", "personal", report.kind(Kind::Personal));
    println!("altered");
    println!("{:<12} {}", "decoys", report.decoys);
    println!("{:<12} {}  {:>8}", "background", report.background, templates(set, None));
    println!("missed by class and shape");
    for ((class, shape), share) in report.cells.iter().filter(|(_, share)| share.hits < share.of) {
        println!(
            "{class} {:<9} {:>5} of {:>5} missed",
            shape.to_string(),
            share.of - share.hits,
            share.of
        );
    }
    for ((shape, class), count) in &report.alarms {
        println!("ordinary lines: {:<9} {count:>5} x {class}", shape.to_string());
    }
    if report.refused > 0 {
        println!("refused as no text: {}", report.refused);
    }
}

/// Faults of a set that may be seen, so many of each kind and template.
fn show_faults(report: &Report, most: usize) {
    let mut shown: BTreeMap<(&str, usize), usize> = BTreeMap::new();
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for fault in &report.faults {
        let of_template = shown.entry((&fault.what, fault.template)).or_default();
        *of_template += 1;
        let of_kind = kinds.entry(&fault.what).or_default();
        if *of_template > 2 || *of_kind >= most {
            continue;
        }
        *of_kind += 1;
        println!("--- {} (template {}): {}", fault.what, fault.template, fault.bytes);
        println!("    {}\n    {}", fault.text, fault.out);
    }
}

/// The samples of each shape, one after another; all of them, and all that hold a secret.
fn texts(samples: &[Sample]) -> BTreeMap<String, Vec<u8>> {
    let mut texts: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for sample in samples {
        let dense = (!sample.secrets.is_empty()).then(|| "dense".to_owned());
        let keys = [Some("all".to_owned()), Some(sample.shape.to_string()), dense];
        for key in keys.into_iter().flatten() {
            let text = texts.entry(key).or_default();
            text.extend_from_slice(sample.text.as_bytes());
            text.push(b'\n');
        }
    }
    texts
}

/// Megabytes a second on one core, and the ratio to gzip (zlib-rs, level 6) on the same bytes.
fn speed(samples: &[Sample]) {
    println!("speed            redact    gzip -6   ratio");
    for (name, text) in texts(samples) {
        let mut times = [Duration::ZERO; 2];
        for slice in slices(&text) {
            times[0] += best(|| redact(slice));
            times[1] += best(|| gzip(slice));
        }
        let [redact, gzip] = times.map(|time| text.len() as f64 / time.as_secs_f64() / 1e6);
        println!("{name:<12} {redact:>5.0} MB/s {gzip:>5.0} MB/s {:>6.2}x", redact / gzip);
    }
}

/// One text, in functions that a profiler can tell apart.
fn once(samples: &[Sample], rounds: u64) {
    let wanted = std::env::args().find_map(|arg| Some(arg.strip_prefix("shape=")?.to_owned()));
    let text = texts(samples).remove(wanted.as_deref().unwrap_or("all")).expect("a known shape");
    // Tables are built when they are first used.
    redact(b"first\n");
    for _ in 0..rounds {
        slices(&text).for_each(redact_once);
        slices(&text).for_each(gzip_once);
    }
}

#[inline(never)]
fn redact_once(text: &[u8]) {
    redact(text);
}

#[inline(never)]
fn gzip_once(text: &[u8]) {
    gzip(text);
}

/// Pieces that end at a line's end.
fn slices(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let cut = rest.iter().skip(SLICE).position(|&b| b == b'\n');
        let (slice, tail) = rest.split_at(cut.map_or(rest.len(), |at| SLICE + at + 1));
        rest = tail;
        (!slice.is_empty()).then_some(slice)
    })
}

fn best(work: impl Fn()) -> Duration {
    let round = |_| {
        let start = Instant::now();
        work();
        start.elapsed()
    };
    (0..ROUNDS).map(round).min().unwrap_or_default()
}

fn redact(text: &[u8]) {
    let mut out = Vec::with_capacity(2 * SLICE);
    let mut redactor = Redactor::new(&SnapshotKey::new([1; 32]).into());
    for chunk in text.chunks(CHUNK) {
        redactor.push(chunk, &mut out).expect("text");
    }
    redactor.finish(&mut out).expect("text");
    black_box(out);
}

fn gzip(text: &[u8]) {
    let level = flate2::Compression::new(6);
    let mut encoder = flate2::write::GzEncoder::new(Vec::with_capacity(SLICE), level);
    for chunk in text.chunks(CHUNK) {
        encoder.write_all(chunk).expect("memory");
    }
    black_box(encoder.finish().expect("memory"));
}
