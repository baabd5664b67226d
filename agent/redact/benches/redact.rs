//! Speed of redaction, as a ratio to gzip level 6 of the same bytes in the same run, and recall per
//! rule on generated positives: `cargo bench -p mendix-agent-redact --bench redact`.
//!
//! The corpus is generated from a seed: shapes that components really log, with an address or a
//! secret at the rate they occur. Each shape is measured alone and all of them mixed; of several
//! rounds the best counts.
//!
//! Arguments: the name of a shape, for this one alone; `digest` prints nothing but a hash of all that
//! comes out of each shape, to see that a change of speed changes no byte; `once` redacts, compresses
//! and scans each shape once and prints nothing: for a profiler that counts instructions, which other
//! work on the machine does not change.

#![expect(clippy::expect_used, reason = "a benchmark has nothing better to do than stop")]

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::hint::black_box;
use std::io::Write as _;
use std::time::{Duration, Instant};

use mendix_agent_redact::{Redactor, SnapshotKey, scan_output};

#[path = "../src/tests/vectors.rs"]
#[allow(dead_code, reason = "shared with the unit tests, which use more of it")]
mod vectors;

use vectors::{Random, render};

/// Bytes of each shape.
const SHAPE: usize = 4 * 1024 * 1024;
/// Bytes measured at a time.
const SLICE: usize = 256 * 1024;
/// Rounds of each measurement.
const ROUNDS: usize = 7;
/// Size of the chunks a stream arrives in.
const CHUNK: usize = 64 * 1024;
/// Secrets made up for each vector.
const SEEDS: u64 = 50;

type Shape = (&'static str, fn(&mut Random) -> String);

const SHAPES: &[Shape] = &[
    ("JSON", json_line),
    ("klog", klog_line),
    ("Java", java_line),
    ("access", access_line),
    ("Mendix", mendix_line),
];

/// What is done with the text of each shape.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Work {
    Speed,
    Digest,
    Once,
}

fn main() {
    // Cargo adds flags of its own.
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let said = |word: &str| args.iter().any(|arg| arg == word);
    let work = match (said("digest"), said("once")) {
        (true, _) => Work::Digest,
        (_, true) => Work::Once,
        _ => Work::Speed,
    };
    let shape = SHAPES.iter().map(|(name, _)| *name).find(|name| said(name));
    shapes(shape, work);
    if shape.is_none() && work == Work::Speed {
        recall();
    }
}

fn shapes(only: Option<&str>, work: Work) {
    if work == Work::Speed {
        println!(
            "{:<8} {:>10} {:>10} {:>7} {:>10} {:>12}",
            "shape", "redact", "gzip -6", "ratio", "scan", "placeholders"
        );
    }
    let mut mixed = Vec::new();
    for (index, (name, line)) in SHAPES.iter().enumerate() {
        if only.is_some_and(|only| only != *name) {
            continue;
        }
        let text = text_of(line, &mut Random(index as u64 + 1));
        match work {
            Work::Speed => report(name, &text),
            Work::Digest => println!("{:016x} {name}", digest(&text)),
            Work::Once => once(&text),
        }
        mixed.push(text);
    }
    if only.is_none() && work == Work::Speed {
        report("mixed", &mix(&mixed));
    }
}

fn text_of(line: &fn(&mut Random) -> String, random: &mut Random) -> Vec<u8> {
    let mut text = Vec::with_capacity(SHAPE + 1024);
    while text.len() < SHAPE {
        let second = random.below(60);
        let stamp = format!("2026-11-22T07:15:{second:02}.{:09}Z ", random.below(1_000_000_000));
        text.extend_from_slice(stamp.as_bytes());
        text.extend_from_slice(line(random).as_bytes());
        text.push(b'\n');
    }
    text
}

