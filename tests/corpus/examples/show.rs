//! Prints samples with their labels marked, to read them over:
//! `cargo run -p mendix-corpus --example show -- evaluation 1 40`.

use mendix_corpus::{Set, generate};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next();
    let named = Set::ALL.into_iter().find(|set| name.as_deref() == Some(set.name()));
    let set = named.unwrap_or(Set::Development);
    let mut number = |default| arguments.next().and_then(|a| a.parse().ok()).unwrap_or(default);
    let (seed, count) = (number(1), number(40));
    for sample in generate(set, seed, count as usize) {
        let mut text = sample.text.clone();
        let mut marks: Vec<_> =
            sample.secrets.iter().map(|s| (s.range.clone(), '«', '»')).collect();
        marks.extend(sample.decoys.iter().map(|d| (d.clone(), '‹', '›')));
        marks.sort_by_key(|(range, ..)| std::cmp::Reverse(range.start));
        for (range, open, close) in marks {
            text.insert(range.end, close);
            text.insert(range.start, open);
        }
        let about = sample.about.map_or("background", |class| class.id());
        println!("{about} {} {:?} #{}\n{text}\n", sample.shape, sample.wrap, sample.template);
    }
}