/// Blocks of each shape in turn, as streams of several pods.
fn mix(texts: &[Vec<u8>]) -> Vec<u8> {
    let mut blocks: Vec<_> = texts.iter().map(|text| text.chunks(CHUNK)).collect();
    let mut all = Vec::new();
    loop {
        let before = all.len();
        for shape in &mut blocks {
            all.extend_from_slice(shape.next().unwrap_or_default());
        }
        if all.len() == before {
            return all;
        }
    }
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

/// Redacts a slice into `out`; returns the number of placeholders.
fn redact(slice: &[u8], out: &mut Vec<u8>) -> u64 {
    out.clear();
    let mut redactor = Redactor::new(&SnapshotKey::new([1; 32]).into());
    for chunk in slice.chunks(CHUNK) {
        redactor.push(chunk, out).expect("text");
    }
    redactor.finish(out).expect("text");
    redactor.counts().total()
}

fn gzip(slice: &[u8]) {
    let level = flate2::Compression::new(6);
    let mut encoder = flate2::write::GzEncoder::new(Vec::with_capacity(SLICE), level);
    for chunk in slice.chunks(CHUNK) {
        encoder.write_all(chunk).expect("memory");
    }
    black_box(encoder.finish().expect("memory"));
}

fn digest(text: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    let mut out = Vec::new();
    redact(text, &mut out);
    out.hash(&mut hasher);
    hasher.finish()
}

/// One text once, in functions that a profiler can tell apart.
fn once(text: &[u8]) {
    let mut out = Vec::with_capacity(2 * SLICE);
    // Tables are built when they are first used.
    redact(b"first\n", &mut out);
    scan_output(&out).expect("clean output");
    for slice in slices(text) {
        redact_once(slice, &mut out);
        scan_once(&out);
        gzip_once(slice);
    }
}

#[inline(never)]
fn redact_once(slice: &[u8], out: &mut Vec<u8>) {
    black_box(redact(slice, out));
}

#[inline(never)]
fn scan_once(out: &[u8]) {
    scan_output(out).expect("clean output");
}

#[inline(never)]
fn gzip_once(slice: &[u8]) {
    gzip(slice);
}

/// Each slice is measured on its own and its best round counts: a slice takes less time than the
/// scheduler gives a thread at once, so a busy machine does not blur the ratio.
fn report(name: &str, text: &[u8]) {
    let mut total = 0;
    let mut times = [Duration::ZERO; 3];
    let mut out = Vec::with_capacity(2 * SLICE);
    for slice in slices(text) {
        let mut best = [Duration::MAX; 3];
        for round in 0..ROUNDS {
            let start = Instant::now();
            let placeholders = redact(slice, &mut out);
            best[0] = best[0].min(start.elapsed());
            total += if round == 0 { placeholders } else { 0 };

            let start = Instant::now();
            scan_output(&out).expect("clean output");
            best[1] = best[1].min(start.elapsed());

            let start = Instant::now();
            gzip(slice);
            best[2] = best[2].min(start.elapsed());
        }
        for (time, best) in times.iter_mut().zip(best) {
            *time += best;
        }
    }
    let [redact, scan, gzip] = times.map(|t| text.len() as f64 / t.as_secs_f64() / 1e6);
    let ratio = redact / gzip;
    println!(
        "{name:<8} {redact:>5.0} MB/s {gzip:>5.0} MB/s {ratio:>6.2}x {scan:>5.0} MB/s {total:>12}"
    );
}

fn recall() {
    let mut found: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for (rule, template) in vectors::positives() {
        for seed in 0..SEEDS {
            let vector = render(template, 1000 + seed);
            let text = vector.text();
            let mut redactor = Redactor::new(&SnapshotKey::new([1; 32]).into());
            let mut out = Vec::new();
            redactor.push(text.as_bytes(), &mut out).expect("text");
            redactor.finish(&mut out).expect("text");
            let out = String::from_utf8_lossy(&out);
            let (gone, all) = found.entry(rule).or_default();
            for secret in &vector.secrets {
                *all += 1;
                *gone += usize::from(!out.contains(secret.as_str()));
            }
        }
    }
    let mut altered = 0;
    let mut decoys = 0;
    for text in vectors::decoys() {
        let mut redactor = Redactor::new(&SnapshotKey::new([1; 32]).into());
        let mut out = Vec::new();
        redactor.push(text.as_bytes(), &mut out).expect("text");
        redactor.finish(&mut out).expect("text");
        decoys += 1;
        altered += usize::from(out != text.as_bytes());
    }
    println!("\nrecall on generated positives");
    let (mut gone, mut all) = (0, 0);
    for (rule, (found, of)) in &found {
        println!("{rule} {found:>6} of {of:>6}  {:>6.2} %", *found as f64 * 100.0 / *of as f64);
        gone += found;
        all += of;
    }
    println!("all {gone:>6} of {all:>6}  {:>6.2} %", gone as f64 * 100.0 / all as f64);
    println!("decoys altered: {altered} of {decoys}");
}

fn word(random: &mut Random) -> &'static str {
    random.pick(&[
        "order",
        "invoice",
        "cluster",
        "sync",
        "reconcile",
        "upload",
        "index",
        "snapshot",
        "worker",
        "queue",
        "handler",
        "session",
        "customer",
        "report",
        "batch",
        "cache",
        "lookup",
        "event",
        "pipeline",
        "storage",
        "update",
        "commit",
    ])
}

fn hex(random: &mut Random, len: usize) -> String {
    (0..len).map(|_| random.pick(b"0123456789abcdef") as char).collect()
}

fn ip(random: &mut Random) -> String {
    format!("10.{}.{}.{}", random.below(4), random.below(8), 1 + random.below(250))
}

fn json_line(random: &mut Random) -> String {
    let mut line = format!(
        "{{\"level\":\"{}\",\"ts\":\"2026-11-22T07:15:23.{:03}Z\",\"logger\":\"{}.{}\",\"msg\":\"{} {} {} in {}ms\",\"requestId\":\"{}\",\"attempt\":{}",
        random.pick(&["info", "info", "info", "debug", "warn", "error"]),
        random.below(1000),
        word(random),
        word(random),
        word(random),
        word(random),
        word(random),
        random.below(5000),
        vectors::uuid(random),
        random.below(9),
    );
    match random.below(20) {
        0 => line += &format!(",\"client\":\"{}:{}\"", ip(random), 30000 + random.below(30000)),
        1 => line += &format!(",\"user\":\"{}.{}@example.com\"", word(random), word(random)),
        2 => {
            line += &format!(
                ",\"body\":\"{{\\\"id\\\":{},\\\"name\\\":\\\"{}\\\",\\\"token\\\":\\\"{}\\\"}}\"",
                random.below(10_000),
                word(random),
                hex(random, 32)
            )
        }
        3 => {
            line += &format!(
                ",\"url\":\"https://api.example/v1/{}?page={}&q=a%20b\"",
                word(random),
                random.below(50)
            )
        }
        _ => {}
    }
    line + "}"
}

fn klog_line(random: &mut Random) -> String {
    let tail = match random.below(12) {
        0 => format!(
            "node=\"aks-nodepool1-12345678-vmss00000{}\" ip=\"{}\"",
            random.below(9),
            ip(random)
        ),
        1 => format!(
            "err=\"Get \\\"https://{}:443/api/v1/namespaces/mendix/secrets\\\": context deadline exceeded\"",
            ip(random)
        ),
        _ => format!(
            "object=\"mendix/{}-{}-{}\" duration=\"{}.{}ms\" attempt={}",
            word(random),
            hex(random, 10),
            hex(random, 5),
            random.below(100),
            random.below(10),
            random.below(5)
        ),
    };
    format!(
        "{}1122 07:15:{:02}.{:06}       1 {}_controller.go:{}] \"{} {}\" {tail}",
        random.pick(&["I", "I", "I", "W", "E"]),
        random.below(60),
        random.below(1_000_000),
        word(random),
        random.below(900),
        word(random),
        word(random),
    )
}

fn java_line(random: &mut Random) -> String {
    match random.below(10) {
        0 => format!(
            "2026-11-22 07:15:23.{:03} ERROR [main] com.mendix.{}.{}Service - {} failed for {}",
            random.below(1000),
            word(random),
            word(random),
            word(random),
            vectors::uuid(random)
        ),
        1 => format!(
            "Caused by: java.lang.IllegalStateException: {} {} is not ready after {} attempts",
            word(random),
            word(random),
            random.below(10)
        ),
        _ => format!(
            "\tat com.mendix.{}.{}.{}Manager$Inner.{}(Manager.java:{})",
            word(random),
            word(random),
            word(random),
            word(random),
            random.below(2000)
        ),
    }
}

fn access_line(random: &mut Random) -> String {
    format!(
        "{} - - [22/Nov/2026:07:15:{:02} +0000] \"{} /xas/{}/{}?id={} HTTP/1.1\" {} {} \"https://app.example/{}\" \"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36\" 0.{:03}",
        ip(random),
        random.below(60),
        random.pick(&["GET", "GET", "POST"]),
        word(random),
        word(random),
        random.below(100_000),
        random.pick(&["200", "200", "304", "404", "500"]),
        random.below(50_000),
        word(random),
        random.below(1000),
    )
}

fn mendix_line(random: &mut Random) -> String {
    let message = match random.below(12) {
        0 => format!(
            "User '{}.{}@example.com' logged in from {}",
            word(random),
            word(random),
            ip(random)
        ),
        1 => format!(
            "Connecting to jdbc:postgresql://db.internal:5432/{} with user 'app' and password '{}'",
            word(random),
            hex(random, 12)
        ),
        2 => "Mendix Runtime successfully started, the application is now available.".to_owned(),
        _ => format!(
            "Scheduled event {}.{} finished in {} ms, {} objects, {} {}",
            word(random),
            word(random),
            random.below(10_000),
            random.below(500),
            word(random),
            word(random)
        ),
    };
    format!(
        "2026-11-22 07:15:23.{:03} {} - {}: {message}",
        random.below(1000),
        random.pick(&["INFO", "INFO", "DEBUG", "WARNING", "ERROR"]),
        random.pick(&["Core", "ConnectionBus", "MicroflowEngine", "Jetty", "M2EE"])
    )
}
